"""transformers' own models and doors around a Dinat: segmentation, pipelines, the Trainer."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dinat_ref.models import DinatBackbone, DinatConfig, DinatForImageClassification, load_checkpoint
from dinat_ref.models.image_processor import ImageProcessor
from tests.models.tiny import TINY, image, tiny

transformers = pytest.importorskip("transformers", reason="transformers is not installed: dinat-ref[hf]")
pytest.importorskip("safetensors", reason="safetensors is not installed: dinat-ref[hf]")

from dinat_ref.interop import transformers as bridge  # noqa: E402
from dinat_ref.interop.natten import remove_natten  # noqa: E402

CLOSE = {"rtol": 0, "atol": 1e-5}
FOUR = {"depths": [2, 1, 1, 1], "num_heads": [2, 3, 4, 6], "dilations": [[1, 2], [2], [1], [1]], "embed_dim": 12}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"], "drop_path_rate": 0.0}
QUERIES = {"num_queries": 5, "train_num_points": 64, "num_labels": 4}  # of the models that look for masks
SMALL = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "encoder_feedforward_dim": 32}
SIZES = {"mask_feature_size": 32, "hidden_dim": 32, "dim_feedforward": 32, "feature_size": 32}


@pytest.fixture(scope="module", autouse=True)
def _dinat():
    bridge.enable_dinat()
    yield
    remove_natten()


def backbone() -> "transformers.DinatConfig":
    return transformers.DinatConfig(**(TINY | FOUR | STAGES))


def upernet():
    config = transformers.UperNetConfig(
        backbone_config=backbone(), hidden_size=16, auxiliary_in_channels=48, auxiliary_channels=8, num_labels=4
    )
    return transformers.UperNetForSemanticSegmentation(config)


def maskformer():
    attention = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    detr = transformers.DetrConfig(d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=5, **attention)
    config = transformers.MaskFormerConfig(
        backbone_config=backbone(), decoder_config=detr, fpn_feature_size=32, mask_feature_size=32, num_labels=4
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def mask2former():
    config = transformers.Mask2FormerConfig(backbone_config=backbone(), **QUERIES, **SMALL, **SIZES)
    return transformers.Mask2FormerForUniversalSegmentation(config)


def oneformer():
    text = {"text_encoder_width": 64, "text_encoder_num_layers": 1, "text_encoder_vocab_size": 50}
    lengths = {"text_encoder_context_length": 8, "text_encoder_n_ctx": 2, "task_seq_len": 6, "query_dec_layers": 1}
    sizes = {"conv_dim": 64, "mask_dim": 64, "hidden_dim": 64, "dim_feedforward": 32}
    config = transformers.OneFormerConfig(
        backbone_config=backbone(), is_training=True, **QUERIES, **SMALL, **sizes, **text, **lengths
    )
    return transformers.OneFormerForUniversalSegmentation(config)


def labels(make) -> dict:
    """What each of them learns from: a class for every pixel, or masks with a class each."""
    generator = torch.Generator().manual_seed(1)
    if make is upernet:
        return {"labels": torch.randint(0, 4, (2, 64, 96), generator=generator)}
    masks = (torch.rand(2, 3, 64, 96, generator=generator) > 0.5).float()
    targets = {"mask_labels": list(masks), "class_labels": [torch.tensor([0, 2, 3])] * 2}
    if make is oneformer:
        targets["task_inputs"] = torch.randint(0, 50, (2, 6), generator=generator).float()
        targets["text_inputs"] = torch.randint(0, 50, (2, 3, 8), generator=generator)
    return targets


@pytest.mark.filterwarnings("ignore")  # transformers' own, e.g. that only Swin and ResNet were trained
@pytest.mark.parametrize("make", [oneformer, mask2former, maskformer, upernet], ids=lambda make: make.__name__)
def test_segmentation_learns_through_dinat_and_sees_our_feature_maps(make):
    if make is not upernet:
        pytest.importorskip("scipy", reason="scipy is not installed: transformers matches masks with it")
    torch.manual_seed(0)
    model = make().train()
    pixels = image(height=64, width=96)
    model(pixel_values=pixels, **labels(make)).loss.backward()
    (theirs,) = (part for part in model.modules() if isinstance(part, transformers.DinatBackbone))
    layers = [part for part in theirs.modules() if type(part).__name__ == "NeighborhoodAttention"]
    assert len(layers) == 5
    for layer in layers:
        assert layer.rpb.grad.isfinite().all()
        assert layer.rpb.grad.abs().max() > 0

    ours = DinatBackbone(DinatConfig(**(TINY | FOUR | STAGES))).eval()
    load_checkpoint(ours, theirs.state_dict())
    with torch.no_grad():
        maps = theirs.eval()(pixels).feature_maps
        for mine, other in zip(ours(pixels).feature_maps, maps, strict=True):
            assert_close(mine, other, **CLOSE)


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def test_a_pipeline_classifies_with_a_folder_of_ours(tmp_path):
    torch.manual_seed(0)
    model = DinatForImageClassification(tiny(num_labels=None, id2label=dict(enumerate("abcde")))).eval()
    torch.nn.init.normal_(model.head.weight)
    model.image_processor = ImageProcessor(size=48, mean=(0.5, 0.4, 0.3))
    model.save_pretrained(tmp_path)
    pipeline = transformers.pipeline("image-classification", model=str(tmp_path))
    answers = {answer["label"]: answer["score"] for answer in pipeline(photo(), top_k=5)}
    pixels = pipeline.image_processor(photo(), return_tensors="pt")["pixel_values"]
    assert_close(pixels, model.image_processor(photo()), rtol=0, atol=0.03)  # torchvision rounds otherwise
    with torch.no_grad():
        probabilities = model(pixels).logits.softmax(-1)[0]
    assert answers == {name: pytest.approx(float(p), abs=1e-5) for name, p in zip("abcde", probabilities, strict=True)}

"""Batches of images of several sizes: what fills them up changes nothing, whatever its bits."""

import pytest
import torch
from torch.testing import assert_close

from dinat_ref import Neighborhood
from dinat_ref.models import DiNAT, DinatBackbone, DinatForImageClassification, DinatModel, DiNATs, Isotropic
from dinat_ref.models.pyramid import coarser, mask_pixels, token_mean
from tests.models.tiny import image, tiny

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
HEIGHT, WIDTH = 40, 52
REAL = [(HEIGHT, WIDTH), (23, 30)]  # of each image in the batch: the second is filled up
MAKE = {
    "DiNAT": lambda: DiNAT(tiny()),
    "DiNATs": lambda: DiNATs(tiny()),
    "Isotropic": lambda: Isotropic(12, 2, depth=3, kernel_size=3, patch_size=8, num_labels=5),
    "DinatModel": lambda: DinatModel(tiny()),
    "DinatForImageClassification": lambda: DinatForImageClassification(tiny()),
    "DinatBackbone": lambda: DinatBackbone(tiny(out_features=["stage1", "stage3"])),
}
each_kind = pytest.mark.parametrize("kind", MAKE)


def made(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = MAKE[kind]().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("rpb"):
            torch.nn.init.normal_(parameter)
    return model


def pixel_mask() -> torch.Tensor:
    mask = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.int64)
    for number, (rows, columns) in enumerate(REAL):
        mask[number, :rows, :columns] = 1
    return mask


def tensors(output) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [x for value in output.values() for x in ([value] if isinstance(value, torch.Tensor) else value)]


@each_kind
@pytest.mark.parametrize("filling", [0.0, 9.0, float("nan"), float("inf")])
def test_what_fills_up_changes_nothing(kind, filling):
    model, mask = made(kind), pixel_mask()
    expected = model(image(), pixel_mask=mask)
    filled = torch.where(mask[:, None] == 1, image(), filling)
    for one, other in zip(tensors(model(filled, pixel_mask=mask)), tensors(expected), strict=True):
        assert other.isfinite().all()
        assert_close(one, other, **EXACT)


@each_kind
def test_it_changes_the_images_that_it_is_about(kind):
    model = made(kind)
    whole, masked = (tensors(model(image(), pixel_mask=mask))[0] for mask in (None, pixel_mask()))
    assert_close(masked[0], whole[0], **CLOSE)
    assert (masked[1] - whole[1]).abs().max() > 1e-4


@each_kind
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_a_mask_of_ones_is_none(kind, dtype):
    model = made(kind)
    ones = torch.ones(2, HEIGHT, WIDTH, dtype=dtype)
    for one, other in zip(tensors(model(image(), pixel_mask=ones)), tensors(model(image())), strict=True):
        assert_close(one, other, **CLOSE)


def test_masked_tokens_are_not_attended_in_any_layer():
    config = tiny(dilations=[[1, 3], [1], [1, 1]], small_input="raise")
    model = DinatModel(config).eval()
    layouts = [(10, 13), (10, 13), (5, 7), (3, 4), (3, 4)]
    dilations = [1, 3, 1, 1, 1]
    output = model(image(), pixel_mask=pixel_mask(), return_all_attentions=True)
    for weights, layout, dilation in zip(output.attentions, layouts, dilations, strict=True):  # [B, H, X, Y, K]
        patch = 4 * 2 ** [(10, 13), (5, 7), (3, 4)].index(layout)
        rows, columns = (-(-length // patch) for length in REAL[1])
        real = torch.zeros(layout, dtype=torch.bool)
        real[:rows, :columns] = True
        seen = real.flatten()[Neighborhood(layout, 3, dilation=dilation).indices()].reshape(*layout, 9)
        assert not seen.all()
        expected = torch.where(seen, weights[1], 0.0)
        assert_close(weights[1], expected, **EXACT)
        sums = weights[1].sum(-1)
        assert_close(sums, seen.any(-1).expand_as(sums).float(), **CLOSE)


def test_the_mean_is_taken_of_real_tokens():
    model = made("DinatModel")
    output = model(image(), pixel_mask=pixel_mask())
    last = output.last_hidden_state  # [2, 3, 4, 48]: the second image has 2 x 2 real tokens of 16 x 16 pixels
    assert_close(output.pooler_output[1], last[1, :2, :2].flatten(0, 1).mean(0), **CLOSE)
    assert_close(output.pooler_output[0], last[0].flatten(0, 1).mean(0), **CLOSE)


def test_an_image_without_any_pixel_stays_finite():
    mask = pixel_mask()
    mask[1] = 0
    model = made("DinatForImageClassification").train()
    output = model(image(), labels=torch.tensor([0, 1]), pixel_mask=mask)
    output.loss.backward()
    assert output.logits.isfinite().all()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()


def test_computing_again_keeps_the_mask():
    model, mask = made("DiNAT").train(), pixel_mask()
    torch.manual_seed(0)
    expected = model(image(), pixel_mask=mask)
    model.set_grad_checkpointing()
    torch.manual_seed(0)
    assert_close(model(image(), pixel_mask=mask), expected, **EXACT)


def test_the_parts():
    mask = torch.zeros(1, 5, 7, dtype=torch.uint8)
    mask[0, 4, 2] = 200  # one pixel makes its token real
    assert coarser(mask, 2)[0].nonzero().tolist() == [[2, 1]]
    blanked, tokens = mask_pixels(torch.full((1, 3, 5, 7), torch.nan), mask.zero_(), 4)
    assert not blanked.any()
    assert not tokens.any()
    assert not token_mean(torch.ones(1, 2, 2, 3), tokens).any()


@each_kind
def test_a_mask_of_another_shape_is_refused(kind):
    for shape in ((2, WIDTH, HEIGHT), (1, HEIGHT, WIDTH), (2, 1, HEIGHT, WIDTH)):
        with pytest.raises(ValueError, match=r"pixel_mask must be \[batch, height, width\] = \(2, 40, 52\)"):
            made(kind)(image(), pixel_mask=torch.ones(shape))

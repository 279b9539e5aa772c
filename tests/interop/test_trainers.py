"""Other people's training loops take our models: transformers' Trainer, Lightning."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dinat_ref.models import DiNAT, DinatForImageClassification
from dinat_ref.models.image_processor import ImageProcessor
from tests.models.tiny import tiny

EXACT = {"rtol": 0, "atol": 0}


class Shades(torch.utils.data.Dataset):
    """Noise that is dark, grey or bright: three classes."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | int]:
        noise = torch.randn(3, 40, 52, generator=torch.Generator().manual_seed(number))
        return {"pixel_values": 0.5 * noise + 2 * (number % 3) - 2, "labels": number % 3}


def classifier() -> DinatForImageClassification:
    torch.manual_seed(0)
    return DinatForImageClassification(tiny(num_labels=None, id2label=dict(enumerate(["dark", "grey", "bright"]))))


def right(predictions) -> float:
    return float((predictions.predictions.argmax(-1) == predictions.label_ids).mean())


@pytest.fixture
def trainer(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: dinat-ref[hf]")
    pytest.importorskip("accelerate", reason="accelerate is not installed: dinat-ref[hf]")

    def make(model: torch.nn.Module, **settings):
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "runs"),
            per_device_train_batch_size=2,
            num_train_epochs=2,
            learning_rate=1e-2,
            save_strategy="epoch",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
            **settings,
        )
        metric = lambda predictions: {"right": right(predictions)}  # noqa: E731
        return transformers.Trainer(
            model=model, args=arguments, train_dataset=Shades(), eval_dataset=Shades(), compute_metrics=metric
        )

    return make


@pytest.mark.filterwarnings("ignore")  # transformers' and Accelerate's own
def test_the_trainer_trains_evaluates_and_saves_whole_folders(trainer, tmp_path, monkeypatch):
    from dinat_ref.interop.trainer import enable_trainer

    model = classifier()
    model.image_processor = ImageProcessor(size=48)
    run = trainer(model)
    before = run.evaluate()
    kind = type(run)
    monkeypatch.setattr(kind, "save_model", getattr(kind.save_model, "__wrapped__", kind.save_model))  # and back again
    run.save_model(str(tmp_path / "bare"))
    assert enable_trainer()
    assert not enable_trainer()
    run.train()
    after = run.evaluate()
    assert after["eval_loss"] < 0.7 * before["eval_loss"]
    assert after["eval_right"] > before["eval_right"]
    run.save_model(str(tmp_path / "saved"))

    for folder in (tmp_path / "saved", *sorted(Path(tmp_path, "runs").glob("checkpoint-*"))):
        again = DinatForImageClassification.from_pretrained(folder)
        assert again.config == model.config
        assert again.image_processor.size == 48
    again = DinatForImageClassification.from_pretrained(tmp_path / "saved")
    for name, tensor in model.state_dict().items():
        assert_close(again.state_dict()[name], tensor, **EXACT)
    assert not (tmp_path / "bare" / "config.json").exists()


@pytest.mark.filterwarnings("ignore")  # transformers' and Accelerate's own
def test_the_trainer_resumes_to_the_same_weights(trainer, tmp_path):
    through = trainer(classifier())
    through.train()
    stopped = trainer(classifier())
    first = min(Path(tmp_path, "runs").glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    stopped.train(resume_from_checkpoint=str(first))
    for one, other in zip(stopped.model.parameters(), through.model.parameters(), strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # transformers' and Accelerate's own
def test_the_trainer_switches_gradient_checkpointing_on(trainer):
    fields = pytest.importorskip("transformers").TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
    run = trainer(classifier(), max_steps=1, **{name: True})
    run.train()
    assert run.model.is_gradient_checkpointing


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_lightning_fits_a_model(tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed: pip install lightning")

    class Fit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.model = DiNAT(tiny(num_labels=3))
            self.losses: list[float] = []

        def training_step(self, batch, number):
            loss = torch.nn.functional.cross_entropy(self.model(batch["pixel_values"]), batch["labels"])
            self.losses.append(float(loss))
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)

    module = Fit()
    loader = torch.utils.data.DataLoader(Shades(), batch_size=2, shuffle=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    run = lightning.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    run.fit(module, loader)
    assert sum(module.losses[-6:]) < 0.7 * sum(module.losses[:6])
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = Fit.load_from_checkpoint(tmp_path / "last.ckpt")
    for name, tensor in module.state_dict().items():
        assert_close(again.state_dict()[name], tensor, **EXACT)


SCRIPT = """
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

folder, images, output = sys.argv[1:]
names = sorted(path.name for path in Path(images).iterdir())
label2id = {name: str(number) for number, name in enumerate(names)}
id2label = {number: name for name, number in label2id.items()}
config = AutoConfig.from_pretrained(folder, num_labels=len(names), label2id=label2id, id2label=id2label)
model = AutoModelForImageClassification.from_pretrained(folder, config=config, ignore_mismatched_sizes=True)
processor = AutoImageProcessor.from_pretrained(folder)
data = [
    {"pixel_values": processor(Image.open(path), return_tensors="pt")["pixel_values"][0], "labels": names.index(name)}
    for name in names
    for path in Path(images, name).iterdir()
]
settings = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "learning_rate": 5e-3, "num_train_epochs": 6}
arguments = TrainingArguments(output_dir=output, save_strategy="no", **settings)
trainer = Trainer(model=model, args=arguments, train_dataset=data, processing_class=processor)
trainer.train()
trainer.save_model()
"""


def test_a_script_for_transformers_trains_a_dinat_on_a_folder_of_images_unedited(tmp_path):
    """In the manner of transformers' example for image classification, under ``dinat-ref run``."""
    for package in ("transformers", "accelerate", "safetensors"):
        pytest.importorskip(package, reason=f"{package} is not installed: dinat-ref[hf]")
    generator = np.random.default_rng(0)
    for name, shade in (("bright", 210), ("dark", 40), ("grey", 128)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = generator.normal(shade, 25, (60, 70, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    start = DinatForImageClassification(tiny())
    start.image_processor = ImageProcessor(size=40)
    start.save_pretrained(tmp_path / "start")
    (tmp_path / "train.py").write_text(SCRIPT)

    names = [str(tmp_path / name) for name in ("train.py", "start", "images", "trained")]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dinat_ref", "run", *names]
    run = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr

    model = DinatForImageClassification.from_pretrained(tmp_path / "trained")
    assert model.config.id2label == {0: "bright", 1: "dark", 2: "grey"}
    with torch.no_grad():
        for number, name in model.config.id2label.items():
            for path in (tmp_path / "images" / name).iterdir():
                assert model(model.image_processor(Image.open(path))).logits.argmax() == number

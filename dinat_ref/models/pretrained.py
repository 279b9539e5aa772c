"""``from_pretrained`` and ``save_pretrained``: a folder, or a name on the Hugging Face hub."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from dinat_ref.models.checkpoints import WEIGHT_FILES, load_checkpoint, shard_names, write_checkpoint
from dinat_ref.models.config import DinatConfig
from dinat_ref.models.keys import to_huggingface
from dinat_ref.models.optional import need


class Pretrained(nn.Module):
    """Gives a model class ``from_pretrained`` and ``save_pretrained``; the class takes a ``DinatConfig``.

    A class that takes something else says so in ``maker`` and ``write_config``.

    Raises:
        as the methods
    Source: the interface of transformers' PreTrainedModel.
    Example:
        >>> import tempfile
        >>> from dinat_ref.models import DinatForImageClassification
        >>> model = DinatForImageClassification(DinatConfig(num_labels=5, embed_dim=32, num_heads=[1, 2, 4, 8]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.config.to_json(f"{folder}/config.json")
        ...     torch.save(model.state_dict(), f"{folder}/pytorch_model.bin")
        ...     DinatForImageClassification.from_pretrained(folder).config.num_labels
        5
    """

    config: DinatConfig
    huggingface_prefix: str | None = ""  # what transformers puts before parameter names; None: it has no such model
    architecture: str | None = None  # what transformers calls this class; None: as it is called here
    model_type = "dinat"

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        strict: bool = True,
        resize_rpb: bool = False,
        revision: str | None = None,
        **settings: Any,
    ) -> Self:
        """Make a model from a folder with ``config.json`` and weights, or from a name on the hub.

        Only a name that is no local folder is looked up on the hub. The model is returned in evaluation mode.

        Args:
            strict, resize_rpb: as ``load_checkpoint``.
            revision: branch, tag or commit on the hub.
            settings: override fields of the configuration, e.g. out_features or small_input.
        Raises:
            FileNotFoundError: no such folder or files.
            ImportError: a hub name without huggingface_hub installed, or safetensors missing.
            ValueError: a configuration outside its limits, or a checkpoint that does not fit.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = download(str(source), revision)
        make = cls.maker(folder, settings)
        with torch.device("meta"):  # drawing weights that the checkpoint replaces takes longer than reading it
            model = make()
        model.to_empty(device=torch.get_default_device())
        report = load_checkpoint(model, folder, strict=strict, resize_rpb=resize_rpb)
        if new := [*report.missing, *(entry.partition(":")[0] for entry in report.misshapen)]:
            drawn = make().state_dict()
            model.load_state_dict({name: drawn[name] for name in new}, strict=False)
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json`` and ``model.safetensors`` so that this package and transformers read them.

        Raises:
            ImportError: safetensors is missing.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        if self.huggingface_prefix is not None:
            state = to_huggingface(state, self.huggingface_prefix)
        write_checkpoint(folder / "model.safetensors", state)
        self.write_config(folder / "config.json")

    @classmethod
    def maker(cls, folder: Path, settings: dict[str, Any]) -> Callable[[], Self]:
        """Read a folder's configuration, with settings overriding it: a function that makes the model."""
        if "num_labels" in settings:  # the names of other classes go
            settings = {"id2label": None, **settings}
        elif "id2label" in settings:
            settings = {"num_labels": None, **settings}
        config = replace(DinatConfig.from_json(folder), **settings)
        return lambda: cls(config)

    def write_config(self, path: Path) -> None:
        """Write the configuration that ``maker`` reads."""
        architectures = [self.architecture or type(self).__name__]
        self.config.to_json(path, architectures=architectures, model_type=self.model_type)


def download(name: str, revision: str | None = None) -> Path:
    """Fetch a model's configuration and weights from the Hugging Face hub into its cache.

    Shapes:
        return: the folder that holds config.json and the weights
    Raises:
        FileNotFoundError: the name cannot be one of the hub's, or its repository has no weights.
        ImportError: huggingface_hub is missing.
    Source: huggingface_hub's hf_hub_download.
    Example:
        >>> download("./no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no such folder, and no name on the hub: ./no-such-folder
    """
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name or "\\" in name:
        raise FileNotFoundError(f"no such folder, and no name on the hub: {name}")
    hub = need("huggingface_hub", "hub")
    config = Path(hub.hf_hub_download(name, "config.json", revision=revision))
    for weights in WEIGHT_FILES:
        try:
            path = Path(hub.hf_hub_download(name, weights, revision=revision))
        except need("huggingface_hub.errors", "hub").EntryNotFoundError:
            continue
        if weights.endswith(".index.json"):
            for shard in shard_names(path):
                hub.hf_hub_download(name, shard, revision=revision)
        return config.parent
    raise FileNotFoundError(f"{name} on the hub has no weights: none of {', '.join(WEIGHT_FILES)}")

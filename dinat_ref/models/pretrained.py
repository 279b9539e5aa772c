"""``from_pretrained`` and ``save_pretrained``: a folder, or a name on the Hugging Face hub."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dinat_ref.attention.functional import check_impl
from dinat_ref.layers import NeighborhoodAttention
from dinat_ref.models.checkpointing import GradientCheckpointing
from dinat_ref.models.checkpoints import load_checkpoint
from dinat_ref.models.config import DinatConfig
from dinat_ref.models.image_processor import FILE as PROCESSOR_FILE
from dinat_ref.models.image_processor import ImageProcessor
from dinat_ref.models.keys import to_huggingface
from dinat_ref.models.optional import need
from dinat_ref.models.weight_files import (
    WEIGHT_FILES,
    CheckpointError,
    read_checkpoint,
    shard_names,
    weights_folder,
    write_checkpoint,
)


class Pretrained(GradientCheckpointing):
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
    image_processor: ImageProcessor | None = None  # None: nobody has said how it wants its photographs

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        strict: bool = True,
        ignore_mismatched_sizes: bool = False,
        resize_rpb: bool = False,
        dtype: torch.dtype | str | None = None,
        ema: bool = True,
        impl: str = "auto",
        config: DinatConfig | None = None,
        revision: str | None = None,
        cache_dir: Path | str | None = None,
        token: str | bool | None = None,
        **settings: Any,
    ) -> Self:
        """Make a model from a folder with ``config.json`` and weights, or from a name on the hub.

        Only a name that is no local folder is looked up on the hub. The model is returned in evaluation mode.

        Args:
            strict, resize_rpb: as ``load_checkpoint``; without strict a warning lists what did not fit.
            ignore_mismatched_sizes: give parameters that have another shape in the checkpoint new values, e.g. the
                head of a classifier with other classes; a warning lists them.
            dtype: of the parameters, or its name; None means PyTorch's default, "auto" the checkpoint's.
            ema: take the moving average of the weights where the checkpoint has it beside the weights in training.
            impl: the formulation of all layers, as ``set_impl``.
            config: take this configuration instead of the folder's.
            revision, cache_dir, token: branch, tag or commit on the hub; where to keep what was fetched; who asks.
            settings: override fields of the configuration, e.g. num_labels, id2label, label2id, out_features or
                small_input. Of num_labels, id2label and label2id one implies the others; so do out_features and
                out_indices.
        Raises:
            FileNotFoundError: no such folder or files.
            ImportError: a hub name without huggingface_hub installed.
            TypeError: a setting that the configuration does not have.
            ValueError: a configuration outside its limits, or a checkpoint that does not fit.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = download(str(source), revision, cache_dir, token)
        folder = weights_folder(folder)
        make = cls.maker(folder, settings) if config is None else cls._maker_of(config, settings)
        with torch.device("meta"):  # drawing weights that the checkpoint replaces takes longer than reading it
            model = make()
        state = read_checkpoint(folder, ema)
        if strict and not ignore_mismatched_sizes:
            _check_amount(folder, model, state)
        model.to(_dtype(dtype, state)).to_empty(device=torch.get_default_device())
        options = {"ignore_mismatched_sizes": ignore_mismatched_sizes, "resize_rpb": resize_rpb}
        report = load_checkpoint(model, state, strict=strict, **options)
        if new := [*report.missing, *(entry.partition(":")[0] for entry in report.misshapen)]:
            drawn = make().state_dict()
            model.load_state_dict({name: drawn[name] for name in new}, strict=False)
        if (folder / PROCESSOR_FILE).exists():
            model.image_processor = ImageProcessor.from_json(folder)
        model.set_impl(impl)
        return model.eval()

    def set_impl(self, impl: str) -> None:
        """Let all layers attend by one formulation, see ``dinat_ref.attention.functional``.

        Raises:
            ValueError: an unknown name.
        """
        check_impl(impl)
        for part in self.modules():
            if isinstance(part, NeighborhoodAttention):
                part.impl = impl

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that this package and transformers read.

        It holds ``config.json``, ``model.safetensors`` and, for a model of colour images, ``preprocessor_config.json``.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        if self.huggingface_prefix is not None:
            state = to_huggingface(state, self.huggingface_prefix)
        write_checkpoint(folder / "model.safetensors", state)
        self.write_configs(folder)

    def write_configs(self, folder: Path) -> None:
        """Write what belongs beside the weights: ``config.json`` and, for colour images, how they are prepared."""
        self.write_config(folder / "config.json")
        if processor := self.image_processor or self.default_image_processor():
            processor.to_json(folder / PROCESSOR_FILE)

    def default_image_processor(self) -> ImageProcessor | None:
        """How published models want their photographs; None for a model of other than three channels."""
        return ImageProcessor() if self.config.num_channels == 3 else None

    @classmethod
    def maker(cls, folder: Path, settings: dict[str, Any]) -> Callable[[], Self]:
        """Read a folder's configuration, with settings overriding it: a function that makes the model."""
        return cls._maker_of(DinatConfig.from_json(folder), settings)

    @classmethod
    def _maker_of(cls, config: DinatConfig, settings: dict[str, Any]) -> Callable[[], Self]:
        """Let settings override a configuration: a function that makes the model."""
        if not isinstance(config, DinatConfig):
            raise TypeError(f"config must be a DinatConfig, got {type(config).__name__}")
        config = replace(config, **_complete(settings))
        return lambda: cls(config)

    def write_config(self, path: Path) -> None:
        """Write the configuration that ``maker`` reads."""
        architectures = [self.architecture or type(self).__name__]
        self.config.to_json(path, architectures=architectures, model_type=self.model_type)


def _check_amount(folder: Path, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise before memory is taken for a model that the weights cannot fill; names and shapes are compared later."""
    needed = sum(parameter.numel() for parameter in model.parameters())
    held = sum(tensor.numel() for tensor in state.values())
    if needed > 2 * held + 2**20:
        raise CheckpointError(f"{folder / 'config.json'} describes {needed:,} parameters, and its weights are {held:,}")


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Let a setting take along what a file says of the same thing: number and names of classes, stages."""
    settings = dict(settings)
    if (numbers := settings.pop("label2id", None)) is not None:
        names = {int(number): name for name, number in numbers.items()}
        if {int(number): name for number, name in settings.get("id2label", names).items()} != names:
            raise ValueError(f"label2id and id2label must say the same, got {numbers} and {settings['id2label']}")
        settings["id2label"] = names
    for one, other in (("num_labels", "id2label"), ("out_features", "out_indices")):
        if one in settings or other in settings:
            settings = {one: None, other: None, **settings}
    if unknown := [name for name in settings if name not in {entry.name for entry in fields(DinatConfig)}]:
        raise TypeError(f"from_pretrained takes no {', '.join(unknown)}: it is no field of DinatConfig")
    return settings


def _dtype(dtype: torch.dtype | str | None, state: Mapping[str, Tensor]) -> torch.dtype:
    """Understand an argument: a dtype, its name, "auto" for the checkpoint's own, None for PyTorch's default."""
    if dtype == "auto":
        return next(
            (tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.get_default_dtype()
        )
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if found is None and dtype is None:
        return torch.get_default_dtype()
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype must be 'auto' or a floating point dtype, got {dtype!r}")
    return found


def download(
    name: str,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    token: str | bool | None = None,
) -> Path:
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
    missing: type[Exception] = need("huggingface_hub.errors", "hub").EntryNotFoundError
    fetch = partial(hub.hf_hub_download, name, revision=revision, cache_dir=cache_dir, token=token)
    config = Path(fetch("config.json"))
    with suppress(missing):  # a repository need not say how its model wants photographs
        fetch(PROCESSOR_FILE)
    for weights in WEIGHT_FILES:
        try:
            path = Path(fetch(weights))
        except missing:
            continue
        if weights.endswith(".index.json"):
            for shard in shard_names(path):
                fetch(shard)
        return config.parent
    raise FileNotFoundError(f"{name} on the hub has no weights: none of {', '.join(WEIGHT_FILES)}")

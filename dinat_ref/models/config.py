"""What a NAT or DiNAT is made of: the fields of a published ``config.json``, checked.

The fields and their defaults are those of Hugging Face's ``DinatConfig``, so a file written by either is read by
both. Two things are added: ``kernel_size`` may be a pair, one number per axis, and ``small_input`` says what to do
with a feature map that is smaller than ``kernel_size * dilation``:

    "pad"     append zero tokens to the normalised map (what the published models do); they take part, through the
              biases of the key and value projections, and their outputs are dropped
    "raise"   a ValueError (what the operator does)
    "clamp"   lower the dilation of that axis until the window fits
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from dinat_ref.command import whole_file
from dinat_ref.models import schema
from dinat_ref.outside import brief, read_json

MINI_DEPTHS = [3, 4, 6, 5]
MINI_DILATIONS = [[1, 8, 1], [1, 4, 1, 4], [1, 2, 1, 2, 1, 2], [1, 1, 1, 1, 1]]
ACTIVATION_NAMES = ("gelu", "relu", "silu", "swish")
SMALL_INPUT = ("pad", "raise", "clamp")
CHECKS: dict[str, schema.Check] = {
    "patch_size": schema.one_or_each(schema.integer(1, 4096)),
    "num_channels": schema.integer(1, 4096),
    "embed_dim": schema.integer(2, schema.MOST_CHANNELS),
    "depths": schema.listed(schema.integer(0, schema.MOST_LAYERS), schema.MOST_LEVELS),
    "num_heads": schema.listed(schema.integer(1, schema.MOST_CHANNELS), schema.MOST_LEVELS),
    "kernel_size": schema.one_or_each(schema.integer(1, schema.LONGEST_REACH)),
    "dilations": schema.optional(
        schema.listed(schema.listed(schema.integer(1, schema.LONGEST_REACH), schema.MOST_LAYERS), schema.MOST_LEVELS)
    ),
    "mlp_ratio": schema.number(0, 64),
    "qkv_bias": schema.truth,
    "hidden_dropout_prob": schema.number(0, 1),
    "attention_probs_dropout_prob": schema.number(0, 1),
    "drop_path_rate": schema.number(0, schema.BELOW_ONE),
    "hidden_act": schema.word(*ACTIVATION_NAMES),
    "initializer_range": schema.number(0, 100),
    "layer_norm_eps": schema.number(0, 1),
    "layer_scale_init_value": schema.number(0, 100),
    "out_features": schema.optional(schema.listed(schema.text, schema.MOST_LEVELS + 1)),
    "out_indices": schema.optional(
        schema.listed(schema.integer(-schema.MOST_LEVELS - 1, schema.MOST_LEVELS), schema.MOST_LEVELS + 1)
    ),
    "num_labels": schema.optional(schema.integer(0, schema.MOST_CLASSES)),
    "id2label": schema.optional(schema.class_names),
    "problem_type": schema.optional(
        schema.word("regression", "single_label_classification", "multi_label_classification")
    ),
    "output_attentions": schema.truth,
    "output_hidden_states": schema.truth,
    "return_dict": schema.truth,
    "small_input": schema.word(*SMALL_INPUT),
}


@dataclass
class DinatConfig:
    """The architecture of a NAT, DiNAT or DiNAT_s; without arguments that of DiNAT-Mini with two classes.

    Shapes:
        depths [levels], num_heads [levels], dilations [levels][depth of the level]
    Args:
        patch_size: pixels of a token's side; the tokenizer makes 4.
        num_channels: channels of an image.
        embed_dim: channels of the first level; each level doubles them.
        depths: layers of each level.
        num_heads: heads of each level.
        kernel_size: window width in tokens, one number or one per axis.
        dilations: one per layer of each level; None means DiNAT-Mini's.
        mlp_ratio: hidden channels of the MLP, in channels of the level.
        qkv_bias: give the query, key and value projections a bias.
        hidden_dropout_prob, attention_probs_dropout_prob: probabilities of dropping a channel, a weight.
        drop_path_rate: probability of skipping a branch of the last layer; earlier layers have less, linearly.
        hidden_act: the MLP's activation.
        initializer_range: standard deviation of the initial weights.
        layer_norm_eps: added to the variance by the LayerNorms of the layers and the last one.
        layer_scale_init_value: initial factor of each branch; 0 means no such factors.
        out_features, out_indices: which stages a backbone returns; None means the last.
        num_labels: number of classes; id2label gives them names.
        small_input: "pad", "raise" or "clamp", see the top of this module.
    Raises:
        TypeError: a field of another type.
        ValueError: fields outside their limits, or that do not fit together.
    Source: Hassani & Shi, arXiv:2209.15001, table 2; fields: Hugging Face's DinatConfig.
    Example:
        >>> config = DinatConfig(depths=[1, 2], num_heads=[2, 4], dilations=[[2], [1, 3]], kernel_size=3)
        >>> config.hidden_size, config.stage_names
        (128, ['stem', 'stage1', 'stage2'])
        >>> DinatConfig(depths=[1, 2], num_heads=[2, 4], dilations=[[2], [1]])
        Traceback (most recent call last):
        ValueError: dilations must have one entry per layer: depths [1, 2], got [[2], [1]]
    """

    patch_size: int | Sequence[int] = 4
    num_channels: int = 3
    embed_dim: int = 64
    depths: Sequence[int] = field(default_factory=lambda: list(MINI_DEPTHS))
    num_heads: Sequence[int] = field(default_factory=lambda: [2, 4, 8, 16])
    kernel_size: int | Sequence[int] = 7
    dilations: Sequence[Sequence[int]] | None = None
    mlp_ratio: float = 3.0
    qkv_bias: bool = True
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.1
    hidden_act: str = "gelu"
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    layer_scale_init_value: float = 0.0
    out_features: Sequence[str] | None = None
    out_indices: Sequence[int] | None = None
    num_labels: int | None = None
    id2label: dict[int, str] | None = None
    problem_type: str | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    small_input: str = "pad"

    model_type = "dinat"

    def __post_init__(self) -> None:
        """Check the fields, each by itself and against the others, and fill in what was left out."""
        for name, value in schema.check_settings(vars(self), CHECKS).items():
            setattr(self, name, value)
        if self.dilations is None:
            if self.depths != MINI_DEPTHS:
                raise ValueError(f"dilations must be given for depths other than {MINI_DEPTHS}, got {self.depths}")
            self.dilations = [list(level) for level in MINI_DILATIONS]
        if self.num_labels is None:
            self.num_labels = 2 if self.id2label is None else len(self.id2label)
        self._check_together()

    def _check_together(self) -> None:
        """Raise unless the fields describe a model, and one that is not absurdly large."""
        assert self.dilations is not None
        if self.patch_size not in (4, [4, 4]):
            raise ValueError(f"patch_size must be 4, the tokenizer's two strides of 2, got {self.patch_size}")
        if len(self.depths) != len(self.num_heads) or not self.depths:
            got = f"{self.num_heads} for depths {self.depths}"
            raise ValueError(f"num_heads must have one entry per level, at least one, got {got}")
        if [len(level) for level in self.dilations] != self.depths:
            got = brief(self.dilations)
            raise ValueError(f"dilations must have one entry per layer: depths {self.depths}, got {got}")
        for level, (dim, heads) in enumerate(zip(self.dims, self.num_heads, strict=True)):
            if dim % heads:
                raise ValueError(f"num_heads on level {level} must divide its {dim} channels, got {heads}")
        sizes = [self.kernel_size] if isinstance(self.kernel_size, int) else self.kernel_size
        if not isinstance(self.kernel_size, int) and len(sizes) != 2:
            raise ValueError(f"kernel_size must be one number or one per axis, got {self.kernel_size}")
        schema.check_hidden(self.embed_dim, self.mlp_ratio)
        reach = max(sizes) * max((dilation for level in self.dilations for dilation in level), default=1)
        if reach > schema.LONGEST_REACH:
            raise ValueError(f"kernel_size * dilation must be at most {schema.LONGEST_REACH} tokens, got {reach}")
        if self.id2label is not None and len(self.id2label) != self.num_labels:
            raise ValueError(f"id2label must name every class: num_labels {self.num_labels}, got {len(self.id2label)}")
        schema.check_size(sum(self.depths), self.num_parameters)

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the NAT or DiNAT with a head that this describes, without making it."""
        channels, dim = self.num_channels, self.embed_dim
        sizes = [self.kernel_size] * 2 if isinstance(self.kernel_size, int) else self.kernel_size
        table = math.prod(2 * size - 1 for size in sizes)
        count = dim // 2 * (9 * channels + 1) + dim * (9 * (dim // 2) + 1) + 2 * dim  # two convolutions, LayerNorm
        for dim, heads, depth in zip(self.dims, self.num_heads, self.depths, strict=True):
            scaled = self.layer_scale_init_value > 0
            count += depth * schema.layer_parameters(dim, heads, table, self.mlp_ratio, self.qkv_bias, scaled)
        count += sum(18 * dim * dim + 4 * dim for dim in self.dims[:-1])  # the downsamplers
        labels = self.num_labels or 0
        return count + 2 * self.hidden_size + labels * (self.hidden_size + 1)

    @property
    def num_layers(self) -> int:
        """The number of levels, as Hugging Face counts."""
        return len(self.depths)

    @property
    def dims(self) -> list[int]:
        """The channels of each level."""
        return [self.embed_dim * 2**level for level in range(len(self.depths))]

    @property
    def hidden_size(self) -> int:
        """The channels of the last level."""
        return self.dims[-1]

    @property
    def stage_names(self) -> list[str]:
        """The names a backbone chooses from: the embeddings and each level."""
        return ["stem", *(f"stage{level}" for level in range(1, len(self.depths) + 1))]

    @property
    def label2id(self) -> dict[str, int] | None:
        """The number of each class by its name."""
        return None if self.id2label is None else {name: number for number, name in self.id2label.items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Make a configuration from the settings of a ``config.json``; settings of other libraries are left aside.

        A file of model_type "nat" describes a DiNAT whose dilations are all 1.

        Raises:
            TypeError: as the class.
            ValueError: another model_type, or as the class.
        """
        model_type = settings.get("model_type", "dinat")
        if model_type not in ("dinat", "nat", "dinat_s"):
            raise ValueError(f"model_type must be 'dinat', 'nat' or 'dinat_s', got {brief(model_type)}")
        known = schema.check_settings(settings, CHECKS)
        if model_type == "nat":
            known["dilations"] = [[1] * depth for depth in known.get("depths", MINI_DEPTHS)]
        if (names := known.get("id2label")) is not None:
            known["num_labels"] = len(names)
            if all(name == f"LABEL_{number}" for number, name in names.items()):  # where nobody named the classes
                del known["id2label"]
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """List the settings as ``config.json`` holds them."""
        settings = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        names = self.id2label or {number: f"LABEL_{number}" for number in range(self.num_labels or 0)}
        settings["id2label"] = {str(number): name for number, name in names.items()}
        del settings["num_labels"]  # the number of names
        settings["label2id"] = {name: int(number) for number, name in settings["id2label"].items()}
        derived = {"model_type": self.model_type, "hidden_size": self.hidden_size, "stage_names": self.stage_names}
        return settings | derived

    @classmethod
    def from_json(cls, path: Path | str) -> Self:
        """Read a ``config.json``, or the one in a folder.

        Raises:
            OSError: no such file, or one that cannot be opened.
            ValueError: as ``read_json`` and ``from_dict``; the message names the file.
        """
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        settings = read_json(path)
        try:
            return cls.from_dict(settings)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None

    def to_json_string(self) -> str:
        """Set the settings as text; the Trainer's callback for TensorBoard asks for it."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    def to_json(self, path: Path | str, **more: Any) -> None:
        """Write a ``config.json`` that this package and transformers read; ``more`` settings are written along."""
        content = json.dumps(self.to_dict() | more, indent=2, sort_keys=True)
        with whole_file(path) as temporary:
            temporary.write_text(content + "\n", encoding="utf-8")

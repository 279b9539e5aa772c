"""What people put around a model's parameters: dictionaries of training code, prefixes of what contained the model.

A file of a training script may hold the weights twice, as they were in training and as a moving average. timm takes
the average, and so does this package; ``ema=False`` takes the others.

Whatever stands before the names of the tokenizer is the path to the model within something else::

    module._orig_mod.patch_embed.proj.0.weight                             torch.compile within DistributedDataParallel
    model.pixel_level_module.encoder.embeddings.patch_embeddings.[...]     the backbone of OneFormer or Mask2Former
    backbone.patch_embed.proj.0.weight                                     of a detector; its own heads are left aside
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from dinat_ref.command import printable
from dinat_ref.outside import brief

State = dict[str, Tensor]

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict")  # where training code keeps the moving average
LATEST = ("state_dict", "model", "model_state_dict", "module")  # and the weights in training
TRANSPARENT = {"module", "model", "net", "network"}  # contain a model and nothing else
INSERTED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
TOKENIZER = re.compile(
    r"((?:[^.]+\.)*?)(?:(?:dinat|nat)\.)?(?:patch_embed\.(?:proj|norm)|embeddings\.(?:patch_embeddings|norm))\."
)
KNOWN_PATH = re.compile(r"(?:(?:module|model|net|network|backbone|pixel_level_module\.encoder)\.)*")
CONSTANTS = re.compile(r"(?:.*\.)?(?:relative_position_index|n_averaged)")  # buffers that are no weights
LAYOUTS = {  # names of each, numbers replaced by N
    "NAT and DiNAT": (
        *("patch_embed.proj.N.weight", "levels.N.blocks.N.norm1.weight", "levels.N.blocks.N.attn.qkv.weight"),
        *("levels.N.blocks.N.attn.rpb", "levels.N.blocks.N.mlp.fc1.weight", "levels.N.downsample.reduction.weight"),
    ),
    "DiNAT_s": (
        *("patch_embed.proj.weight", "layers.N.blocks.N.norm1.weight", "layers.N.blocks.N.attn.qkv.weight"),
        *("layers.N.blocks.N.attn.rpb", "layers.N.blocks.N.mlp.fc1.weight", "layers.N.downsample.reduction.weight"),
    ),
    "the isotropic models": (
        *("patch_embed.proj.weight", "layers.N.norm1.weight", "layers.N.attn.qkv.weight", "layers.N.attn.rpb"),
        "layers.N.mlp.fc1.weight",
    ),
    "Hugging Face's Dinat": (
        *("embeddings.patch_embeddings.projection.N.weight", "encoder.levels.N.layers.N.layernorm_before.weight"),
        *("encoder.levels.N.layers.N.attention.self.query.weight", "encoder.levels.N.layers.N.attention.self.rpb"),
        *("encoder.levels.N.layers.N.intermediate.dense.weight", "encoder.levels.N.downsample.reduction.weight"),
    ),
}


def find_state(content: Any, ema: bool = True) -> tuple[State, str]:
    """Find the tensors in what a file held: at the top, or under a name that training code gives them.

    Shapes:
        return: tensors by name, and where they were: "" or e.g. "state_dict_ema"
    Args:
        ema: take the moving average where there is one.
    Raises:
        ValueError: there are no tensors by name.
    Source: the files of timm, torchvision, mmengine, PyTorch Lightning and DeepSpeed.
    Example:
        >>> import torch
        >>> content = {"state_dict": {"head.bias": torch.zeros(1)}, "state_dict_ema": {"head.bias": torch.ones(1)}}
        >>> find_state(content), find_state(content, ema=False)
        (({'head.bias': tensor([1.])}, 'state_dict_ema'), ({'head.bias': tensor([0.])}, 'state_dict'))
    """
    path: list[str] = []
    while isinstance(content, Mapping) and len(path) < 4:  # a mapping may contain itself
        order = AVERAGES + LATEST if ema else LATEST + AVERAGES
        wrapper = next((name for name in order if isinstance(content.get(name), (Mapping, nn.Module))), None)
        if wrapper is None:
            break
        path.append(wrapper)
        content = content[wrapper]
        content = content.state_dict() if isinstance(content, nn.Module) else content
    if isinstance(content, Mapping):
        state = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
        if state:
            return state, ".".join(path)
    raise ValueError("it holds no tensors by name")


def unwrap(state: Mapping[str, Tensor]) -> State:
    """Name the parameters as the model itself does, and leave aside what belongs to the thing around it.

    Shapes:
        return: the same tensors, or fewer
    Raises:
        ValueError: there are several models.
    Source: the table at the top of this module.
    Example:
        >>> import torch
        >>> names = ["backbone.module.patch_embed.norm.bias", "backbone.module.norm0.bias", "neck.bias"]
        >>> list(unwrap(dict.fromkeys(names, torch.zeros(2))))
        ['patch_embed.norm.bias', 'norm0.bias']
    """
    state = {INSERTED.sub("", name): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not CONSTANTS.fullmatch(name)}
    paths = {match[1] for name in state if (match := TOKENIZER.match(name))}
    if not paths:  # a part of a model
        paths = {max((match[0] for name in state if (match := KNOWN_PATH.match(name))), key=len, default="")}
    if len(paths) > 1:
        found = ", ".join(map(brief, sorted(paths)[:5]))
        raise ValueError(f"the checkpoint holds {len(paths)} models, under {found}: pass the tensors of one of them")
    path = paths.pop()
    inside = {name.removeprefix(path): tensor for name, tensor in state.items() if name.startswith(path)}
    if set(path.split(".")[:-1]) <= TRANSPARENT:  # then what is outside is no part of anything
        inside |= {name: tensor for name, tensor in state.items() if not name.startswith(path)}
    return inside


def describe_layout(names: Iterable[str]) -> str:
    """Say whose parameter names these are, or whose they resemble most.

    Example:
        >>> describe_layout(["layers.0.blocks.1.norm1.weight", "head.bias"])
        'of DiNAT_s'
        >>> print(describe_layout(["levels.0.part.1.attn.rpb"]))
        unknown, nearest to that of NAT and DiNAT: levels.N.blocks.N.attn.rpb where it has levels.0.part.1.attn.rpb
    """
    plain = {re.sub(r"(?<=\.)\d+(?=\.)", "N", name): name for name in names}
    for layout, typical in LAYOUTS.items():
        if set(typical[1:]) & set(plain):  # their tokenizers have names in common
            return f"of {layout}"
    sample = list(plain)[:200]

    def likeness(layout: str) -> float:
        return sum(max(_ratio(name, other) for other in sample) for name in LAYOUTS[layout]) / len(LAYOUTS[layout])

    if not sample:
        return "empty"
    nearest = max(LAYOUTS, key=likeness)
    pairs = [(name, other) for name in LAYOUTS[nearest] for other in sample if name not in plain]
    name, other = max(pairs, key=lambda pair: _ratio(*pair))
    return f"unknown, nearest to that of {nearest}: {name} where it has {printable(plain[other])}"


def _ratio(first: str, second: str) -> float:
    """How alike two names are, part by part."""
    return difflib.SequenceMatcher(None, first.split("."), second.split(".")).ratio()

"""Two spellings of the same parameters: the original repository's, and Hugging Face's.

    | original                         | Hugging Face                                                    |
    |----------------------------------|-----------------------------------------------------------------|
    | patch_embed.proj / .norm         | embeddings.patch_embeddings.projection / embeddings.norm        |
    | levels.L.blocks.B.norm1 / .norm2 | encoder.levels.L.layers.B.layernorm_before / .layernorm_after   |
    |   .attn.qkv                      |   .attention.self.query / .key / .value, its three equal chunks |
    |   .attn.rpb / .attn.proj         |   .attention.self.rpb / .attention.output.dense                 |
    |   .mlp.fc1 / .fc2                |   .intermediate.dense / .output.dense                           |
    |   .gamma1 and .gamma2            |   .layer_scale_parameters, both stacked                         |
    | levels.L.downsample              | encoder.levels.L.downsample                                     |
    | norm / head / norm0, norm1, ...  | layernorm / classifier / hidden_states_norms.stage1, ...        |

A classifier's Hugging Face file puts ``dinat.`` (``nat.``) before all of these but the head. Nothing is lost either
way: the models here use the original spelling, and a file in one spelling is a file in the other.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dinat_ref.models.wrappers import State, unwrap

IN_LAYER = {  # original -> Hugging Face
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.rpb": "attention.self.rpb",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
OUTSIDE = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "patch_embed.norm": "embeddings.norm",
    "norm_stem": "hidden_states_norms.stem",
    "norm": "layernorm",
    "head": "classifier",
}
PARTS = ("query", "key", "value")
LAYER = re.compile(r"levels\.(\d+)\.blocks\.(\d+)\.(.+)")
HF_LAYER = re.compile(r"encoder\.levels\.(\d+)\.layers\.(\d+)\.(.+)")
STAGE_NORM = re.compile(r"norm(\d+)\.(.+)")
HF_STAGE_NORM = re.compile(r"hidden_states_norms\.stage(\d+)\.(.+)")


def spelling(names: Iterable[str]) -> str:
    """Say in which spelling parameter names are: "original" or "huggingface".

    Raises:
        Nothing: names of neither kind count as original, and then fit no model.
    Source: the table at the top of this module.
    Example:
        >>> spelling(["dinat.embeddings.norm.weight", "classifier.bias"]), spelling(["patch_embed.norm.weight"])
        ('huggingface', 'original')
    """
    pattern = re.compile(r"(dinat\.|nat\.)?(embeddings|encoder\.levels|layernorm|hidden_states_norms)\.")
    return "huggingface" if any(pattern.match(name) for name in names) else "original"


def to_original(state: Mapping[str, Tensor]) -> State:
    """Respell a state in the original way, whatever way it has; what stands around the model goes.

    Shapes:
        return: the same numbers, query, key and value in one tensor, layer scale in two
    Raises:
        ValueError: a query, key or value without the other two; parameters of several models.
    Source: the table at the top of this module.
    Example:
        >>> list(to_original({"dinat.layernorm.weight": torch.ones(3), "classifier.bias": torch.ones(2)}))
        ['norm.weight', 'head.bias']
    """
    state = unwrap(state)
    if spelling(state) == "original":
        return state
    original: State = {}
    projections: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        name = re.sub(r"^(dinat|nat)\.", "", name)
        if not (match := HF_LAYER.fullmatch(name)):
            original[_respell_outside(name)] = tensor
            continue
        prefix, rest = f"levels.{match[1]}.blocks.{match[2]}.", match[3]
        if projection := re.fullmatch(r"attention\.self\.(query|key|value)\.(\w+)", rest):
            projections.setdefault(f"{prefix}attn.qkv.{projection[2]}", {})[projection[1]] = tensor
        elif rest == "layer_scale_parameters":  # [2, dim]
            original[prefix + "gamma1"], original[prefix + "gamma2"] = tensor.unbind(0)
        else:
            original[prefix + _respell(rest, {hf: name for name, hf in IN_LAYER.items()})] = tensor
    for name, parts in projections.items():
        if missing := [part for part in PARTS if part not in parts]:
            raise ValueError(f"{name} needs query, key and value, but the checkpoint has no {' and no '.join(missing)}")
        original[name] = torch.cat([parts[part] for part in PARTS])  # [3 dim, dim] or [3 dim]
    return original


def to_huggingface(state: Mapping[str, Tensor], prefix: str = "dinat.") -> State:
    """Respell a state in the original spelling the way Hugging Face does.

    Shapes:
        return: the same numbers, qkv in three tensors, layer scale in one
    Args:
        prefix: "dinat." for a classifier; "" for a model without head or a backbone.
    Raises:
        Nothing: names that are not in the table stay as they are.
    Source: the table at the top of this module.
    Example:
        >>> list(to_huggingface({"norm.weight": torch.ones(3), "head.bias": torch.ones(2)}))
        ['dinat.layernorm.weight', 'classifier.bias']
    """
    respelt: State = {}
    for name, tensor in state.items():
        if match := LAYER.fullmatch(name):
            layer, rest = f"{prefix}encoder.levels.{match[1]}.layers.{match[2]}.", match[3]
            if rest.startswith("attn.qkv."):
                kind = rest.removeprefix("attn.qkv.")
                for part, chunk in zip(PARTS, tensor.chunk(3), strict=True):
                    respelt[f"{layer}attention.self.{part}.{kind}"] = chunk.contiguous()
            elif rest == "gamma1":
                gammas = [tensor, state[name.replace("gamma1", "gamma2")]]
                respelt[layer + "layer_scale_parameters"] = torch.stack(gammas)  # [2, dim]
            elif rest != "gamma2":
                respelt[layer + _respell(rest, IN_LAYER)] = tensor
        elif name.startswith("head."):
            respelt[_respell(name, OUTSIDE)] = tensor
        elif match := STAGE_NORM.fullmatch(name):
            respelt[f"{prefix}hidden_states_norms.stage{int(match[1]) + 1}.{match[2]}"] = tensor
        else:
            level = re.sub(r"^levels\.", "encoder.levels.", name)
            respelt[prefix + (level if level != name else _respell(name, OUTSIDE))] = tensor
    return respelt


def _respell_outside(name: str) -> str:
    """Respell a Hugging Face name that belongs to no layer."""
    if match := HF_STAGE_NORM.fullmatch(name):
        return f"norm{int(match[1]) - 1}.{match[2]}"
    name = re.sub(r"^encoder\.levels\.", "levels.", name)
    return _respell(name, {hf: original for original, hf in OUTSIDE.items()})


def _respell(name: str, table: Mapping[str, str]) -> str:
    """Replace the beginning of a name by the table; it ends at a dot or at the end of the name."""
    for old, new in table.items():
        if name == old or name.startswith(old + "."):
            return new + name.removeprefix(old)
    return name

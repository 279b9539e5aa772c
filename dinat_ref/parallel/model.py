"""NAT and DiNAT on images whose rows are split over the ranks of a mesh, training included.

Tokens stay on the rank that owns their rows from the first convolution to the last layer. Convolutions and attention
bring halos; LayerNorms and MLPs look at one token each. A rank holds 1 / ranks of all activations, and the halos.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.func import functional_call
from torch.nn.functional import pad

from dinat_ref.models.backbone import DinatBackbone, norm_name
from dinat_ref.models.dinat import DiNAT
from dinat_ref.models.dinat_model import DinatForImageClassification
from dinat_ref.models.layers import DropPath, Layer, WindowAttention
from dinat_ref.models.pyramid import check_image
from dinat_ref.parallel.checked import Split, checked_call
from dinat_ref.parallel.exchange import replicate, sum_over
from dinat_ref.parallel.halo import slide, sliding_of
from dinat_ref.parallel.header import agree
from dinat_ref.parallel.plan import even_split
from dinat_ref.parallel.walk import PerToken, walk


@dataclass(frozen=True)
class Band:
    """A rank's rows of a map, and how many rows each rank has."""

    rows: Tensor  # [B, own rows, Y, C]
    sizes: tuple[int, ...]


def shard_model(model: nn.Module, mesh: DeviceMesh) -> "ShardedModel":
    """Let a NAT or DiNAT run on images whose rows are split over the ranks of a mesh.

    Every rank has all parameters and gets all their gradients, summed over the ranks; wrap the result in
    DistributedDataParallel, with the group of another mesh dimension, to split the batch, too.

    Shapes:
        the result takes [B, num_channels, own rows, W]
        a classifier returns the logits of the whole image [B, num_labels] on every rank
        a backbone returns its maps [B, C, own rows, Y], as many as the model's out_features, a tuple
    Args:
        model: ``DiNAT``, ``DinatForImageClassification`` or ``DinatBackbone``, with the same parameters on all ranks.
        mesh: the ranks, one dimension: ``mesh["rows"]`` of a larger one.
    Raises:
        ValueError: another model, a mesh of several dimensions, attention weights that are dropped, or layers that
            are computed again in the backward pass.
    Example:
        >>> import tempfile
        >>> from dinat_ref.models import create_model
        >>> with tempfile.TemporaryDirectory() as folder:  # a run of one rank; torchrun starts more
        ...     dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=0, world_size=1)
        ...     mesh = dist.init_device_mesh("cpu", (1,))
        ...     model = shard_model(create_model("dinat_mini", num_classes=10), mesh)
        ...     image = torch.randn(1, 3, 64, 96)
        ...     print(model(own_rows(image, mesh)).shape)
        ...     dist.destroy_process_group()
        torch.Size([1, 10])
    """
    if not isinstance(model, DiNAT | DinatForImageClassification | DinatBackbone):
        raise ValueError(f"model must be a NAT or DiNAT, a classifier or a backbone, got {type(model).__name__}")
    if mesh.ndim != 1:
        raise ValueError(f"mesh must have one dimension, that of the rows, got {mesh.ndim}")
    for name, part in model.named_modules():
        if isinstance(part, WindowAttention) and part.attn_drop.p > 0:
            raise ValueError(f"{name}.attn_drop must be 0, for weights are not made one by one, got {part.attn_drop.p}")
        if isinstance(part, Layer) and part.checkpointing is not None:
            raise ValueError(f"{name}.checkpointing must be off: a halo travels once")
    return ShardedModel(model, mesh)


def own_rows(image: Tensor, mesh: DeviceMesh, dim: int = 2) -> Tensor:
    """Take this rank's rows of something that every rank has: equal shares, the last ones smaller.

    Shapes:
        image: [B, C, H, W]
        return: [B, C, own rows, W]
    """
    sizes = even_split(image.shape[dim], mesh.size())
    rank = mesh.get_local_rank()
    return image.narrow(dim, sum(sizes[:rank]), sizes[rank])


class ShardedModel(nn.Module):
    """A model, in ``module``, and the ranks that run it together.

    Shapes:
        as ``shard_model`` says
    """

    def __init__(self, model: DiNAT | DinatForImageClassification | DinatBackbone, mesh: DeviceMesh) -> None:
        """Take the parts."""
        super().__init__()
        self.module: Any = model
        self.split = Split([mesh.get_group(0)], (0,), mesh.device_type)

    def forward(self, image: Tensor | Band) -> Any:
        """Run the model on the own rows of an image: [B, num_channels, own rows, W].

        Every rank computes the same loss from the logits, and it counts once; a backbone's loss is the sum of what
        the ranks compute from their own rows. All ranks call ``backward``.
        """
        if isinstance(image, Band):  # the second time, with parameters whose gradients are summed over the ranks
            return self._run(image)
        sizes = self._compare_notes(image)
        if self.module.training and any(isinstance(part, DropPath) and part.rate > 0 for part in self.modules()):
            self._share_random_numbers()
        learned = {name: tensor for name, tensor in self.named_parameters() if tensor.requires_grad}
        replicas = dict(zip(learned, replicate(list(learned.values()), self.split.groups), strict=True))
        return functional_call(self, replicas, (Band(image.movedim(1, -1), sizes),))

    def _compare_notes(self, image: Tensor) -> tuple[int, ...]:
        """Check that all ranks have rows of one image and do the same with them; the rows of each."""
        error, rows = None, 0
        try:
            check_image(image, self.module.config.num_channels)
            rows = image.shape[2]
        except ValueError as refused:
            error = refused
        learned = [name for name, tensor in self.named_parameters() if tensor.requires_grad]
        facts = {
            "image": error or f"{image.dtype} {(*image.shape[:2], 'rows', image.shape[3])}",
            "model": f"{type(self.module).__name__}({self.module.config})",
            "training": self.module.training,
            "gradients": torch.is_grad_enabled() and (image.requires_grad, learned),
        }
        sizes = agree(self.split.groups, self.split.device_type, facts, [rows], error)
        return tuple(sizes.flatten().tolist())

    def _share_random_numbers(self) -> None:
        """Go on with the random numbers of the first rank: a branch is dropped for a whole image or not at all."""
        source = torch if self.split.device_type == "cpu" else torch.get_device_module(self.split.device_type)
        state = source.get_rng_state().to(self.split.device_type)
        dist.broadcast(state, group=self.split.groups[0], group_src=0)
        source.set_rng_state(state.cpu())

    def _run(self, image: Band) -> Any:
        """Walk through the model."""
        model = self.module
        maps = list(walk(model, image, self))
        if isinstance(model, DinatBackbone):
            chosen = ((index, maps[index].rows) for index in model.out_indices)
            return tuple(model.get_submodule(norm_name(index))(rows).movedim(-1, 1) for index, rows in chosen)
        last = maps[-1]
        tokens = sum(last.sizes) * last.rows.shape[2]
        logits = model.head(sum_over(model.norm(last.rows).sum((1, 2)), self.split.groups) / tokens)
        if logits.requires_grad:  # all ranks compute one loss: each a share of it
            logits.register_hook(lambda gradient: gradient / len(last.sizes))
        return logits

    def slide(self, image: Band, convolution: nn.Conv2d, norm: PerToken | None) -> Band:
        """Apply a convolution to rows that others own in part."""
        sliding, apply, fill = sliding_of(convolution, image.sizes)
        x = slide(apply, image.rows.movedim(-1, 1), sliding, self.split.groups[0], fill).movedim(1, -1)
        return Band(x if norm is None else norm(x), sliding.outputs)

    def layer(self, x: Band, layer: Layer) -> Band:
        """Attend over all rows, and look at each token alone."""
        return Band(layer._add(x.rows, self._attend(layer.attn, layer.norm1(x.rows), x.sizes)), x.sizes)

    def _attend(self, attention: WindowAttention, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Attend: [B, own rows, Y, C] -> [B, own rows, Y, C]; the last rank owns the rows that fill a small map up."""
        columns = x.shape[2]
        filled, _, dilation = attention._fit(torch.empty(1, sum(sizes), columns, 1, device="meta"), None)
        more_rows, more_columns = filled.shape[1] - sum(sizes), filled.shape[2] - columns
        is_last = dist.get_rank(self.split.groups[0]) == len(sizes) - 1
        query, key, value = attention._project(pad(x, (0, 0, 0, more_columns, 0, more_rows * is_last)))
        tensors: dict[str, Any] = {"query": query, "key": key, "value": value, "key_mask": None}
        tensors |= {"scale": attention.scale, "rpb": attention.rpb, "additional_keys": None, "additional_values": None}
        window = (attention.kernel_size, attention.stride, dilation, attention.is_causal)
        where = dict(zip(("kernel_size", "stride", "dilation", "is_causal"), window, strict=True))
        shards = [(*sizes[:-1], sizes[-1] + more_rows)]
        call = checked_call(tensors, self.split, shards, where, {"how": "auto", "return_lse": False})
        (output,) = call.attend(query, key, value, None)
        return attention._finish(output[:, : x.shape[1], :columns])

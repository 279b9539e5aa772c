"""The operator as exported models call it: tables made beforehand, once for all layers of a geometry."""

import copy

import torch
from torch import Tensor, nn

from dinat_ref.export.blocks import Blocks, Geometry, block_attention, cut_into_blocks
from dinat_ref.layers import NeighborhoodAttention
from dinat_ref.neighborhood import Neighborhood

TABLES = ("queries", "keys", "place", "kind", "back")  # the tensors of Blocks


class BlockOperator(nn.Module):
    """``neighborhood_attention`` by ``block_attention``, with tables that it makes when a layout is seen first.

    Called once outside a trace, it has its tables as buffers, and a trace holds no operation that makes them. Where
    lengths are symbols, the operations are in the graph, once for all layers of a geometry.

    Raises:
        NotImplementedError: a key_mask, which no exported model has.
    Example:
        >>> query = torch.randn(1, 6, 7, 2, 4)
        >>> operator = BlockOperator()
        >>> operator(query, query, query, (3, 3), (1, 1), (1, 2), (False, False), None).shape
        torch.Size([1, 6, 7, 2, 4])
        >>> [name for name, _ in operator.named_buffers()]
        ['queries_0', 'keys_0', 'place_0', 'kind_0', 'back_0']
    """

    def __init__(self) -> None:
        """Begin without tables."""
        super().__init__()
        self.made: dict[str, int] = {}  # the number of the tables of each geometry
        self.places: list[int] = []
        self.symbolic = SymbolicTables()

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        is_causal: tuple[bool, ...],
        scale: float | None = None,
        *,
        rpb: Tensor | None = None,
        key_mask: Tensor | None = None,
        impl: str = "auto",
    ) -> Tensor:
        """Attend, as ``neighborhood_attention``: [B, *layout, H, D] -> [B, *layout, H, D]."""
        if key_mask is not None:
            raise NotImplementedError("key_mask must be None in an exported model")
        geometry = Geometry(tuple(query.shape[1:-2]), kernel_size, stride, dilation, is_causal)
        if any(isinstance(length, torch.SymInt) for length in query.shape[1:-2]):
            blocks = self.symbolic.get(geometry, query.device)
        else:
            blocks = self._tables(geometry, query.device)
        return block_attention(query, key, value, blocks, scale, rpb)

    def _tables(self, geometry: Geometry, device: torch.device) -> Blocks:
        """Give the tables of a geometry, as buffers of this module."""
        if str(geometry) not in self.made:
            Neighborhood(*geometry)  # checks them
            number = self.made[str(geometry)] = len(self.made)
            blocks = cut_into_blocks(geometry, device)
            self.places.append(blocks.places)
            for name in TABLES:
                self.register_buffer(f"{name}_{number}", getattr(blocks, name), persistent=False)
        number = self.made[str(geometry)]
        tables = {name: getattr(self, f"{name}_{number}") for name in TABLES}
        return Blocks(**tables, places=self.places[number])


class SymbolicTables:
    """The tables of geometries with symbols, kept for as long as one trace lasts. No module: a trace may not see it."""

    def __init__(self) -> None:
        """Begin without tables."""
        self.made: dict[str, Blocks] = {}

    def get(self, geometry: Geometry, device: torch.device) -> Blocks:
        """Make the tables of a geometry, or give those that the trace made before."""
        if str(geometry) not in self.made:
            self.made[str(geometry)] = cut_into_blocks(geometry, device, share=False)
        return self.made[str(geometry)]


def with_block_operator(model: nn.Module) -> tuple[nn.Module, BlockOperator]:
    """Copy a model, and let all its layers attend by one ``BlockOperator``.

    Example:
        >>> from dinat_ref.layers import NeighborhoodAttention1D
        >>> model, operator = with_block_operator(NeighborhoodAttention1D(8, 2, kernel_size=3))
        >>> model.operator is operator
        True
    """
    model, operator = copy.deepcopy(model), BlockOperator()
    for layer in model.modules():
        if isinstance(layer, NeighborhoodAttention):
            layer.operator = operator
    return model, operator

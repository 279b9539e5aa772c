"""Attention of some tokens alone: a part of a layout asks, with the keys that its windows reach.

For layouts larger than a process holds (each asks for its own tokens), for sequences that grow (the last token asks,
with the keys and values kept from before), and to look at one query::

    layout of 9, kernel_size 3      query_start 4    . . . . Q Q . . .
                                    key_start   3    . . . # # # # . .      the windows of token 4 and 5: 3 .. 6
"""

from collections.abc import Sequence

import torch  # noqa: F401  # for the examples
from torch import Tensor

from dinat_ref.attention.boxes import check_boxes
from dinat_ref.attention.functional import without_autocast
from dinat_ref.attention.operands import Operands, check_layout, prepare
from dinat_ref.attention.tiled import tiled_attention
from dinat_ref.neighborhood import Neighborhood


def neighborhood_attention_part(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | Tensor | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    *,
    layout: Sequence[int],
    query_start: int | Sequence[int],
    key_start: int | Sequence[int],
    rpb: Tensor | None = None,
    key_mask: Tensor | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attend from a box of a layout's tokens, to the windows that these tokens have in the whole layout.

    Equal to the same tokens' part of ``neighborhood_attention`` on the whole layout, and computed like it, by tiles;
    no other query is computed. ``Neighborhood.reach`` says which keys a part needs.

    Shapes:
        query:  [B, *part, H, D]
        key:    [B, *held, Hkv, D], held = the box of the keys at hand
        value:  [B, *held, Hkv, Dv]
        key_mask: bool [B, *held]
        return: [B, *part, H, Dv], with return_lse a pair of it and the lse [B, *part, H]
    Args:
        layout: the number of tokens on each axis of the whole.
        query_start: the position of the first query on each axis, one number or one per axis.
        key_start: the position of the first key on each axis.
        others: as ``neighborhood_attention``. A causal window does not depend on what follows, so that a sequence
            that grows may name the length it will have at most.
    Raises:
        TypeError, ValueError: as ``neighborhood_attention``; a box that is not in the layout, or a window that is not
            among the keys.
    Cost: as "tiled", for the queries given.
    Source: Hassani & Shi, arXiv:2209.15001, eq. 1-3.
    Example:
        >>> x = torch.arange(9.0).reshape(1, 9, 1, 1)
        >>> at_hand = x[:, 3:7]
        >>> box = {"layout": (9,), "query_start": 4, "key_start": 3}
        >>> neighborhood_attention_part(torch.zeros_like(x[:, 4:6]), at_hand, at_hand, kernel_size=3, **box).flatten()
        tensor([4., 5.])
        >>> Neighborhood((9,), kernel_size=3).reach([range(4, 6)])
        (range(3, 7),)

        A causal sequence that grows: the newest token asks alone, with the keys and values kept from before.

        >>> newest, cache = x[:, 6:7], x[:, 4:7]
        >>> box = {"layout": (9,), "query_start": 6, "key_start": 4}
        >>> neighborhood_attention_part(0 * newest, cache, cache, kernel_size=3, is_causal=True, **box).flatten()
        tensor([5.])
    """
    neighborhood = Neighborhood(tuple(layout), kernel_size, stride, dilation, is_causal)
    query_layout, key_layout = check_layout(query, neighborhood.ndim), check_layout(key, neighborhood.ndim, "key")
    boxes = check_boxes(neighborhood, query_start, query_layout, key_start, key_layout)
    operands = prepare(query, key, value, neighborhood, scale, rpb, additional_keys, additional_values, key_mask, boxes)
    with without_autocast(query):
        output, lse = tiled_attention(operands, return_lse) if all(boxes.queries) else _nothing(operands, return_lse)
    output = output.to(operands.dtype)
    return output if lse is None else (output, lse)


def _nothing(operands: Operands, return_lse: bool) -> tuple[Tensor, Tensor | None]:
    """The output and lse of no queries, which still depend on all operands: whoever made them gets zeros back."""
    others = operands.key, operands.value, operands.rpb, operands.additional_keys, operands.additional_values
    lse = operands.query.sum(-1) + sum(x.sum() for x in others if x is not None)  # [B, *part, H], empty
    output = lse[..., None].expand(*lse.shape, operands.value.shape[-1])
    return output, lse if return_lse else None

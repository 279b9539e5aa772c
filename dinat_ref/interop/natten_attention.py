"""NATTEN's ``attention``: plain attention of all keys, of one sequence or of many packed one behind the other.

Packed sequences share the axis of tokens: with cumulative lengths [0, 3, 8] the tokens 0 to 2 are one sequence and
3 to 7 another, and no token attends another sequence.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dinat_ref.attention import neighborhood_attention


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    scale: float | None = None,
    seqlens_Q: Tensor | None = None,  # noqa: N803
    seqlens_KV: Tensor | None = None,  # noqa: N803
    cumulative_seqlen_Q: Tensor | None = None,  # noqa: N803
    cumulative_seqlen_KV: Tensor | None = None,  # noqa: N803
    max_seqlen_Q: int | None = None,  # noqa: N803
    max_seqlen_KV: int | None = None,  # noqa: N803
    backend: str | None = None,
    q_tile_size: int | None = None,
    kv_tile_size: int | None = None,
    backward_q_tile_size: int | None = None,
    backward_kv_tile_size: int | None = None,
    backward_kv_splits: int | None = None,
    backward_use_pt_reduction: bool = False,
    run_persistent_kernel: bool = True,
    kernel_schedule: Any = None,
    torch_compile: bool = False,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attend all keys, called as NATTEN 0.21's attention; query and key may have different lengths.

    Shapes:
        query: [B, N, H, D]; key: [B, M, Hkv, D]; value: [B, M, Hkv, Dv]; packed sequences: B = 1
        seqlens_Q, seqlens_KV: [sequences]; cumulative_seqlen_Q, cumulative_seqlen_KV: [sequences + 1], integers
        return: [B, N, H, Dv], with return_lse a pair of it and the lse [B, N, H]
    Args:
        is_causal: attend nothing behind the query; needs N = M, in every sequence.
        scale: None and, as in NATTEN, 0 mean D ** -0.5.
        seqlens_Q, seqlens_KV: lengths of packed sequences, or else the next four.
        cumulative_seqlen_Q, cumulative_seqlen_KV: their sums so far, from 0 on.
        max_seqlen_Q, max_seqlen_KV: the longest sequence; checked.
        Others tune NATTEN's kernels, and are ignored.
    Raises:
        ValueError: causal attention between different lengths; lengths of sequences that do not fit.
    Cost: memory of N M scores, for packed sequences of one sequence at a time.
    Source: NATTEN 0.21.7; Vaswani et al., arXiv:1706.03762, eq. 1.
    Example:
        >>> attention(torch.randn(1, 5, 4, 8), torch.randn(1, 9, 2, 8), torch.randn(1, 9, 2, 6)).shape
        torch.Size([1, 5, 4, 6])
        >>> x, lengths = torch.arange(5.).reshape(1, 5, 1, 1), torch.tensor([2, 3])
        >>> attention(torch.zeros_like(x), x, x, seqlens_Q=lengths, seqlens_KV=lengths).flatten()
        tensor([0.5000, 0.5000, 3.0000, 3.0000, 3.0000])
    """
    ends = (cumulative_seqlen_Q, cumulative_seqlen_KV)
    longest = (max_seqlen_Q, max_seqlen_KV)
    if seqlens_Q is not None or seqlens_KV is not None:
        *both, longest_query, longest_key = generate_varlen_parameters(query, key, value, seqlens_Q, seqlens_KV)
        ends, longest = (both[0], both[1]), (longest_query, longest_key)
    scale = scale or query.shape[-1] ** -0.5
    if all(end is None for end in ends) and not any(longest):
        output, lse = _attend(query, key, value, is_causal, scale)
    else:
        own = [_check_ends(*row) for row in zip(("Q", "KV"), (query, key), ends, longest, strict=True)]
        if len(own[0]) != len(own[1]):
            lengths = f"{len(own[0])} and {len(own[1])}"
            raise ValueError(f"cumulative_seqlen_Q and cumulative_seqlen_KV must be equally long, got {lengths}")
        output, lse = _attend_packed(query, key, value, own, is_causal, scale)
    return (output, lse) if return_lse else output


def _attend(query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Attend all keys of one sequence."""
    if is_causal and query.shape[1] != key.shape[1]:
        raise ValueError(f"causal attention needs as many queries as keys, got {query.shape[1]} and {key.shape[1]}")
    if is_causal and query.shape[1]:  # neighborhood attention with a window as long as the axis
        pair = neighborhood_attention(query, key, value, query.shape[1], is_causal=True, scale=scale, return_lse=True)
        assert isinstance(pair, tuple)
        return pair
    dtype = torch.promote_types(query.dtype, torch.float32)
    group = query.shape[2] // key.shape[2]
    keys, values = (tensor.to(dtype).repeat_interleave(group, dim=2) for tensor in (key, value))  # [B, M, H, D]
    scores = scale * torch.einsum("bnhd,bmhd->bnhm", query.to(dtype), keys)
    output = torch.einsum("bnhm,bmhd->bnhd", scores.softmax(-1), values).to(query.dtype)
    return output, scores.logsumexp(-1)


def _attend_packed(
    query: Tensor, key: Tensor, value: Tensor, ends: Sequence[list[int]], is_causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend each sequence by itself; a query without keys, or behind the last sequence, gets 0 and an lse of -inf."""
    outputs, lses = [], []
    for queries, keys in zip(pairwise(ends[0]), pairwise(ends[1]), strict=True):
        own = (slice(None), slice(*queries)), (slice(None), slice(*keys))
        output, lse = _attend(query[own[0]], key[own[1]], value[own[1]], is_causal, scale)
        outputs.append(output)
        lses.append(lse)
    rest = query.shape[1] - ends[0][-1]
    outputs.append(query.new_zeros(1, rest, query.shape[2], value.shape[-1]))
    lses.append(query.new_full((1, rest, query.shape[2]), float("-inf"), dtype=lses[0].dtype))
    return torch.cat(outputs, dim=1), torch.cat(lses, dim=1)


def _check_ends(name: str, tokens: Tensor, ends: Tensor | None, longest: int | None) -> list[int]:
    """Read cumulative lengths, and check them against the tokens."""
    if ends is None or longest is None:
        raise ValueError(f"packed sequences need cumulative_seqlen_{name} and max_seqlen_{name}, got {ends}, {longest}")
    if tokens.shape[0] != 1:
        raise ValueError(f"packed sequences need a batch of 1, got {tokens.shape[0]}")
    if ends.ndim != 1 or ends.shape[0] < 2 or ends.is_floating_point():
        raise ValueError(
            f"cumulative_seqlen_{name} must be integers [sequences + 1], got {ends.dtype} {tuple(ends.shape)}"
        )
    numbers = [int(end) for end in ends.tolist()]
    lengths = [stop - start for start, stop in pairwise(numbers)]
    if numbers[0] != 0 or min(lengths) < 0 or numbers[-1] > tokens.shape[1]:
        raise ValueError(f"cumulative_seqlen_{name} must rise from 0 to at most {tokens.shape[1]}, got {numbers}")
    if max(lengths) > longest:
        raise ValueError(f"max_seqlen_{name} must be at least the longest sequence, {max(lengths)}, got {longest}")
    return numbers


def generate_varlen_parameters(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seqlens_Q: Tensor | None = None,  # noqa: N803
    seqlens_KV: Tensor | None = None,  # noqa: N803
) -> tuple[Tensor | None, Tensor | None, int, int]:
    """Make what ``attention`` takes of packed sequences from their lengths.

    Shapes:
        query: [1, N, H, D]; key, value: [1, M, Hkv, D]; seqlens_Q, seqlens_KV: [sequences]
        return: cumulative lengths of queries and of keys, [sequences + 1] each, and the longest of each
    Raises:
        ValueError: one of the two is missing, or they list different numbers of sequences.
    Source: NATTEN 0.21.7, natten.utils.varlen.
    Example:
        >>> x = torch.zeros(1, 5, 1, 1)
        >>> generate_varlen_parameters(x, x, x, torch.tensor([2, 3]), torch.tensor([2, 3]))[0]
        tensor([0, 2, 5], dtype=torch.int32)
    """
    if seqlens_Q is None and seqlens_KV is None:
        return None, None, 0, 0
    if seqlens_Q is None or seqlens_KV is None:
        raise ValueError("packed sequences need both seqlens_Q and seqlens_KV")
    for name, lengths in (("Q", seqlens_Q), ("KV", seqlens_KV)):
        if lengths.ndim != 1 or lengths.shape[0] < 1 or lengths.is_floating_point():
            raise ValueError(f"seqlens_{name} must be integers [sequences], got {lengths.dtype} {tuple(lengths.shape)}")
    if seqlens_Q.shape != seqlens_KV.shape:
        raise ValueError(
            f"seqlens_Q and seqlens_KV must list as many sequences, got {len(seqlens_Q)} and {len(seqlens_KV)}"
        )
    ends = [torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int() for lengths in (seqlens_Q, seqlens_KV)]
    return ends[0], ends[1], int(seqlens_Q.max()), int(seqlens_KV.max())


def additional_sdpa(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, attn_kwargs: dict[str, Any] | None = None
) -> tuple[Tensor, Tensor]:
    """Attend additional keys from every token, as NATTEN 0.17's natten.ops does.

    Shapes:
        query: [B, *layout, H, D]; key, value: [B, M, H, D]
        return: output [B, N, H, D] and lse [B, H, N]
    Args:
        attn_kwargs: ignored.
    Source: NATTEN 0.17.5.
    Example:
        >>> output, lse = additional_sdpa(torch.randn(1, 4, 5, 2, 8), torch.randn(1, 3, 2, 8), torch.randn(1, 3, 2, 8))
        >>> output.shape, lse.shape
        (torch.Size([1, 20, 2, 8]), torch.Size([1, 2, 20]))
    """
    output, lse = _attend(query.flatten(1, -3), key, value, False, scale or query.shape[-1] ** -0.5)
    return output, lse.transpose(1, 2)

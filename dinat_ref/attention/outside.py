"""What lies outside a window must not matter, whatever its bits.

A product of matrices meets all pairs of queries and keys, those outside the windows too. Their scores are thrown away
and their weights are zero, but zero times infinity is not zero::

    scores  + mask      nan + -inf = nan          a key of nan outside the window, or a score that overflows
    weights @ values    0 * nan = nan             a value of nan or infinity outside the window

``pair_products`` and ``mix`` are the two products of attention, and those of its backward pass, without that leak: what
is not finite spoils the queries that attend it, and nobody else. They cost about twice as much. Plain products are as
good where everything is finite, which ``known_finite`` and ``known_harmless`` find out where one may look.
"""

import math

import torch
from torch import Tensor

from dinat_ref.attention.operands import inside_transform


def pair_products(rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply each row with each column vector, so that no gradient passes a pair whose product is not finite.

    Shapes:
        rows: [..., T, D]
        columns: [..., S, D]
        return: [..., T, S]
    Example:
        >>> rows = torch.ones(1, 2, requires_grad=True)
        >>> products = pair_products(rows, torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]))
        >>> products.detach(), torch.autograd.grad(products[0, 0], rows)[0]
        (tensor([[3., nan]]), tensor([[1., 2.]]))
    """
    plain = rows.detach() @ columns.detach().mT
    differentiable = torch.is_grad_enabled() and (rows.requires_grad or columns.requires_grad)
    if not differentiable and not inside_transform():
        return plain
    return torch.where(plain.isfinite(), finite_part(rows) @ finite_part(columns).mT, plain)


def mix(weights: Tensor, values: Tensor, allowed: Tensor | None) -> Tensor:
    """Sum values with weights; a value that is not finite spoils the sums that are allowed to contain it.

    Shapes:
        weights: [..., T, S], zero where not allowed
        values: [..., S, D]
        allowed: bool [..., T, S], or None where all pairs are
        return: [..., T, D]
    Example:
        >>> weights, values = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[2.0], [4.0], [torch.inf]])
        >>> weights @ values, mix(weights, values, allowed=torch.tensor([[True, True, False]]))
        (tensor([[nan]]), tensor([[3.]]))
    """
    if allowed is None:
        return weights @ values
    meets = allowed.to(values.dtype) @ (~values.isfinite()).to(values.dtype)  # how many of them: [..., T, D]
    mixed = weights @ finite_part(values)
    return mixed.masked_fill((meets > 0) | mixed.isnan(), torch.nan)  # and a gradient ends where a sum is spoilt


def finite_part(tensor: Tensor) -> Tensor:
    """Put zeros in the place of what is not finite.

    Shapes:
        return: as tensor
    Example:
        >>> finite_part(torch.tensor([1.0, torch.nan, -torch.inf]))
        tensor([1., 0., 0.])
    """
    return torch.where(tensor.isfinite(), tensor, 0.0)


def may_look(tensor: Tensor) -> bool:
    """Say whether Python may branch on the numbers of a tensor: on a CPU, outside of tracing and transforms.

    An accelerator would have to finish all its work before it could answer.

    Example:
        >>> may_look(torch.zeros(2)), may_look(torch.zeros(2, device="meta"))
        (True, False)
    """
    return tensor.device.type == "cpu" and not inside_transform()


def known_finite(*tensors: Tensor | None) -> bool:
    """Say whether all numbers are known to be finite; where one may not look (``may_look``), nothing is known.

    Shapes:
        tensors: any
    Example:
        >>> known_finite(torch.ones(2), None), known_finite(torch.tensor([1.0, torch.nan]))
        (True, False)
    """
    given = [tensor for tensor in tensors if tensor is not None]
    return may_look(given[0]) and all(math.isfinite(_square_of_norm(x)) for x in given)  # all are on one device


def known_harmless(query: Tensor, key: Tensor, value: Tensor | None, bias: Tensor | None, scale: float = 1.0) -> bool:
    """Say whether all scores and values are known to be finite, those outside the windows included.

    No score exceeds the product of the norms of all queries and of all keys (Cauchy and Schwarz), scaled or not.

    Shapes:
        query, key, value, bias: any
    Example:
        >>> x = torch.ones(2)
        >>> known_harmless(x, x, x, None), known_harmless(1e20 * x, 1e20 * x, x, None)
        (True, False)
    """
    if not may_look(query):
        return False
    norms = [0.0 if x is None else math.sqrt(_square_of_norm(x)) for x in (query, key, value, bias)]
    return max(1.0, abs(scale)) * norms[0] * norms[1] + norms[3] < torch.finfo(query.dtype).max and math.isfinite(
        norms[2]
    )


def _square_of_norm(tensor: Tensor) -> float:
    """The sum of all squares, which is not finite if a number is not; by the fastest of PyTorch's sums."""
    if tensor.dtype == torch.bfloat16:
        return float(torch.linalg.vector_norm(tensor.detach())) ** 2
    flat = tensor.detach()
    if not flat.is_contiguous():  # the order in which it lies in memory needs no copy
        flat = flat.permute(sorted(range(flat.ndim), key=flat.stride, reverse=True))
    flat = flat.reshape(-1)
    return float(torch.dot(flat, flat))

"""Numbers at their limits: what is not finite outside a window, scores as large as there are, memory around tensors."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dinat_ref.testing.checks.gradients import cotangent, leaves
from dinat_ref.testing.checks.plain import expected_mask, plain_attention
from dinat_ref.testing.checks.sampling import Wish
from dinat_ref.testing.checks.yardstick import Yardstick, demand, run
from dinat_ref.testing.kernel import Kernel, Moot, Wrong
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports

FAR = Wish(extra_keys=False, rpb=False, min_slack=2, max_kernel=3)  # so that something lies outside
POISONS = (torch.nan, torch.inf, -torch.inf, 3e38)


def poisoned(inputs: Inputs, token: int, poison: float, names: tuple[str, ...]) -> Inputs:
    """The inputs with one token of some tensors spoilt; in half precision the largest number is infinity."""
    spoilt = {name: getattr(inputs, name).clone() for name in names}
    for tensor in spoilt.values():
        tensor.flatten(1, -3)[:, token] = poison
    return inputs.but(**spoilt)


def alike(what: str, got: Tensor, wanted: Tensor, budget: float) -> float:
    """Demand finite numbers first, since a NaN says more than a difference."""
    bad = int((~torch.isfinite(got)).sum())
    if bad:
        raise Wrong(f"{what} is NaN or infinite in {bad} of {got.numel()} numbers")
    return demand(what, got, wanted, budget)


@check("N26-nan-outside", FAR, needs=("nan_outside",), effort=0.5)
def nan_outside(kernel: Kernel, problem: Problem) -> float:
    """NaN, infinity or 3e38 in a key or value does not reach a query that does not see it, forward or backward."""
    mask = expected_mask(problem.neighborhood)
    token = problem.seed % len(mask)
    blind = (~mask[:, token]).nonzero().flatten().to(kernel.device)
    if not len(blind):
        raise Moot("every query sees the token")
    clean = problem.inputs(kernel.device)
    ruler, worst = Yardstick(problem, clean), 0.0
    before, wanted = blind_gradients(kernel, problem, clean, blind)
    for poison in POISONS:
        for names in (("key",), ("value",)):
            where = f"{poison} in the {names[0]} of token {token}, the"
            inputs = poisoned(clean, token, poison, names)
            after, found = blind_gradients(kernel, problem, inputs, blind)
            budget = 2 * ruler.output_budget
            worst = max(worst, alike(f"with {where} output of queries that do not see it", after, before, budget))
            for name in wanted:
                budget = 64 * torch.finfo(problem.dtype).eps * (1.0 + float(wanted[name].abs().amax()))
                what = f"with {where} gradient to the {name} of queries that do not see it"
                worst = max(worst, alike(what, found[name], wanted[name], budget))
    return worst


def blind_gradients(
    kernel: Kernel, problem: Problem, inputs: Inputs, queries: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output of some queries, and its gradients to tokens that no other query touches: 0 * NaN is NaN elsewhere."""
    inputs = leaves(inputs) if kernel.supports.backward else inputs
    with torch.set_grad_enabled(kernel.supports.backward):
        output, _ = kernel.attend(problem, inputs)
    output = output.flatten(1, -3)[:, queries]
    if not output.requires_grad:
        return output, {}
    mask = expected_mask(problem.neighborhood).to(queries.device)
    others = torch.ones(len(mask), dtype=torch.bool, device=queries.device)
    others[queries] = False
    untouched = (~mask[others].any(0)).nonzero().flatten()
    tensors = [inputs.query, inputs.key, inputs.value]
    found = torch.autograd.grad(output, tensors, cotangent(output, problem.seed), allow_unused=True)
    places = {"query": queries, "key": untouched, "value": untouched}
    gradients = {
        name: (torch.zeros_like(tensor) if grad is None else grad).flatten(1, -3)[:, places[name]]
        for name, tensor, grad in zip(places, tensors, found, strict=True)
    }
    return output.detach(), {name: grad for name, grad in gradients.items() if grad.numel()}


KINDS = ("large", "equal", "low", "tiny", "apart", "of a large query and a small key")


def score_kinds(supports: Supports, budget: str) -> Iterator[Problem]:
    """For each number of axes, dtype and kind of scores a problem; the seed says which kind."""
    for ndim in supports.ndim:
        for dtype in supports.dtypes:
            for seed in range(len(KINDS)):
                layout = tuple(6 + axis for axis in range(ndim))
                problem = Problem(layout=layout, kernel_size=3, head_dim=1, dtype_name=dtype, seed=seed)
                head_dim = 1 if supports.head_dims is None else min(supports.head_dims)
                problem = problem.but(head_dim=head_dim, head_dim_v=head_dim, scale=1.0 if supports.scale else None)
                if supports.takes(problem):
                    yield problem


def with_scores(problem: Problem, inputs: Inputs) -> Inputs:
    """Inputs whose scores have no rounding: powers of two times small whole numbers, in one number of the head."""
    top = 2.0 ** {"f16": 14, "bf16": 62, "f32": 62, "f64": 510}[problem.dtype_name]  # top * top is near the largest
    if problem.dtype_name == "f16":
        top = 2.0**15
    whole = inputs.key[..., :1].mul(2).round().clamp(-3, 3)
    query, key = torch.zeros_like(inputs.query), torch.zeros_like(inputs.key)
    first, other = {
        "large": (torch.full_like(whole, top), whole.sign() * top),
        "equal": (torch.full_like(whole, top), torch.full_like(whole, top)),
        "low": (torch.full_like(whole, top), torch.full_like(whole, -top)),
        "tiny": (torch.full_like(whole, torch.finfo(problem.dtype).tiny), whole * 2.0**-6),
        "apart": (torch.full_like(whole, top), torch.where(whole > 0, top, whole * 2.0)),
        "of a large query and a small key": (torch.full_like(whole, 2.0**14), whole * 2.0**-14),
    }[KINDS[problem.seed]]
    query[..., :1], key[..., :1] = first[..., : query.shape[-2], :], other
    return inputs.but(query=query, key=key)


@check("N27-extreme-scores", enumerate=score_kinds)
def extreme_scores(kernel: Kernel, problem: Problem) -> float:
    """Scores as large as the dtype has, all equal, all low, subnormal: the softmax is exact to rounding."""
    inputs = with_scores(problem, problem.inputs(kernel.device))
    kind = KINDS[problem.seed]
    ruler = Yardstick(problem, inputs)
    values = float(inputs.value.abs().amax())
    budget = 8 * torch.finfo(problem.dtype).eps * values
    worst = alike(f"of scores that are {kind}, the output", run(kernel, problem, inputs), ruler.output, budget)
    if not kernel.supports.backward:
        return worst
    inputs = leaves(inputs)
    output, _ = kernel.attend(problem, inputs)
    found = torch.autograd.grad(output.sum(), list(inputs.named().values()), allow_unused=True)
    gradient = torch.zeros_like(inputs.value) if found[2] is None else found[2]
    exact = leaves(inputs.to(torch.float64).map(Tensor.cpu))
    (wanted,) = torch.autograd.grad(plain_attention(problem, exact)[0].sum(), [exact.value])
    budget = 16 * torch.finfo(problem.dtype).eps * float(wanted.abs().amax())
    return max(worst, alike(f"of scores that are {kind}, the gradient to the value", gradient, wanted, budget))

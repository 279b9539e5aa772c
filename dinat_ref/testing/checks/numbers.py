"""N: the numbers, against a float64 oracle and by the laws of the operator."""

import itertools
from collections.abc import Iterator

import torch

from dinat_ref.testing.checks.enumeration import window_problems
from dinat_ref.testing.checks.plain import bias_positions, expected_mask
from dinat_ref.testing.checks.sampling import Wish
from dinat_ref.testing.checks.windows import all_windows
from dinat_ref.testing.checks.yardstick import Yardstick, demand, run
from dinat_ref.testing.kernel import Kernel, Moot, Wrong
from dinat_ref.testing.problem import Inputs, Problem
from dinat_ref.testing.registry import check
from dinat_ref.testing.supports import Supports

PLAIN = Wish(extra_keys=False, rpb=False)


def against_oracle(kernel: Kernel, problem: Problem) -> float:
    """Compare the output with the oracle."""
    inputs = problem.inputs(kernel.device)
    return Yardstick(problem, inputs).output_is(run(kernel, problem, inputs))


@check("N01-float32", Wish(dtype="f32", rpb=False), effort=2)
def float32(kernel: Kernel, problem: Problem) -> float:
    """Float32: at most twice the error of plain PyTorch."""
    return against_oracle(kernel, problem)


@check("N02-float64", Wish(dtype="f64", rpb=False))
def float64(kernel: Kernel, problem: Problem) -> float:
    """Float64: at most twice the error of plain PyTorch, so no step in float32."""
    return against_oracle(kernel, problem)


@check("N03-bfloat16", Wish(dtype="bf16", rpb=False))
def bfloat16(kernel: Kernel, problem: Problem) -> float:
    """Bfloat16: at most twice the error of plain PyTorch."""
    return against_oracle(kernel, problem)


@check("N04-float16", Wish(dtype="f16", rpb=False))
def float16(kernel: Kernel, problem: Problem) -> float:
    """Float16: at most twice the error of plain PyTorch."""
    return against_oracle(kernel, problem)


def long_windows(supports: Supports, budget: str) -> Iterator[Problem]:
    """Windows of more than two hundred keys, in every dtype."""
    sizes = {1: ((300,), (255,)), 2: ((18, 17), (15, 15)), 3: ((7, 8, 9), (7, 7, 5))}
    for ndim, dtype in itertools.product(supports.ndim, supports.dtypes):
        if ndim in sizes:
            head_dim = 4 if supports.head_dims is None else min(supports.head_dims)
            problem = Problem(layout=sizes[ndim][0], kernel_size=sizes[ndim][1], head_dim=head_dim, dtype_name=dtype)
            if supports.takes(problem):
                yield problem


@check("N05-long-windows", enumerate=long_windows)
def long_window(kernel: Kernel, problem: Problem) -> float:
    """Windows of hundreds of keys, whose sums need more than half precision."""
    inputs = problem.inputs(kernel.device)
    inputs.value = inputs.value.abs()  # one sign, so that the partial sums grow
    return Yardstick(problem, inputs).output_is(run(kernel, problem, inputs))


@check("N10-constant-value", Wish(rpb=False))
def constant_value(kernel: Kernel, problem: Problem) -> float:
    """A constant value comes back: the weights sum to one."""
    inputs = problem.inputs(kernel.device)
    inputs.value = torch.full_like(inputs.value, 3.0)
    if inputs.additional_values is not None:
        inputs.additional_values = torch.full_like(inputs.additional_values, 3.0)
    return Yardstick(problem, inputs).output_is(run(kernel, problem, inputs), "the output of a constant value")


@check("N11-linear-value", PLAIN)
def linear_value(kernel: Kernel, problem: Problem) -> float:
    """The output is linear in the values."""
    inputs = problem.inputs(kernel.device)
    sums = inputs.but(value=inputs.value + inputs.value.flip(0, 1))
    parts = run(kernel, problem, inputs) + run(kernel, problem, inputs.but(value=inputs.value.flip(0, 1)))
    return Yardstick(problem, sums).agree("out(v + w) beside out(v) + out(w)", run(kernel, problem, sums), parts)


@check("N12-zero-query", enumerate=all_windows)
def zero_query(kernel: Kernel, problem: Problem) -> float:
    """Zero queries give the plain mean over the window."""
    mask = expected_mask(problem.neighborhood)
    wanted = mask / mask.sum(1, keepdim=True)
    budget = 4 * torch.finfo(problem.dtype).eps
    return demand("the weight of a key under a zero query", kernel.weights(problem), wanted, budget)


@check("N13-key-shift", PLAIN, needs=())
def key_shift(kernel: Kernel, problem: Problem) -> float:
    """A vector added to all keys changes no output."""
    inputs = problem.inputs(kernel.device)
    shift = torch.linspace(-1, 1, problem.head_dim, dtype=inputs.key.dtype, device=inputs.key.device)
    shifted = inputs.but(key=inputs.key + shift)
    worst = Yardstick(problem, shifted).output_is(run(kernel, problem, shifted), "the output of shifted keys")
    return max(worst, Yardstick(problem, inputs).output_is(run(kernel, problem, inputs)))


@check("N14-outside-key", Wish(extra_keys=False, rpb=False, min_slack=2, max_kernel=3))
def outside_key(kernel: Kernel, problem: Problem) -> float:
    """A key and value outside a window do not change its output, whatever they are."""
    mask = expected_mask(problem.neighborhood)
    token = problem.seed % len(mask)
    outside = (~mask[:, token]).nonzero().flatten()
    if not len(outside):
        raise Moot("the law does not apply")
    inputs = problem.inputs(kernel.device)
    key, value = inputs.key.clone(), inputs.value.clone()
    key.flatten(1, -3)[:, token] = 30.0
    value.flatten(1, -3)[:, token] = 1000.0
    before = run(kernel, problem, inputs).flatten(1, -3)[:, outside]
    after = run(kernel, problem, inputs.but(key=key, value=value)).flatten(1, -3)[:, outside]
    return Yardstick(problem, inputs).agree(f"with token {token} changed, the output outside its reach", after, before)


@check("N15-not-constant", Wish(extra_keys=False, rpb=False, min_slack=3, max_kernel=3))
def not_constant(kernel: Kernel, problem: Problem) -> None:
    """The output is neither zero nor constant: it varies as much as it must."""
    inputs = problem.inputs(kernel.device)
    exact = Yardstick(problem, inputs).output
    got = run(kernel, problem, inputs).double().cpu()
    if got.flatten(1, -3).shape[1] < 2:
        raise Moot("a single token does not vary")
    varies, must = got.flatten(1, -3).std(1).mean().item(), exact.flatten(1, -3).std(1).mean().item()
    if not varies > 0.5 * must:
        raise Wrong(f"over the tokens the output varies by {varies:.3g}, and must by {must:.3g}")


@check("N16-lse", Wish(rpb=False), needs=("lse",), effort=2)
def lse(kernel: Kernel, problem: Problem) -> float:
    """The lse is the natural logarithm of the sum over all keys, in float32 at least."""
    inputs = problem.inputs(kernel.device)
    _, got = kernel.attend(problem, inputs, return_lse=True)
    assert got is not None
    if got.dtype not in (torch.float32, torch.float64):
        raise Wrong(f"the lse must be float32 at least, got {got.dtype}")
    return Yardstick(problem, inputs).lse_is(got)


@check("N17-lse-same-output", Wish(rpb=False), needs=("lse",))
def lse_same_output(kernel: Kernel, problem: Problem) -> float:
    """Asking for the lse does not change the output."""
    inputs = problem.inputs(kernel.device)
    with torch.no_grad():
        output, _ = kernel.attend(problem, inputs, return_lse=True)
    return Yardstick(problem, inputs).agree("with return_lse the output", output, run(kernel, problem, inputs))


@check("N18-scale", Wish(scale=True, rpb=False))
def scale(kernel: Kernel, problem: Problem) -> float:
    """A given scale takes the place of head_dim ** -0.5."""
    return against_oracle(kernel, problem)


@check("N19-scale-zero", Wish(given=(("scale", 0.0),), rpb=False), needs=("scale",))
def scale_zero(kernel: Kernel, problem: Problem) -> float:
    """A scale of 0.0 is zero and gives the mean, it does not stand for None."""
    return against_oracle(kernel, problem)


def bias_windows(supports: Supports, budget: str) -> Iterator[Problem]:
    """The window enumeration, up to length 6 in the quick budget, with a bias table."""
    for problem in window_problems(None, supports, budget):
        if budget != "quick" or max(problem.layout) <= (6 if problem.ndim == 1 else 5):
            yield problem.but(rpb=True)


@check("N20-rpb-offsets", enumerate=bias_windows, needs=("rpb",))
def rpb_offsets(kernel: Kernel, problem: Problem) -> float:
    """Every key reads the bias of its own offset: exhaustive, at edges, with dilation, stride and causality."""
    inputs = problem.inputs(kernel.device)
    assert inputs.rpb is not None
    inputs.query = torch.zeros_like(inputs.query)
    mask = expected_mask(problem.neighborhood)
    codes = torch.linspace(1, 2, len(mask), dtype=inputs.value.dtype)  # each token a value of its own
    inputs.value = codes.reshape(1, *problem.layout, 1, 1).expand_as(inputs.value).to(kernel.device)
    table = inputs.rpb.double().cpu().flatten(1)[0]
    weights = torch.softmax(table[bias_positions(problem.neighborhood)].masked_fill(~mask, -torch.inf), dim=-1)
    wanted = (weights @ codes.double()).reshape(1, *problem.layout, 1, 1).expand(inputs.value.shape)
    budget = 32 * torch.finfo(problem.dtype).eps
    return demand("the output of a bias alone", run(kernel, problem, inputs), wanted, budget)


@check("N21-rpb-numbers", Wish(rpb=True, scale=None))
def rpb_numbers(kernel: Kernel, problem: Problem) -> float:
    """The bias of each head is added to the scaled scores, not scaled itself."""
    return against_oracle(kernel, problem)


@check("N22-batch-and-heads", PLAIN)
def batch_and_heads(kernel: Kernel, problem: Problem) -> float:
    """Batch elements and heads do not know of each other: reversing them reverses the output."""
    problem = problem.but(batch=2)
    if not kernel.supports.takes(problem):
        raise Moot("the law does not apply")
    inputs = problem.inputs(kernel.device)
    back = run(kernel, problem, inputs.map(lambda tensor: tensor.flip(0, -2))).flip(0, -2)
    return Yardstick(problem, inputs).agree(
        "with batch and heads reversed, the output", back, run(kernel, problem, inputs)
    )


@check("N23-large-scores", PLAIN)
def large_scores(kernel: Kernel, problem: Problem) -> float:
    """Scores of several hundred do not overflow: the maximum is subtracted first."""
    inputs = problem.inputs(kernel.device)
    scaled = Inputs(200.0 * inputs.query, inputs.key.sign() + inputs.key, inputs.value)
    return Yardstick(problem, scaled).output_is(run(kernel, problem, scaled), "the output of large scores")


@check("N24-lse-dtype", Wish(rpb=False), needs=("lse",), effort=0.25)
def lse_dtype(kernel: Kernel, problem: Problem) -> None:
    """The lse is float32, and float64 for float64, and not by name alone: whoever merges parts relies on it."""
    for name in kernel.supports.dtypes:
        one = problem.but(dtype_name=name)
        wanted = torch.promote_types(one.dtype, torch.float32)
        with torch.no_grad():
            _, lse = kernel.attend(one, one.inputs(kernel.device), return_lse=True)
        assert lse is not None
        if lse.dtype != wanted:
            raise Wrong(f"the lse of {one.dtype} must be {wanted}, got {lse.dtype}")
        if one.dtype != wanted and lse.numel() >= 8 and bool((lse == lse.to(one.dtype)).all()):
            raise Wrong(
                f"the lse of {one.dtype} is {wanted} by name alone: all its numbers were rounded to {one.dtype}"
            )


LONG = {"quick": 4100, "full": 65600, "deep": 2**24 + 100}


def long_axes(supports: Supports, budget: str) -> Iterator[Problem]:
    """One long axis, last where there are several: past the limits of short token numbers."""
    for ndim in supports.ndim:
        layout = (3,) * (ndim - 1) + (-(-LONG[budget] // 3 ** (ndim - 1)),)
        head_dim = 1 if supports.head_dims is None else min(supports.head_dims)
        problem = Problem(layout=layout, kernel_size=3, head_dim=head_dim, dtype_name=supports.main_dtype)
        if supports.takes(problem):
            yield problem


@check("N30-long-axis", enumerate=long_axes)
def long_axis(kernel: Kernel, problem: Problem) -> float:
    """Layouts of many thousand tokens: no token number overflows."""
    inputs = problem.inputs(kernel.device)
    output = run(kernel, problem, inputs).flatten(1, -3)[0, :, 0].double().cpu()  # [N, Dv]
    flat = [tensor.flatten(1, -3)[0, :, 0].double().cpu() for tensor in (inputs.query, inputs.key, inputs.value)]
    count, powers = problem.neighborhood.num_tokens, [2**bits for bits in range(3, 60)]
    near = {query for power in (0, count, *powers) for query in range(power - 2, power + 3) if 0 <= query < count}
    queries = sorted(near)
    wanted = []
    for query in queries:
        token = problem.neighborhood.coordinates(query)
        keys = [problem.neighborhood.number(key) for key in problem.neighborhood.neighbors(token)]
        scores = flat[1][keys] @ flat[0][query] * problem.head_dim**-0.5
        wanted.append(torch.softmax(scores, dim=0) @ flat[2][keys])
    budget = 64 * torch.finfo(problem.dtype).eps * float(flat[2].abs().amax())
    return demand(
        f"of {count} tokens, the output at {len(queries)} of them", output[queries], torch.stack(wanted), budget
    )

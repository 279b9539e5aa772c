"""T: kernels that opt in to PyTorch's transforms, right ones and ones that break under each of them."""

import pytest
import torch

from dinat_ref import na1d
from dinat_ref.testing import Supports, check_kernel
from dinat_ref.testing.conformance import formulations
from dinat_ref.testing.guard import settings_kept

OPTED = Supports(ndim={1}, dtypes=["float32"], compile=True, vmap=True)
TRANSFORMS = ["T01", "T02", "T04"]


@pytest.mark.parametrize("name", ["gather", "tiled"])
def test_right_kernels_are_accepted_under_every_transform(name):
    report = check_kernel(formulations()[name].function, supports=OPTED, checks=TRANSFORMS)
    assert [result.verdict for result in report.results] == ["passed"] * 3, str(report)


def branches_on_a_value(query, key, value, kernel_size, **arguments):
    output = na1d(query, key, value, kernel_size, **arguments)
    return output if isinstance(output, tuple) or output.sum() < 1e30 else output * 0


def stops_the_tangent(query, key, value, kernel_size, **arguments):
    return na1d(query, key, value.detach(), kernel_size, **arguments)


def mixes_what_is_mapped(query, key, value, kernel_size, **arguments):
    if torch._C._functorch.is_batchedtensor(value):
        value = value.flip(0) * 0.5
    return na1d(query, key, value, kernel_size, **arguments)


@pytest.mark.parametrize(
    ("kernel", "id"),
    [
        (branches_on_a_value, "T01-compile"),
        (mixes_what_is_mapped, "T02-vmap"),
        (stops_the_tangent, "T04-forward-mode"),
    ],
)
def test_a_kernel_that_breaks_under_a_transform_is_rejected_by_its_check(kernel, id):
    report = check_kernel(kernel, supports=OPTED, checks=[id, "W11"])
    assert [result.id for result in report.failures] == [id], str(report)


@pytest.mark.parametrize("draws", [False, True])
def test_a_call_that_draws_random_numbers_is_noticed_under_every_transform(draws):
    noticed: set[str] = set()

    def call(x):
        with settings_kept(noticed):
            return 2 * x + (torch.rand(1) if draws else 0)

    x = torch.ones(2)
    for transformed in (
        lambda: torch.func.jvp(call, (x,), (x,)),
        lambda: torch.func.vmap(call, randomness="same")(x),
        lambda: torch.func.grad(lambda x: call(x).sum())(x),
    ):
        noticed.clear()
        before = torch.get_rng_state()
        transformed()
        assert noticed == ({"the state of the random numbers"} if draws else set())
        torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)

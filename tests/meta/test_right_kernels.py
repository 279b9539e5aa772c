"""No false alarm: right kernels are accepted, windows exhaustively once, random problems over twenty seeds."""

import os
from dataclasses import replace
from functools import partial

import pytest

from dinat_ref import neighborhood_attention, neighborhood_av, neighborhood_qk
from dinat_ref.attention.functional import FORMULATIONS
from dinat_ref.testing import Kernel, Supports, check_kernel
from dinat_ref.testing.checks.sampling import Wish, random_problems
from dinat_ref.testing.conformance import flex
from dinat_ref.testing.kernel import Moot
from dinat_ref.testing.ports.adapters import from_split
from dinat_ref.testing.ports.peers import PEERS
from dinat_ref.testing.registry import select
from dinat_ref.testing.runner import examine
from dinat_ref.testing.sabotage import DenseKernel

SEEDS, DRAWS = 20, 1
FULL = Supports(ndim={1, 2, 3}, rpb=True, double_backward=True)


def split_form() -> Kernel:
    """The legacy pair: heads-first scores, then heads-first values."""

    def qk(query, key, kernel_size, dilation, additional_keys=None, is_causal=False, rpb=None):
        query, key = query.movedim(1, -2), key.movedim(1, -2)
        extra = None if additional_keys is None else additional_keys.transpose(1, 2)
        scores = neighborhood_qk(query, key, kernel_size, 1, dilation, is_causal, 1.0, extra, rpb=rpb)
        return scores.movedim(-2, 1)

    def av(weights, value, kernel_size, dilation, additional_values=None, is_causal=False):
        weights, value = weights.movedim(1, -2), value.movedim(1, -2)
        extra = None if additional_values is None else additional_values.transpose(1, 2)
        return neighborhood_av(weights, value, kernel_size, 1, dilation, is_causal, extra).movedim(-2, 1)

    # half precision rounds the scores between the two halves, and autocast runs the softmax between them
    return Kernel(from_split(qk, av), replace(FULL, stride=False, dtypes=["float32", "float64"], gqa=False))


def kernels() -> dict[str, Kernel]:
    mapped = replace(FULL, vmap=True)
    found = {name: Kernel(partial(neighborhood_attention, impl=name), mapped) for name in FORMULATIONS}
    found["loops"].supports = replace(FULL, ndim={1, 2}, max_tokens=30)  # token by token, in Python
    return found | {
        "dense": Kernel(DenseKernel(), replace(FULL, nan_outside=False)),
        "split": split_form(),
        "flex": flex(),
    }


def accept(kernel: Kernel, seeds: int = SEEDS, known: tuple[str, ...] = ()) -> None:
    """Pose new random problems for each seed to every random check but those known to fail."""
    posed = 0
    for check in select(None):
        if check.enumerate is not None or check.skips(kernel) is not None or check.id in known:
            continue
        for seed in range(seeds):
            for problem in random_problems(seed, check.id, kernel.supports, check.wish or Wish(), DRAWS):
                error, _ = examine(kernel, check, problem)
                assert error is None or isinstance(error, Moot), f"{check.id} on {problem!r}: {error}"
                posed += 1
    assert posed > 100


@pytest.mark.filterwarnings("ignore")  # flex_attention says that it is slow
@pytest.mark.parametrize("name", [*FORMULATIONS, "dense", "split"])
def test_a_right_kernel_passes_every_check(name):
    kernel = kernels()[name]
    if name in ("gather", "unfold", "masked", "tiled"):
        kernel.supports = replace(kernel.supports, ndim={2})  # the other numbers of axes: all seeds, below
    exhaustive = ["W", "E", "D", "N05", "N12", "N20", "N27", "N30", "N31", "G16"]
    report = check_kernel(kernel, checks=exhaustive if name != "loops" else ["W17", "E", "D"], name=name)
    report.raise_for_failures()


@pytest.mark.parametrize("name", [*FORMULATIONS, "dense", "split"])
def test_a_right_kernel_passes_over_twenty_seeds(name):
    kernel = kernels()[name]
    kernel.supports = replace(kernel.supports, ndim={1, 2})
    accept(kernel)


@pytest.mark.parametrize("name", [name for name in FORMULATIONS if name != "loops"])
def test_a_right_kernel_passes_on_three_axes(name):
    kernel = kernels()[name]
    kernel.supports = replace(kernel.supports, ndim={3})
    accept(kernel, seeds=3)


@pytest.mark.filterwarnings("ignore")
def test_flex_attention_with_a_right_mask_is_accepted():
    check_kernel(flex(), name="flex").raise_for_failures()


@pytest.mark.filterwarnings("ignore")
def test_natten_is_accepted_but_for_its_scale():
    pytest.importorskip("natten", reason="natten is optional: pip install --no-build-isolation natten==0.21.7")
    checks = None if os.environ.get("DINAT_REF_PEERS") == "full" else ["W12", "W16", "W17", "N", "X"]
    report = check_kernel(
        PEERS["natten"].make(),
        expected_failures={"N19-scale-zero": "NATTEN takes a scale of 0.0 for None"},
        checks=checks,
    )
    report.raise_for_failures()
    kernel = PEERS["natten"].make()
    kernel.supports = replace(kernel.supports, ndim={1, 2})
    accept(kernel, known=("N19-scale-zero",))


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("natten-mps", "natten_mps", ["even kernel sizes", "stride downsamples"]),
        ("attention-gym", "attn_gym", ["height and width swapped"]),
    ],
)
def test_known_bugs_of_peers_are_said_in_words(name, module, words):
    pytest.importorskip(module, reason=f"{name} is optional: pip install 'dinat-ref[peers]'")
    report = check_kernel(PEERS[name].make(), name=name, checks=["W"])
    for word in words:
        assert any(word in diagnosis for diagnosis in report.diagnoses), str(report)

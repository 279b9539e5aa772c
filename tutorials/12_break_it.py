# %% [markdown]
# # 12 · Break it
#
# You have written a neighborhood attention kernel. It runs, the loss goes down. Is it right? The way to find out is
# to break it on purpose, and see which tests notice.
#
# **What you'll do:** write a small kernel, damage it in four ways that real projects have shipped, watch the usual test
# let them pass, and find all of them by laws and by the verification kit.
#
# **What you'll need:** [06, stride it and order it](06_stride_and_order_it.ipynb), and
# `pip install 'dinat-ref[testing]'`.

# %%
import torch

from dinat_ref import Neighborhood, na1d
from dinat_ref.testing import Supports, check_kernel

# %% [markdown]
# ## A kernel in sixteen lines
#
# One axis, kernel size and dilation. `start` is all there is to know about windows; the rest is attention. The
# function that computes it is an argument, so that we can exchange it.


# %%
def right_start(i, length, kernel_size, dilation):
    """The first key of query i."""
    group, place = i % dilation, i // dilation
    size = -(-(length - group) // dilation)  # tokens of this group, rounded up
    return group + dilation * min(max(place - kernel_size // 2, 0), size - kernel_size)


def make_kernel(start):
    def kernel(query, key, value, kernel_size, dilation=1):
        kernel_size, dilation = (x if isinstance(x, int) else x[0] for x in (kernel_size, dilation))  # 3 or (3,)
        length = query.shape[1]
        first = torch.tensor([start(i, length, kernel_size, dilation) for i in range(length)])
        keys = first[:, None] + dilation * torch.arange(kernel_size)  # [X, k]
        scores = torch.einsum("bxhd,bxkhd->bxhk", query, key[:, keys]) * query.shape[-1] ** -0.5
        return torch.einsum("bxhk,bxkhd->bxhd", scores.softmax(-1), value[:, keys])

    return kernel


# %% [markdown]
# ## Four ways to damage it
#
# Each changes one line, and each reads well. The comments say what happened.


# %%
def leans_right(i, length, kernel_size, dilation):
    group, place = i % dilation, i // dilation
    size = -(-(length - group) // dilation)
    return group + dilation * min(max(place - (kernel_size - 1) // 2, 0), size - kernel_size)  # fine for odd kernels


def short_groups(i, length, kernel_size, dilation):
    group, place = i % dilation, i // dilation
    size = length // dilation  # fine where the dilation divides the length
    return group + dilation * min(max(place - kernel_size // 2, 0), size - kernel_size)


def no_right_edge(i, length, kernel_size, dilation):
    return max(right_start(i, length, kernel_size, dilation) - (i == length - 1), 0)  # the last query is off by one


def no_groups(i, length, kernel_size, dilation):
    reach = dilation * (kernel_size - 1)
    return min(max(i - dilation * (kernel_size // 2), 0), length - 1 - reach)  # fine away from the edges


broken = {start.__name__: make_kernel(start) for start in (leans_right, short_groups, no_right_edge, no_groups)}

# %% [markdown]
# ## The usual test
#
# Take a reasonable shape, draw random numbers, compare with a reference, allow for rounding. Half precision is
# popular, so the tolerance is 0.05.


# %%
def usual_test(kernel):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 128, 4, 32, generator=generator)
    difference = (kernel(query, key, value, 7) - na1d(query, key, value, 7)).abs()
    return difference.mean().item() < 0.05


for name, kernel in broken.items():
    print(f"{name:14} {'passes' if usual_test(kernel) else 'is caught'}")
assert all(usual_test(kernel) for kernel in broken.values())

# %% [markdown]
# All four pass: the test has one odd kernel, no dilation, a length that every small dilation divides, and a mean in
# which one wrong query drowns among 128. None of these choices looks careless.
#
# ## Read the windows, all of them
#
# Tutorial 01 had a trick: with a one-hot value the output *is* the weight on that key. With the identity matrix as
# values (the head dimension as long as the axis) one call reads all windows. So do not compare numbers, compare
# *sets*, without any tolerance; and do not sample shapes, list them: there are few small ones, and small ones show
# everything.


# %%
def windows_of(kernel, length, kernel_size, dilation):
    zeros = torch.zeros(1, length, 1, length)
    identity = torch.eye(length).reshape(1, length, 1, length)
    return kernel(zeros, zeros, identity, kernel_size, dilation)[0, :, 0] > 0  # [X, X]


def first_wrong(kernel, longest=9):
    for length in range(1, longest + 1):
        for kernel_size in range(1, length + 1):
            for dilation in range(1, length // kernel_size + 1):
                expected = Neighborhood((length,), kernel_size, dilation=dilation).mask()
                try:
                    got = windows_of(kernel, length, kernel_size, dilation)
                except IndexError:  # a window that leaves the axis
                    got = torch.zeros_like(expected)
                if bool((got != expected).any()):
                    return length, kernel_size, dilation
    return None


assert first_wrong(make_kernel(right_start)) is None
found = {name: first_wrong(kernel) for name, kernel in broken.items()}
for name, problem in found.items():
    print(f"{name:14} is wrong at length {problem[0]}, kernel {problem[1]}, dilation {problem[2]}")
assert all(found.values())

# %% [markdown]
# The smallest failing problem is nearly the explanation. Here is one of them, the windows that were wanted and the
# ones that came.

# %%
from dinat_ref.viz.atlas import draw_pattern, pattern_legend
from dinat_ref.viz.theme import new_figure, share_legend

length, kernel_size, dilation = 7, 3, 2


class AsLayer:
    """Windows read from a kernel, in the form that the drawing takes."""

    layout = (length,)

    def __init__(self, kernel):
        self.read = windows_of(kernel, length, kernel_size, dilation)

    def windows(self, axis):
        return [row.nonzero().flatten().tolist() for row in self.read]


figure, grid = new_figure(1, 3, size=(8, 3.2))
draw_pattern(Neighborhood((length,), kernel_size, dilation=dilation), grid[0, 0], "the definition")
draw_pattern(AsLayer(broken["short_groups"]), grid[0, 1], "short_groups")
draw_pattern(AsLayer(broken["no_groups"]), grid[0, 2], "no_groups")
share_legend(figure, pattern_legend())
figure

# %% [markdown]
# The kernel in the middle forgets that group 0 has four tokens: its last query no longer attends itself. The one on
# the right crosses from one group to the other at both edges.
#
# ## The kit does this for you
#
# `check_kernel` reads all small windows of a kernel, draws the smallest wrong one, and compares it with a corpus of
# known bugs to guess what happened. Declare what your kernel takes, and nothing else is asked of it: ours has no
# stride, no causality, no scale of its own, one setting for all axes, does not return the logsumexp (the logarithm of
# the sum that softmax divides by), and shares no keys between heads (grouped queries). `checks=["W"]` asks for the
# checks of windows; without it, numbers, gradients, dtypes and error messages are checked as well.

# %%
limits = {"stride": False, "causal": False, "scale": False, "per_axis": False, "lse": False, "gqa": False}
small = Supports(ndim={1}, extra_keys=False, dtypes=["float32"], **limits)
for name, kernel in {"right": make_kernel(right_start), **broken}.items():
    report = check_kernel(kernel, supports=small, checks=["W"], name=name)
    print(name, "passes" if report.passed else "fails", [result.id for result in report.failures])
    assert report.passed == (name == "right")

# %% [markdown]
# And this is what it says about the first:

# %%
report = check_kernel(broken["leans_right"], supports=small, checks=["W12"], name="leans_right")
result = report["W12-even-kernels"]
print(result.title)
print(result.message)
print(result.drawing)
print("looks like:", result.looks_like)
assert "leans right" in result.looks_like

# %% [markdown]
# ## Who watches the watchmen?
#
# A test that has never failed has proved nothing. The kit comes with a corpus of wrong kernels, each a right one with
# one small change, named after a bug that somebody shipped; the kit's own tests demand that each of them is rejected
# by the check that names it. Yours is allowed to be wrong in a new way. Then it is time for another entry.

# %%
from dinat_ref.testing.sabotage import CORPUS

print(f"{len(CORPUS)} wrong kernels, among them: {', '.join(sorted(CORPUS)[:6])}")
assert len(CORPUS) > 50

# %% [markdown]
# From the shell, with a kernel in a module of yours:
#
# `dinat-ref verify my_package.my_module:my_kernel`
#
# ## On your own
#
# * `no_right_edge` is wrong for one query in every axis. Why did the usual test not see it? What would it have needed?
#
# <details><summary>Solution</summary>
#
# One wrong query in 128 changes the mean by a 128th. The largest difference would have shown it.
#
# ```python
# query, key, value = torch.randn(3, 2, 128, 4, 32, generator=torch.Generator().manual_seed(0))
# kernel = broken["no_right_edge"]
# difference = (kernel(query, key, value, 7) - na1d(query, key, value, 7)).abs()
# assert difference.mean() < 0.05 < difference.max()
# assert difference.amax((0, 2, 3)).argmax() == 127
# ```
#
# </details>
#
# * Write the bug that the enumeration up to length 9 does *not* find. (It exists: think of 32-bit integers.) How would
#   you test for it?
#
# <details><summary>Solution</summary>
#
# A start that is computed in 32 bits turns negative far down a long axis. Test the function that makes windows, not the
# kernel: it needs no tensor of that size.
#
# ```python
# from dinat_ref import window
#
#
# def wraps_around(i, length, kernel_size, dilation):
#     start = right_start(i, length, kernel_size, dilation)
#     return (start + 2**31) % 2**32 - 2**31  # what 32 bits make of it
#
# assert first_wrong(make_kernel(wraps_around)) is None
# far = 2**31 + 100
# assert right_start(far, 2**32, 7, 1) == window(far, 2**32, 7).start
# assert wraps_around(far, 2**32, 7, 1) < 0
# ```
#
# </details>
#
# * Give `make_kernel` a wrong scale. Do the window checks notice? Which check should?
#
# <details><summary>Solution</summary>
#
# They do not: windows are read with zero queries, and then the scale makes no difference. A check that compares numbers
# notices.
#
# ```python
# def wrong_scale(query, key, value, kernel_size, dilation=1):
#     return make_kernel(right_start)(query * 2, key, value, kernel_size, dilation)
#
# report = check_kernel(wrong_scale, supports=small, checks=["W"], name="wrong_scale")
# assert report.passed
# x = torch.randn(1, 9, 1, 8, generator=torch.Generator().manual_seed(0))
# assert (wrong_scale(x, x, x, 3) - na1d(x, x, x, 3)).abs().max() > 0.01
# ```
#
# </details>
#
# ## Further reading
#
# * MacIver & Hatfield-Dodds, *Hypothesis: a new approach to property-based testing*, JOSS 4(43), 2019.
# * `dinat_ref/testing/`, where each check is a few lines.
# * Next: [13, train a DiNAT](13_train_a_dinat.ipynb).

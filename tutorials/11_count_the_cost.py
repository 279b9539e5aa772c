# %% [markdown]
# # 11 · Count the cost
#
# Neighborhood attention is cheaper than self attention. How much cheaper, where does the rest of a model's work go,
# and which of it does a formulation waste?
#
# **What you'll do:** count multiply-adds by formula and by watching PyTorch work, take a published model apart, and
# measure what the five formulations of tutorial 04 store.
#
# **What you'll need:** [04, write it five ways](04_write_it_five_ways.ipynb) and
# [09, build DiNAT](09_build_dinat.ipynb). There are no timings on this page, so you should get the same numbers.

# %%
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dinat_ref import neighborhood_attention
from dinat_ref.analysis.cost import attention_cost, formula_cost, published_cost, traced_cost
from dinat_ref.models import create_model

# %% [markdown]
# ## The formula
#
# For n tokens of d channels: three projections cost 3nd². Each query then meets K keys twice, in the scores and in
# the sum of values: 2ndK. For self attention K is n, and the square appears.

# %%
n, d, keys = 56 * 56, 64, 49
operations, memory = attention_cost("NA", n, d, keys)
assert operations == 3 * n * d**2 + 2 * n * d * keys
for kind in ("NA", "SA"):
    operations, memory = attention_cost(kind, n, d, keys)
    print(f"{kind}: {operations / 1e6:7.1f} million multiply-adds, {memory / 1e6:5.2f} million weights and scores")

# %% [markdown]
# On DiNAT's first level, self attention would cost 22 times as much. The dilation is nowhere in the formula, and
# neither is the shift at the edges: every query has K keys.

# %%
sides = [14, 28, 56, 112, 224]
curves = {
    "neighborhood attention, 7 x 7": [attention_cost("NA", side**2, d, keys)[0] for side in sides],
    "self attention": [attention_cost("SA", side**2, d, keys)[0] for side in sides],
}
from dinat_ref.viz.curves import draw_scaling
from dinat_ref.viz.theme import new_figure

figure, grid = new_figure(1, 1, size=(6, 3.6))
tokens = [side**2 for side in sides]
draw_scaling(
    {name: (tokens, amounts) for name, amounts in curves.items()},
    grid[0, 0],
    xlabel="tokens",
    ylabel="multiply-adds of one layer",
)
for name, amounts in curves.items():
    print(f"{name}: four times the tokens cost {amounts[-1] / amounts[-2]:.1f} times as much")
assert curves["neighborhood attention, 7 x 7"][-1] == 4 * curves["neighborhood attention, 7 x 7"][-2]
figure

# %% [markdown]
# ## A whole model, counted twice
#
# `formula_cost` adds up the parts of a published model from its configuration. `traced_cost` builds the model without
# memory (on PyTorch's *meta* device), runs it, and watches every operator. They share no code, and agree to the last
# operation.

# %%
by_formula = formula_cost("dinat_mini")
by_trace = traced_cost(create_model("dinat_mini", device="meta"), 224)
for part, operations in sorted(by_formula.items(), key=lambda item: -item[1]):
    print(f"{part:14} {operations:14,}   {100 * operations / sum(by_formula.values()):4.1f} %")
print(f"{'in all':14} {sum(by_formula.values()):14,}")
assert by_formula == by_trace
assert round(published_cost("dinat_mini", by_formula) / 1e9, 3) == 2.713

# %% [markdown]
# The neighborhoods themselves, "attention", are a small part. The linear layers dominate: their cost grows with the
# square of the channels, and channels double at every level. If you want a faster DiNAT-Mini, a faster attention
# kernel alone will not get you far, *in operations*. In time it is another matter: linear layers run near a machine's
# peak, and a careless attention does not come close.
#
# ## Kernel size and resolution

# %%
for name in ("dinat_large", "dinat_large_384", "dinat_large_384_11x11"):
    cost = formula_cost(name)
    share = (cost["attention"] + cost["bias"]) / sum(cost.values())
    print(f"{name:22} {sum(cost.values()) / 1e9:6.3f} G, attention {100 * share:4.1f} %")

# %% [markdown]
# A kernel of 11 x 11 has two and a half times the keys of 7 x 7, for less than 3 % more work in all.
#
# ## What a formulation stores
#
# Operations are one cost, memory is another, and it is often the one that stops you. Here is a way to see it: run
# each formulation and remember the largest tensor that any operation makes. Those that would store too much run on meta
# tensors, which have shapes and no numbers.


# %%
class Largest(TorchDispatchMode):
    """Remember the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return result


print(f"{'tokens':>8}" + "".join(f"{impl:>14}" for impl in ("gather", "unfold", "masked", "tiled")))
largest = {}
for side in (14, 28, 56, 112):
    for impl in ("gather", "unfold", "masked", "tiled"):
        x = torch.zeros(1, side, side, 1, 32, device="cpu" if impl == "tiled" else "meta")
        with Largest() as seen:
            neighborhood_attention(x, x, x, kernel_size=7, impl=impl)
        largest[impl, side] = seen.numbers
    print(f"{side**2:8,}" + "".join(f"{largest[impl, side]:14,}" for impl in ("gather", "unfold", "masked", "tiled")))

assert largest["gather", 112] == 112**2 * 49 * 32, "every key is copied 49 times"
assert largest["masked", 112] == 112**4, "all pairs"
assert largest["tiled", 112] < largest["gather", 112] / 8

# %% [markdown]
# `masked` is the smallest of the simple ones on a small map, and hopeless on a large one. `tiled` works in chunks and
# stays small, which is why `impl="auto"` takes it. (On an accelerator, where each
# operation costs time before it begins, chunks are larger.) The price is that it computes some scores in vain:
# tutorial 04 counted them.
#
# ## On your own
#
# * At which number of tokens does self attention cost as much as neighborhood attention? Solve it, then check with
#   `attention_cost`.
#
# <details><summary>Solution</summary>
#
# 2 n d K = 2 n n d at n = K: at 49 tokens, where the window is the whole map.
#
# ```python
# assert attention_cost("SA", 49, d, keys) == attention_cost("NA", 49, d, keys)
# assert attention_cost("SA", 50, d, keys)[0] > attention_cost("NA", 50, d, keys)[0]
# ```
#
# </details>
#
# * `formula_cost("nat_mini")` and `formula_cost("dinat_mini")`: are they equal? At 384 pixels, too?
#
# <details><summary>Solution</summary>
#
# At 224, yes: dilation costs nothing. At 384 also: maps that are too small for a window would be padded, and these are
# large enough.
#
# ```python
# assert formula_cost("nat_mini") == formula_cost("dinat_mini")
# assert formula_cost("nat_mini", 384) == formula_cost("dinat_mini", 384)
# ```
#
# </details>
#
# * The table counts the forward pass. What does training store in addition, and which formulation avoids it?
#   (`dinat_ref/attention/tiled.py` says how.)
#
# <details><summary>Solution</summary>
#
# Everything that the backward pass needs: gather keeps its copies of keys and values. `tiled` keeps its inputs, its
# output and the logsumexp (the logarithm of the sum that softmax divides by), and computes the weights again.
#
# ```python
# def numbers_kept(impl):
#     kept = {}
#
#     def pack(tensor):
#         kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.itemsize
#         return tensor
#
#     x = torch.randn(1, 28, 28, 1, 32, requires_grad=True)
#     with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
#         output = neighborhood_attention(x, x, x, kernel_size=7, impl=impl)
#     return sum(kept.values()), output
#
# kept = {impl: numbers_kept(impl)[0] for impl in ("gather", "tiled")}
# print(kept)
# assert kept["gather"] > 10 * kept["tiled"]
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani et al., [arXiv:2204.07143](https://arxiv.org/abs/2204.07143), section 3.3.
# * Dao et al., *FlashAttention*, [arXiv:2205.14135](https://arxiv.org/abs/2205.14135): why memory traffic decides.
# * Next: [12, break it](12_break_it.ipynb).

# %% [markdown]
# # 08 · Grow a receptive field
#
# A layer sees a window. Two layers see the windows of a window. How far does a network see, exactly?
#
# **What you'll do:** compute receptive fields as sets, check the papers' laws against them, find out why NAT needed
# dilation, and see that what a token *can* see and what it *does* see are different things.
#
# **What you'll need:** [03, dilate it](03_dilate_it.ipynb).

# %%
import torch

from dinat_ref import Neighborhood, na2d
from dinat_ref.analysis.receptive_field import WindowedAttention, axis_fields, receptive_field

# %% [markdown]
# ## Sets of tokens
#
# Start from one output token and walk down. After one layer you hold its window. After the next, the union of the
# windows of all tokens you hold. No formula, only sets.

# %%
layer = Neighborhood((30,), kernel_size=7)
field = {15}
for count in (1, 2, 3):
    field = {key for token in field for key in layer.windows(0)[token]}
    print(f"after {count} layers: {len(field):2} tokens, {min(field)} to {max(field)}")
assert field == set(receptive_field([layer] * 3, (15,)).nonzero().flatten().tolist())

# %% [markdown]
# `axis_fields` does the same for all tokens at once, as products of boolean matrices. Windows are products of axes,
# and so are fields, so one small matrix per axis is enough, even for a photograph.
#
# ## The laws
#
# A layer of kernel k and dilation d adds (k - 1) d tokens. With dilations 1, k, k², ... the field is multiplied by k
# each time, and no faster growth is possible with k keys. Swin's blocks do not grow at all, unless every other layer
# is shifted. And a token in the corner, whose window can only grow inwards, is *half as fast*.

# %%
layout, layers = (343,), 4
stacks = {
    "DiNA, dilations 1, 7, 49, 49": [Neighborhood(layout, 7, dilation=d) for d in (1, 7, 49, 49)],
    "DiNA, dilations 1, 8, 1, 8": [Neighborhood(layout, 7, dilation=d) for d in (1, 8, 1, 8)],
    "NA": [Neighborhood(layout, 7)] * layers,
    "Swin's windows, shifted": [WindowedAttention(layout, 7, shift) for shift in (0, 3, 0, 3)],
    "windows": [WindowedAttention(layout, 7)] * layers,
}
seen = {name: [int(field[171].sum()) for field in axis_fields(stack)] for name, stack in stacks.items()}
seen["NA, from a corner"] = [int(field[0].sum()) for field in axis_fields(stacks["NA"])]
for name, widths in seen.items():
    print(f"{name:30}", widths)

assert seen["NA"] == [1 + count * (7 - 1) for count in range(5)] == [1, 7, 13, 19, 25]
assert seen["NA, from a corner"] == [1, *(7 + 7 // 2 * (count - 1) for count in range(1, 5))] == [1, 7, 10, 13, 16]
assert seen["DiNA, dilations 1, 7, 49, 49"][:4] == [7**count for count in range(4)]
assert seen["windows"] == [1, 7, 7, 7, 7]

from dinat_ref.viz.curves import draw_growth
from dinat_ref.viz.theme import new_figure

figure, grid = new_figure(1, 1, size=(6.5, 3.6))
draw_growth(seen, grid[0, 0], ylabel="tokens seen, of 343", log=7)
figure

# %% [markdown]
# ## Why NAT needed dilation
#
# NAT-Mini has three layers at its first level, 56 x 56 tokens. Three windows of 7 make 19 tokens: a token sees an
# eighth of the picture before it is halved. DiNAT-Mini changes one number, the dilation of the second layer, from 1
# to 8. It costs nothing, and after three layers there is no token it does not see.

# %%
from dinat_ref.analysis.levels import level_coverage, level_layers
from dinat_ref.analysis.receptive_field import layers_to_reach
from dinat_ref.viz.receptive_field import draw_receptive_field

figure, grid = new_figure(1, 2, size=(8, 3.4))
for axes, name in zip(grid.flat, ("nat_mini", "dinat_mini")):
    reached = layers_to_reach(level_layers(name)[0], (28, 28))
    draw_receptive_field(reached, axes, num_layers=3, colorbar=name == "dinat_mini")
    axes.set_title(f"{name}, level 1\n{axes.get_title(loc='left')}", loc="left", fontsize=9)
figure

# %% [markdown]
# The yellow lines on the right are worth a thought. After the second layer (dilation 8 over blocks of 7) one line in
# eight is still missing; the third layer, with dilation 1 again, fills it in. DiNAT_s has only two layers there, and
# keeps the holes.

# %%
for name in ("nat_mini", "dinat_s_tiny", "dinat_mini"):
    print(
        f"{name:13}",
        [f"level {level + 1}: {100 * shares[-1]:.0f} %" for level, shares in enumerate(level_coverage(name))],
    )
assert [round(100 * level_coverage(name)[0][-1]) for name in ("nat_mini", "dinat_s_tiny", "dinat_mini")] == [
    31,
    86,
    100,
]

# %% [markdown]
# (Percent of an axis, the mean over all tokens. Tokens at the edge see less, as we saw.)
#
# ## Can see, does see
#
# A set says what *can* matter. How much it *does* matter is a gradient. With equal weights, three layers are a
# three-fold average: the field is a box, but the influence is a bell. Most of the field hardly counts.


# %%
def mean_layers(dilations):
    """A stack of layers with equal weights."""

    def run(x):
        for dilation in dilations:
            x = na2d(torch.zeros_like(x), torch.zeros_like(x), x, kernel_size=7, dilation=dilation)
        return x

    return run


x = torch.zeros(1, 56, 56, 1, 1, dtype=torch.float64, requires_grad=True)
influence = {}
for dilations in ([1, 1, 1], [1, 8, 1]):
    output = mean_layers(dilations)(x)[0, 28, 28].sum()  # of one token
    (gradient,) = torch.autograd.grad(output, x)
    weight = influence[f"dilations {dilations}"] = gradient[0, :, :, 0, 0]  # of each input token in it
    exact = receptive_field([Neighborhood((56, 56), 7, dilation=d) for d in dilations], (28, 28))
    torch.testing.assert_close(weight > 1e-15, exact, rtol=0, atol=0)
    share = (weight > weight.max() / 2).sum() / exact.sum()
    print(f"dilations {dilations}: {exact.sum().item()} tokens can matter,")
    print(f"    {100 * share:.0f} % of them at least half as much as the most important")

# %%
from matplotlib.colors import LogNorm

from dinat_ref.viz.maps import draw_map

figure, grid = new_figure(1, 2, size=(8, 3.6))
for axes, (name, weight) in zip(grid.flat, influence.items()):
    label = None if axes is grid[0, 0] else "weight in the output, 1 = a fair share"
    fair = (56 * weight.clone()).mul(56).masked_fill(weight == 0, torch.nan)  # 3,136 tokens
    draw_map(fair, axes, title=f"influence, {name}", label=label, norm=LogNorm(0.01, 50))
style = {"textcoords": "offset points", "arrowprops": {"arrowstyle": "->", "color": "white"}, "color": "white"}
grid[0, 1].annotate("the frame", (3, 20), (18, 24), fontsize=8, **style)
figure

# %% [markdown]
# Both pictures have one colour scale, and it is logarithmic: yellow counts a thousand times as much as dark blue, and
# what is white does not count. On the left is a bell. On the right is a plateau as wide as the picture: each of the 49
# keys of the dilated layer brings the neighborhood around it, and the fine grid is where two of them touch. The frame
# is the work of the edges: windows that were shifted inwards look there more often than elsewhere, as the counts in
# tutorial 02 said they would. (That the set and the support of the gradient are equal is asserted above. It is the same
# test that checks `receptive_field` itself.)
#
# ## On your own
#
# * Three layers of kernel 3 on an axis of 27, with dilations 1, 3 and 9 (tutorial 03): is the order of the layers
#   important? For the corner tokens, too?
#
# <details><summary>Solution</summary>
#
# For the token in the middle it is not: all six orders see everything. For others it is, since windows at an edge are
# shifted. Only 9, 3, 1, from far to near, lets every token see everything, and 1, 3, 9 is the worst.
#
# ```python
# from itertools import permutations
#
# seen = {}
# for order in permutations((1, 3, 9)):
#     fields = axis_fields([Neighborhood((27,), 3, dilation=d) for d in order])[-1]  # [27, 27]
#     assert fields[13].all()
#     seen[order] = fields.sum(1).tolist()
#     print(order, "the corner sees", seen[order][0], "the least sees", min(seen[order]))
# assert [order for order, counts in seen.items() if min(counts) == 27] == [(9, 3, 1)]
# ```
#
# </details>
#
# * `level_layers("dinat_large_384")`: does every level cover its picture?
#
# <details><summary>Solution</summary>
#
# All but the first, where tokens at the edge miss some: 95 % of an axis, on average.
#
# ```python
# shares = [of_level[-1] for of_level in level_coverage("dinat_large_384")]
# print([f"{100 * share:.0f} %" for share in shares])
# assert 0.9 < shares[0] < 1
# assert shares[1:] == [1, 1, 1]
# ```
#
# </details>
#
# * Add `FullAttention(layout)` as one layer somewhere in a NAT. How many are needed to see everything, and does it
#   matter where?
#
# <details><summary>Solution</summary>
#
# One, anywhere.
#
# ```python
# from dinat_ref.analysis.receptive_field import FullAttention
#
# for place in range(4):
#     layers = [Neighborhood((56,), 7)] * 3
#     layers.insert(place, FullAttention((56,)))
#     assert axis_fields(layers)[-1].all()
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani & Shi, [arXiv:2209.15001](https://arxiv.org/abs/2209.15001), section 3.3 and table 1.
# * Luo et al., *Understanding the effective receptive field*, [arXiv:1701.04128](https://arxiv.org/abs/1701.04128).
# * Next: [09, build DiNAT](09_build_dinat.ipynb).

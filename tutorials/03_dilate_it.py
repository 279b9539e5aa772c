# %% [markdown]
# # 03 · Dilate it
#
# A window of 7 by 7 sees little of a large picture. A larger one costs more. Dilation is the third way: the same 49
# keys, further apart.
#
# **What you'll do:** find out that dilated attention is plain attention on sub-grids, count what it reaches, and make
# a mistake that leaves holes.
#
# **What you'll need:** [01](01_draw_a_window.ipynb) and [02](02_meet_the_edges.ipynb).

# %%
import torch

from dinat_ref import Neighborhood, na2d, window
from dinat_ref.window import dilation_group, picture

# %% [markdown]
# ## Every d-th token
#
# With `dilation=3`, query 4 of 12 attends 1, 4 and 7. Query 5 attends 2, 5 and 8. No query ever meets a token of
# another remainder modulo 3: the axis falls into three *dilation groups* that ignore each other.

# %%
print(picture(12, 3, dilation=3))
for i in range(12):
    assert all(j % 3 == i % 3 for j in window(i, 12, 3, dilation=3))

# %% [markdown]
# Each group is an axis of its own, and inside it everything is as in the first two tutorials, edges included.
# Position `i` has coordinate `i // d` in group `i % d`. When `d` does not divide the length, some groups are one token
# longer.

# %%
for i in range(7):
    group, place, size = dilation_group(i, length=7, dilation=3)
    print(f"token {i}: group {group}, place {place} of {size}")
assert [dilation_group(i, 7, 3)[2] for i in range(3)] == [3, 2, 2]

# %% [markdown]
# ## The law: dilated attention is plain attention on each sub-grid
#
# In two dimensions `x[:, g::d, h::d]` cuts out one group. Attend it *without* dilation, and you get exactly what
# dilated attention computes for those tokens. This works for lengths that `d` does not divide, too.

# %%
generator = torch.Generator().manual_seed(0)
query, key, value = torch.randn(3, 1, 11, 13, 2, 4, generator=generator, dtype=torch.float64)
dilated = na2d(query, key, value, kernel_size=3, dilation=(2, 3))
for g in range(2):
    for h in range(3):
        group = [tensor[:, g::2, h::3] for tensor in (query, key, value)]
        torch.testing.assert_close(dilated[:, g::2, h::3], na2d(*group, kernel_size=3), rtol=1e-12, atol=1e-12)
print("6 groups, all equal")

# %% [markdown]
# ## Same keys, wider view
#
# Dark blue keys are attended. Pale ones belong to the query's dilation group but are too far away; without dilation
# there is one group, and every token is in it.

# %%
from dinat_ref.viz.theme import new_figure, share_legend
from dinat_ref.viz.windows import draw_window, window_legend

figure, grid = new_figure(1, 3, size=(8.5, 3.7))
neighborhoods = [Neighborhood((15, 15), 3, dilation=dilation) for dilation in (1, 2, 5)]
for axes, neighborhood in zip(grid.flat, neighborhoods):
    draw_window(neighborhood, (7, 7), axes, legend=False, show_group=True)
share_legend(figure, window_legend(neighborhoods, [(7, 7)] * 3), columns=4)
figure

# %% [markdown]
# The number of keys never changes, so neither does the cost. What changes is the distance to what a query sees: it
# grows in proportion to the dilation. The last dilation is the largest that is legal: `kernel_size * dilation` may not
# exceed the axis.

# %%
for dilation, neighborhood in zip((1, 2, 5), neighborhoods):
    keys = torch.tensor(neighborhood.neighbors((7, 7)), dtype=torch.float64)  # [9, 2]
    distance = (keys - 7).norm(dim=1).mean().item()
    print(f"dilation {dilation}: {len(keys)} keys, on average {distance:.2f} tokens away")
    assert abs(distance - dilation * 4 * (1 + 2**0.5) / 9) < 1e-12

try:
    Neighborhood((15, 15), 3, dilation=6)
except ValueError as error:
    print(error)

# %% [markdown]
# ## The mistake: one dilation everywhere
#
# Stack four layers of dilation 5 and a token still sees only its own group: one token in 25, for ever. This is called
# *gridding*. Alternate dilation 1 and 5 instead: the first layer gathers blocks of 5 x 5 tokens, the second looks at
# blocks 5 apart, and there are no holes. DiNAT alternates for this reason.

# %%
from dinat_ref.analysis.receptive_field import coverage, layers_to_reach
from dinat_ref.viz.receptive_field import draw_receptive_field

layout, token = (56, 56), (27, 27)
stacks = {
    "dilation 1, four times": [1, 1, 1, 1],
    "dilation 5, four times": [5, 5, 5, 5],
    "dilation 1 and 5, alternating": [1, 5, 1, 5],
}
figure, grid = new_figure(1, 3, size=(9.5, 3.4))
for axes, (name, dilations) in zip(grid.flat, stacks.items()):
    layers = [Neighborhood(layout, 5, dilation=dilation) for dilation in dilations]
    reached = layers_to_reach(layers, token)
    draw_receptive_field(reached, axes, title=name, num_layers=4, colorbar=name == "dilation 1 and 5, alternating")
    shares = coverage(layers, token)
    print(f"{name:30}", [f"{100 * share:5.1f} %" for share in shares[1:]])
    if name == "dilation 5, four times":
        assert all((i - 27) % 5 == 0 and (j - 27) % 5 == 0 for i, j in (reached >= 0).nonzero().tolist())
figure

# %% [markdown]
# ## No holes: k must be at least d
#
# That the blocks met was no luck. A block is k wide and the next one begins d further on, so they leave a gap if d is
# larger than k. Two layers, one of dilation 1 and one of dilation d, see without holes exactly if **k >= d**.

# %%
figure, grid = new_figure(1, 3, size=(9.5, 3.4))
for axes, dilation in zip(grid.flat, (4, 5, 7)):
    reached = layers_to_reach([Neighborhood(layout, 5, dilation=d) for d in (1, dilation)], token)
    draw_receptive_field(reached, axes, title=f"kernel 5, dilations 1 and {dilation}", colorbar=dilation == 7)

for kernel_size in range(2, 9):
    for dilation in range(1, 11):
        far = window(100, 200, kernel_size, dilation=dilation)
        seen = {j for i in far for j in window(i, 200, kernel_size)}
        has_no_holes = seen == set(range(min(seen), max(seen) + 1))
        assert has_no_holes == (kernel_size >= dilation)
print("checked for 70 pairs of k and d")
figure

# %% [markdown]
# DiNAT's kernel is 7 and its second layer's dilation is often 8: just too wide. Its third layer closes the gaps;
# [08](08_grow_a_receptive_field.ipynb) looks at them.

# %% [markdown]
# ## On your own
#
# * Which dilations would you choose for three layers of kernel 3 on an axis of 27, so that the token in the middle sees
#   everything? `coverage` tells you whether you are right.
#
# <details><summary>Solution</summary>
#
# 1, 3 and 9: each layer triples the field, 3 * 3 * 3 = 27.
#
# ```python
# layers = [Neighborhood((27,), 3, dilation=dilation) for dilation in (1, 3, 9)]
# shares = coverage(layers, (13,))
# assert [round(27 * share) for share in shares] == [1, 3, 9, 27]
# ```
#
# </details>
#
# * `dilation=(1, 4)` dilates columns only. Draw it.
#
# <details><summary>Solution</summary>
#
# The keys are in three rows that touch, in columns 4 apart.
#
# ```python
# wide = Neighborhood((15, 15), 3, dilation=(1, 4))
# draw_window(wide, (7, 7), new_figure()[1][0, 0])
# assert wide.neighbors((7, 7)) == [(row, column) for row in (6, 7, 8) for column in (3, 7, 11)]
# ```
#
# </details>
#
# * Dilation groups do not talk to each other. What follows for the gradient of a loss that looks at one group only?
#
# <details><summary>Solution</summary>
#
# It is zero in all the other groups, exactly.
#
# ```python
# x = torch.randn(1, 12, 12, 1, 4, generator=generator, requires_grad=True)
# loss = na2d(x, x, x, kernel_size=3, dilation=3)[:, 1::3, 2::3].square().sum()
# (gradient,) = torch.autograd.grad(loss, x)
# touched = gradient[0, :, :, 0].abs().sum(-1).nonzero().tolist()
# assert all(i % 3 == 1 and j % 3 == 2 for i, j in touched)
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani & Shi, *Dilated Neighborhood Attention Transformer*, [arXiv:2209.15001](https://arxiv.org/abs/2209.15001),
#   section 3.
# * Yu et al., *Dilated Residual Networks*, [arXiv:1705.09914](https://arxiv.org/abs/1705.09914), on gridding in
#   convolutions.
# * Next: [04, write it five ways](04_write_it_five_ways.ipynb).

# %% [markdown]
# # 04 · Write it five ways
#
# One operator, five programs. They share no code, so when they agree, that is evidence; and each shows the operator
# from another side.
#
# **What you'll do:** attend the same 56 tokens by loops, by a table of indices, by sliding windows, by a mask and by
# tiles; draw what each of them works on; and look at every intermediate tensor on the way.
#
# **What you'll need:** [03, dilate it](03_dilate_it.ipynb), `einsum` and `Tensor.unfold`.

# %%
import math

import torch

from dinat_ref import Neighborhood, neighborhood_attention

# %% [markdown]
# ## The example
#
# A map of 7 rows and 8 columns, kernel 3, one head of dimension 2. Sizes that all differ are no accident: on a square
# map a program that mixes up rows and columns looks fine.

# %%
X, Y, D = 7, 8, 2
neighborhood = Neighborhood((X, Y), kernel_size=3)
generator = torch.Generator().manual_seed(4)
query, key, value = torch.randn(3, X, Y, D, generator=generator, dtype=torch.float64).round(decimals=1)
scale = 1 / math.sqrt(D)
numbers = torch.arange(X * Y).reshape(X, Y)  # tokens are numbered row by row
print(numbers)

# %% [markdown]
# ## 1. Loops: the definition
#
# For each token: score its neighbors, turn the scores into weights, mix the values. Follow token (0, 1), which stands
# at the upper edge: its rows are shifted to 0, 1, 2.

# %%
token = (0, 1)
neighbors = neighborhood.neighbors(token)
scores = torch.stack([scale * (query[token] * key[j]).sum() for j in neighbors])
weights = scores.exp() / scores.exp().sum()
output_here = sum(weight * value[j] for weight, j in zip(weights, neighbors))
print("neighbors", neighbors)
print("scores   ", scores)
print("weights  ", weights)
print("output   ", output_here)

# %% [markdown]
# Do that for all tokens and you have an *oracle*: a program so simple that it is believed, and everything else is
# compared with it. It takes N times K steps of Python, so nobody would run it on a photo.

# %%
by_loops = torch.empty(X, Y, D, dtype=torch.float64)
for token in neighborhood.tokens():
    neighbors = neighborhood.neighbors(token)
    scores = torch.stack([scale * (query[token] * key[j]).sum() for j in neighbors])
    by_loops[token] = sum(weight * value[j] for weight, j in zip(scores.softmax(0), neighbors))
torch.testing.assert_close(by_loops[0, 1], output_here, rtol=1e-12, atol=1e-12)

# %% [markdown]
# ## 2. Gather: a table of indices
#
# Write down the numbers of every token's neighbors once, as a table of N rows and K columns. Token 1 is row 1 of it.

# %%
indices = neighborhood.indices()  # [N, K]
print(indices.shape)
print(indices[[0, 1, 2, 28]])

# %%
from dinat_ref.viz.formulations import draw_index_table, draw_numbers
from dinat_ref.viz.theme import new_figure, share_legend

figure, grid = new_figure(1, 2, size=(8.6, 3.4), width_ratios=(1, 1.25))
draw_numbers(neighborhood, [0, 28], grid[0, 0], title="the tokens, two queries and their windows")
draw_index_table(neighborhood, [0, 1, 2, 3, 28, 29, 55], grid[0, 1], title="seven rows of the table, 9 keys each")
figure

# %% [markdown]
# Indexing with the table copies keys to where their numbers stand: the colours on the right are the tokens' own. So
# each query has its keys side by side, and one `einsum` does all dot products. Queries 0 and 1 have the same keys,
# since the window of 0 was shifted. And token 9 is copied for each of the queries that attend it: that is what gather
# pays for its simplicity.

# %%
keys = key.flatten(0, 1)[indices]  # [N, K, D]
values = value.flatten(0, 1)[indices]  # [N, K, D]
scores = scale * torch.einsum("nd,nkd->nk", query.flatten(0, 1), keys)  # [N, K]
weights = scores.softmax(-1)
by_gather = torch.einsum("nk,nkd->nd", weights, values).reshape(X, Y, D)

print("keys, copied", tuple(keys.shape), "from", tuple(key.shape))
print("scores of token 1", scores[1])
torch.testing.assert_close(by_gather, by_loops, rtol=1e-12, atol=1e-12)

# %% [markdown]
# ## 3. Unfold: sliding windows
#
# On an axis of 7 tokens there are only five windows of 3. `Tensor.unfold` shows all of them without copying. The
# queries pick windows 0, 0, 1, 2, 3, 4, 4: edge queries re-use the first and the last. On a map a query takes one
# window on each axis.

# %%
from dinat_ref.viz.formulations import draw_sliding_windows

figure, grid = new_figure(1, 2, size=(8.2, 3.2))
draw_sliding_windows(neighborhood, 0, grid[0, 0], title="rows: each blue line is a window, dots are queries")
draw_sliding_windows(neighborhood, 1, grid[0, 1], title="columns")
figure

# %%
print(torch.arange(7).unfold(0, 3, 1).tolist())
rows = torch.tensor([window.start for window in neighborhood.windows(0)])  # [X]
columns = torch.tensor([window.start for window in neighborhood.windows(1)])  # [Y]
print("rows start at", rows.tolist(), "columns at", columns.tolist())

windows = key.unfold(0, 3, 1).unfold(1, 3, 1)  # [X - 2, Y - 2, D, 3, 3], a view
picked = windows[rows[:, None], columns]  # [X, Y, D, 3, 3]
print("all windows", tuple(windows.shape), "picked", tuple(picked.shape))
scores = scale * torch.einsum("xyd,xydij->xyij", query, picked).flatten(2)  # [X, Y, K]
values = value.unfold(0, 3, 1).unfold(1, 3, 1)[rows[:, None], columns].flatten(3)  # [X, Y, D, K]
by_unfold = torch.einsum("xyk,xydk->xyd", scores.softmax(-1), values)
torch.testing.assert_close(by_unfold, by_loops, rtol=1e-12, atol=1e-12)

# %% [markdown]
# With dilation, windows have gaps, and `unfold` knows no gaps. So pull the dilation groups apart: in a group of its own
# a dilated window is an ordinary one. Attend each group, and put its tokens back where they came from. The orange query
# and its nine keys are the same tokens in both pictures.

# %%
from dinat_ref.viz.formulations import draw_groups

dilated = Neighborhood((X, Y), kernel_size=3, dilation=2)
figure, grid = new_figure(1, 2, size=(8, 3.6), width_ratios=(1, 1.1))
draw_groups(dilated, (2, 5), grid[0, 0], title="dilation 2: four groups, in place")
draw_groups(dilated, (2, 5), grid[0, 1], apart=True, title="pulled apart: windows without gaps")
figure

# %%
batch = [tensor[None, :, :, None] for tensor in (query, key, value)]  # [1, X, Y, 1, D]
by_groups = torch.empty(X, Y, D, dtype=torch.float64)
for g in range(2):
    for h in range(2):
        group = [tensor[:, g::2, h::2] for tensor in batch]  # pulled apart
        by_groups[g::2, h::2] = neighborhood_attention(*group, kernel_size=3)[0, :, :, 0]  # put back
expected = neighborhood_attention(*batch, kernel_size=3, dilation=2, impl="loops")[0, :, :, 0]
torch.testing.assert_close(by_groups, expected, rtol=1e-12, atol=1e-12)
print("four groups, put back: dilated attention")

# %% [markdown]
# ## 4. Masked: full attention with most of it forbidden
#
# Score *all* pairs, and set to minus infinity what is not a neighbor: exp(-inf) = 0. Three lines, any kernel, and
# what compilers such as FlexAttention start from. But N x N scores: a photo of 600 x 512 would need some 380 GB in
# float32.

# %%
mask = neighborhood.mask()  # [N, N]
print(mask[1].int().reshape(X, Y))  # what token 1 attends, as a picture
scores = scale * query.flatten(0, 1) @ key.flatten(0, 1).T  # [N, N]
scores = scores.masked_fill(~mask, -torch.inf)
by_mask = (scores.softmax(-1) @ value.flatten(0, 1)).reshape(X, Y, D)
assert mask.sum() == 56 * 9
print(f"{mask.sum().item()} of {mask.numel()} scores are needed")
torch.testing.assert_close(by_mask, by_loops, rtol=1e-12, atol=1e-12)

from dinat_ref.viz.maps import draw_map

figure, grid = new_figure(1, 2, size=(7.5, 3.6))
draw_map(mask, grid[0, 0], title="mask: a row for each query")
weights = scores.softmax(-1)
draw_map(weights, grid[0, 1], title="weights", label="each row sums to one")
figure

# %% [markdown]
# ## 5. Tiled: small dense pieces
#
# Neighbors have almost the same neighbors. Take a *slab* of 4 x 4 keys, and as its *tile* all queries whose windows fit
# the slab: 2 x 2 of them in the interior, more at the edges, where windows are shifted and so the same.

# %%
from dinat_ref.attention.cut import axis_tiles

rows, columns = [axis_tiles(neighborhood, axis, size=2) for axis in (0, 1)]
for tile in columns:
    print("columns: queries", list(tile.queries), "slab of keys", list(tile.keys))
assert [len(tile.queries) for tile in rows] == [3, 2, 2]
assert [len(tile.queries) for tile in columns] == [3, 2, 3]

# %%
from dinat_ref.viz.formulations import draw_tile, draw_tile_scores, tile_legend

figure, grid = new_figure(2, 2, size=(8.6, 5.6), width_ratios=(1, 1.7))
for axes_of_row, (place, number) in zip(grid, {"inside": 1, "in the corner": 0}.items()):
    draw_tile(neighborhood, (rows[number], columns[number]), axes_of_row[0])
    draw_tile_scores(neighborhood, (rows[number], columns[number]), axes_of_row[1])
    axes_of_row[0].set_ylabel(f"a tile {place}")
share_legend(figure, tile_legend(), columns=4)
figure

# %% [markdown]
# Between a tile and its slab, attention is dense: two matrix products, which is what a CPU is good at, and a small mask
# for the keys of the slab that are not in a query's own window. What the mask hides was computed in vain. This is what
# `impl="auto"` runs on large maps.

# %%
by_tiles = torch.empty(X, Y, D, dtype=torch.float64)
computed = 0
for row in rows:
    for column in columns:
        tile = numbers[row.queries][:, column.queries].flatten()  # [T]
        slab = numbers[row.keys][:, column.keys].flatten()  # [S]
        scores = scale * query.flatten(0, 1)[tile] @ key.flatten(0, 1)[slab].T  # [T, S]
        scores = scores.masked_fill(~mask[tile][:, slab], -torch.inf)
        by_tiles.view(X * Y, D)[tile] = scores.softmax(-1) @ value.flatten(0, 1)[slab]
        computed += scores.numel()
print(f"{computed} scores computed, {mask.sum().item()} needed")
torch.testing.assert_close(by_tiles, by_loops, rtol=1e-12, atol=1e-12)

# %% [markdown]
# ## And the package's own
#
# The files in `dinat_ref/attention/` are these five programs with everything else that the operator can do: any number
# of axes, dilation, stride, causality, several heads, bias. They agree with what you just wrote.

# %%
for impl in ("loops", "gather", "unfold", "masked", "tiled"):
    output = neighborhood_attention(*batch, kernel_size=3, impl=impl)[0, :, :, 0]
    difference = (output - by_loops).abs().max().item()
    assert difference < 1e-12
    print(f"{impl:6} agrees")

# %% [markdown]
# ## On your own
#
# * In part 3, replace `rows` by `torch.arange(X).clamp(max=X - 3)`: windows that begin at the query. Which test fails,
#   and for which tokens?
#
# <details><summary>Solution</summary>
#
# The comparison with the loops fails, in rows 1 to 4. Row 0 and the last two are right, because shifted windows are the
# same.
#
# ```python
# wrong = torch.arange(X).clamp(max=X - 3)  # [X]
# right = torch.tensor([window.start for window in neighborhood.windows(1)])  # [Y]
# picked = key.unfold(0, 3, 1).unfold(1, 3, 1)[wrong[:, None], right]
# values = value.unfold(0, 3, 1).unfold(1, 3, 1)[wrong[:, None], right].flatten(3)
# weights = (scale * torch.einsum("xyd,xydij->xyij", query, picked).flatten(2)).softmax(-1)
# output = torch.einsum("xyk,xydk->xyd", weights, values)
# different = (output - by_loops).abs().amax((1, 2)) > 1e-12  # [X]
# assert different.tolist() == [False, True, True, True, True, False, False]
# ```
#
# </details>
#
# * Give the tiles `size=1` and `size=4`. How many scores are computed in vain? When would large tiles still win?
#
# <details><summary>Solution</summary>
#
# The larger the tile, the more of them: a query needs 9 scores, and its slab has (size + 2) * (size + 2). But there are
# fewer and larger matrix products, which keep a processor busy.
#
# ```python
# def scores_computed(size):
#     rows, columns = [axis_tiles(Neighborhood((X, Y), 3), axis, size) for axis in (0, 1)]
#     per_axis = [sum(len(tile.queries) * len(tile.keys) for tile in tiles) for tiles in (rows, columns)]
#     return per_axis[0] * per_axis[1]
#
# counts = {size: scores_computed(size) for size in (1, 2, 4)}
# print(counts)
# assert counts[1] == 56 * 9 < counts[2] < counts[4]
# ```
#
# </details>
#
# * Write a sixth: read one key for every query at a time, in nine steps, the same place in the window for all. What
#   must you do at the edges?
#
# <details><summary>Solution</summary>
#
# The place is counted from the start of the window, not from the query. So the edges need nothing: shifted starts are
# enough.
#
# ```python
# first = [torch.tensor([window.start for window in neighborhood.windows(axis)]) for axis in (0, 1)]
# places = [(first[0][:, None] + a, first[1] + b) for a in range(3) for b in range(3)]
# scores = torch.stack([scale * (query * key[place]).sum(-1) for place in places])  # [K, X, Y]
# weights = scores.softmax(0)
# by_places = sum(weight[..., None] * value[place] for weight, place in zip(weights, places))
# torch.testing.assert_close(by_places, by_loops, rtol=1e-12, atol=1e-12)
# assert (key[places[4]] - key)[1:-1, 1:-1].abs().max() == 0  # in the middle, place 4 is the query itself
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani et al., *Faster Neighborhood Attention*, [arXiv:2403.04690](https://arxiv.org/abs/2403.04690): tiles on a
#   GPU.
# * The docstrings of `dinat_ref/attention/*.py`. Next: [05, follow the gradients](05_follow_the_gradients.ipynb).

# %% [markdown]
# # 18 · Choose a stride
#
# On paper a window of 10,368 keys among 115,200 is eleven times as fast as full attention. On a GPU it may be three
# times as fast, or all of eleven, and what decides is a number that most people leave at 1: the stride.
#
# **What you'll do:** count the tiles that a kernel visits, by hand and by axis; see what a stride buys and when it buys
# nothing; let a search choose; draw figure 3 of the paper again, with its numbers beside yours; and look at the price.
#
# **What you'll need:** [06, stride it and order it](06_stride_and_order_it.ipynb), and the two-crop test of
# [02, meet the edges](02_meet_the_edges.ipynb). No GPU.

# %%
import torch

from dinat_ref import Neighborhood
from dinat_ref.analysis.kernel_tiles import count_tiles, end_to_end

# %% [markdown]
# ## One tile of queries
#
# A kernel does not fetch keys one by one. It holds a *tile* of queries, say 8 x 8, and walks over tiles of keys, 8 x 8
# each, and multiplies tile by tile. A tile of keys that holds a single key for a single query is multiplied whole. So
# count tiles, not keys.

# %%
from dinat_ref.viz.kernel_tiles import busiest_tile, draw_tile_map, tile_legend
from dinat_ref.viz.theme import new_figure, share_legend

size, layout = (8, 8), (48, 64)
sliding, strided = (Neighborhood(layout, kernel_size=24, stride=stride) for stride in (1, 8))
figure, grid = new_figure(1, 2, size=(8.2, 3.7))
for axes, window in zip(grid.flat, (sliding, strided)):
    tiles = busiest_tile(window, size, size)
    count = " x ".join(str(len(tile.tiles)) for tile in tiles)
    draw_tile_map(
        tiles, axes, title=f"stride {window.stride[0]}: the busiest tile of queries\nvisits {count} tiles of keys"
    )
share_legend(figure, tile_legend())
figure

# %% [markdown]
# On the left every query has its own 24 x 24 keys. Together they need 31 x 31, which lie in 5 x 5 tiles: 40 x 40 keys
# are multiplied for each query, of which 576 are wanted. Nothing is wrong with the window; the *tile* of queries is
# what makes it wide. On the right 8 x 8 queries share a window, it begins where a tile of keys begins, and no tile is
# wasted.
#
# Count it with sets, from the windows of tutorial 01 alone:


# %%
def visited(window, rows, columns):
    """The tiles of keys in which any of some queries has a key."""
    keys = [key for row in rows for column in columns for key in window.neighbors((row, column))]
    return {(row // 8, column // 8) for row, column in keys}


for window, expected in ((sliding, 25), (strided, 9)):
    counts = [len(visited(window, range(x, x + 8), range(y, y + 8))) for x in range(0, 48, 8) for y in range(0, 64, 8)]
    count = count_tiles(window, size, size)
    print(f"stride {window.stride[0]}: {min(counts)} to {max(counts)} tiles, {sum(counts)} in all")
    assert (max(counts), sum(counts)) == (count.worst, count.total)
    assert count.worst == expected

# %% [markdown]
# Sets of pairs are slow. But a window is a product of axes, and a tile is one, too: count one axis, and multiply.
# That is all that `count_tiles` does, and why it takes milliseconds for a video.
#
# ## What a speedup is, and what it is not
#
# Full attention visits all 48 tiles. So the bound is 48 / 25, or 48 / 9, for the kernel has to wait for its *busiest*
# tile of queries. FLOP-wise, counting keys, both should be 5.33 times as fast.

# %%
for window in (sliding, strided):
    count = count_tiles(window, size, size)
    print(
        f"stride {window.stride[0]}: {count.speedup:.2f} times as fast at most, {count.flop_speedup:.2f} by keys, "
        f"{100 * count.waste:.0f} % of the tiles wasted, {count.partial} of {count.total} need a mask"
    )
assert count_tiles(sliding, size, size).speedup == 48 / 25
assert count_tiles(strided, size, size).speedup == count_tiles(strided, size, size).flop_speedup == 48 / 9
assert count_tiles(strided, size, size).is_perfect

# %% [markdown]
# A window that wastes nothing is *perfectly block-sparse*: the mask has no work to do. And it is a bound. Loading,
# softmax and a tail of idle processors cost time, too; no count of tiles knows them.
#
# ## Strides that buy nothing
#
# Not every stride helps. With a window of 16 a stride of 8 is useless on a fixed grid of tiles: the shared windows
# begin half-way into a tile. (Eight queries share the window of the fifth of them, which begins 8 keys before it: 4
# before the first.) A stride of 16 is in step with the grid. So is any stride with *dynamic* tiling, where tiles begin
# with the first key, as in NATTEN's FNA.

# %%
starts = {stride: [keys[0] for keys in Neighborhood((64,), 16, stride).windows(0)][24:40] for stride in (8, 16)}
print("stride  8: windows begin at", sorted(set(starts[8])))
print("stride 16: windows begin at", sorted(set(starts[16])))
worst = {
    (stride, tiling): count_tiles(Neighborhood((64, 64), 16, stride), 8, 8, tiling).worst
    for stride in (1, 8, 16)
    for tiling in ("static", "dynamic")
}
print("tiles visited:", worst)
assert worst[1, "static"] == worst[8, "static"] == 9
assert worst[16, "static"] == worst[8, "dynamic"] == 4

# %% [markdown]
# ## The curse of flat tiles
#
# A kernel for sequences knows no axes. Hand it a video, row after row, and a tile of 128 tokens is one long strip,
# whose windows touch a tile of keys in every row. FlexAttention is such a kernel. The cure is to put the tokens in
# another order, tile by tile, once before attention and back after it:

# %%
from dinat_ref.analysis.flat_tiles import count_flat_tiles
from dinat_ref.interop.flex import tile_permutation

video = Neighborhood((30, 48, 80), kernel_size=(18, 24, 24), stride=(16, 8, 8))
flat, permuted = count_flat_tiles(video, 256, 128), count_tiles(video, (4, 8, 8), (2, 8, 8))
print(f"flattened: {flat.speedup:.2f} times as fast at most, {100 * flat.waste:.0f} % wasted")
print(f"permuted: {permuted.speedup:.2f} times as fast at most, {100 * permuted.waste:.0f} % wasted")
assert flat.speedup < 3 < 11 < permuted.speedup
assert flat.worst > 4 * permuted.worst

order, place = tile_permutation((4, 6), tile=(2, 3))
print(order.reshape(4, 6))  # a row is a tile
torch.testing.assert_close(order[place], torch.arange(24), rtol=0, atol=0)

# %% [markdown]
# ## Which strides are worth having
#
# Each axis has few strides that do better than all smaller ones. Combine them, sort by how many queries share a window,
# and strike out what is no faster than something closer to sliding. What is left is a staircase:

# %%
from dinat_ref.analysis.tile_cases import PRODUCTION, USE_CASES
from dinat_ref.analysis.tile_report import by, table, words
from dinat_ref.analysis.tile_search import stride_front, window_front
from dinat_ref.viz.kernel_tiles import draw_published, draw_stride_front

case = USE_CASES[0]
pair = (case.query_tile, case.key_tile)
front = stride_front(Neighborhood(case.layout, case.window), [pair])
figure, grid = new_figure(size=(7.5, 3.4))
draw_stride_front(front, grid[0, 0])
figure

# %%
print(table(front, case.share))
print()
print(words(front[0], front))
assert [choice.neighborhood.stride for choice in front] == [s for s in case.published if s != case.window]

# %% [markdown]
# The staircase has seven steps out of 10,368 strides, and they are the seven that the paper lists for this window, in
# its order. Blocked attention, where the stride is the window, is not among them: 18x24x24 is slower than 1x8x8.
#
# ## Figure 3, drawn again
#
# The paper's simulator was never released. But its model is the one above, and its results are printed: the speedups of
# whole runs, of which attention is a share f, so that by Amdahl's law a speedup s becomes 1 / (1 - f + f / s). Bars and
# the numbers in them are ours, diamonds and the numbers above them the paper's. It names the tiles of the first case
# only; those of the others were found by search.

# %%
figure, grid = new_figure(3, 2, size=(8.2, 8.0))
largest = 0.0
for axes, case in zip(grid.flat, USE_CASES):
    counts = {
        s: count_tiles(Neighborhood(case.layout, case.window, s), case.query_tile, case.key_tile)
        for s in case.published
    }
    ours = {stride: end_to_end(count.speedup, case.share) for stride, count in counts.items()}
    paper = {stride: published for stride, (published, _) in case.published.items()}
    bound = end_to_end(counts[(1,) * len(case.layout)].flop_speedup, case.share)
    draw_published(axes, ours, paper, bound, f"{case.name} {by(case.layout)}, window {by(case.window)}")
    largest = max([largest, *(abs(ours[stride] - paper[stride]) for stride in paper)])
    for stride, (_, with_full_steps) in case.published.items():
        if with_full_steps is not None:
            ours_then = end_to_end(counts[stride].speedup, case.share, case.full_steps)
            largest = max(largest, abs(ours_then - with_full_steps))
grid.flat[5].remove()
share_legend(figure, grid[0, 0].get_legend_handles_labels()[0])
print(f"the largest difference from the paper: {largest:.3f}")
assert largest < 0.015
figure

# %% [markdown]
# (The paper also gives them for runs that keep full attention in their first steps. Those agree as well.)
#
# ## Windows in use
#
# Five windows of Cosmos-Predict2, a video model, on 24 x 44 x 80 tokens. Two of them dilate as far as they can, so that
# a few keys cover the whole picture; its dilation groups are gathered first, and each is tiled by itself. Its authors
# call them all fully or highly block-sparse. Are they, and on which tiles?

# %%
from dinat_ref.analysis.tile_shapes import PRESETS

for name, window in PRODUCTION.items():
    shapes = PRESETS["blackwell"].shapes[3]
    perfect = [f"{by(q)}, {by(k)}" for q, k in shapes if count_tiles(window, q, k).is_perfect]
    count = count_tiles(window, *shapes[0])
    print(f"{name:32} {count.flop_speedup:5.1f} x; wastes nothing with {len(perfect)} of {len(shapes)} shapes")
    assert count.is_perfect
    assert all(count_tiles(window, *preset.shapes[3][0], preset.tiling).is_perfect for preset in PRESETS.values())

# %% [markdown]
# They are, with the tiles that every kernel of NATTEN takes by default. But with another shape of the same kernel up to
# 90 % of the tiles that a window visits need a mask. Ask before you train: the window that you train with is the one
# that you will serve.
#
# You need not know the window, either. Give a share of tokens to leave out, and the kernel:

# %%
print(table(window_front((30, 48, 80), 0.9, PRESETS["blackwell"].shapes[3], at_least=(8, 16, 16))))
assert window_front((30, 48, 80), 0.9, PRESETS["blackwell"].shapes[3])[-1].neighborhood.kernel_size == (2, 48, 80)

# %% [markdown]
# (Without the last argument it answers: two whole frames. A whole axis wastes nothing, whatever the stride. Whether a
# video model can live on two frames is no question of tiles.)
#
# ## The price
#
# A stride is not free. Queries that share a window have it beside them rather than around them, and attention is no
# longer the same everywhere: what a token attends depends on where the picture begins. The two-crop test says how many
# tokens attend the same tokens in two crops of one picture:

# %%
from dinat_ref.analysis.equivariance import unchanged_share
from dinat_ref.viz.theme import house_style

shifts = list(range(1, 17))
kept = {
    f"stride {stride}": [unchanged_share(lambda x, s=stride: Neighborhood(x, 24, s), 96, shift) for shift in shifts]
    for stride in (1, 2, 8, 16)
}
figure, grid = new_figure(size=(7.5, 3.2))
axes = grid[0, 0]
with house_style():
    for name, shares in kept.items():
        axes.plot(shifts, shares, label=name, markersize=4)
    axes.set_xlabel("distance of the two crops, in tokens")
    axes.set_ylabel("share of 96 shared tokens")
    axes.set_title("Tokens that attend the same tokens in both crops, window 24")
    axes.set_ylim(-0.05, 1.05)
    figure.legend(loc="outside lower center", ncols=4)
for name, shares in kept.items():
    print(f"{name:9} shifted by 1: {100 * shares[0]:.0f} %, by 8: {100 * shares[7]:.0f} %")
figure

# %%
once = {name: shares[0] for name, shares in kept.items()}
assert once.pop("stride 1") == kept["stride 1"][15] > 0.7
assert max(once.values()) < 0.02
assert min(kept["stride 2"][7], kept["stride 8"][7], kept["stride 16"][15]) > 0.6  # in step with the stride

# %% [markdown]
# Sliding windows keep what they attend, whatever the distance; only the edges change it. With a stride, a single token
# of distance changes nearly every window, if only by a key or two; at whole strides all is as it was. A network may not
# mind: patches of 16 pixels are no better. But it is a reason to take the *smallest* stride that is fast enough. Here
# 1x8x8 has four fifths of the speedup of 16x8x8, and leaves the axis of time sliding.
#
# ## On your own
#
# * `dinat-ref tiles 30x48x80 18x24x24 --q-tile 4x8x8 --kv-tile 2x8x8 --search --draw tiles.png` does all this in a
#   shell. Try your own model; try `--preset fna`, whose tiles are dynamic. What happens to the staircase?
#
# <details><summary>Solution</summary>
#
# It has other steps, and reaches the bound earlier: with dynamic tiling 4x8x8 wastes nothing, where the fixed grid
# needs 16x8x8.
#
# ```python
# dynamic = stride_front(Neighborhood(USE_CASES[0].layout, USE_CASES[0].window), [pair], tiling="dynamic")
# print([by(choice.neighborhood.stride) for choice in front])
# print([by(choice.neighborhood.stride) for choice in dynamic])
# assert dynamic[-1].neighborhood.stride == (4, 8, 8)
# assert front[-1].neighborhood.stride == (16, 8, 8)
# ```
#
# </details>
#
# * Give `count_tiles` 77 `additional_keys`, a prompt that every token attends. When do they matter?
#
# <details><summary>Solution</summary>
#
# They are one or two more tiles for every tile of queries: little beside a large window, and much beside a small one.
#
# ```python
# def cost_of_prompt(kernel_size):
#     window = Neighborhood((64, 64), kernel_size, kernel_size)
#     with_prompt, alone = (count_tiles(window, 8, 8, additional_keys=keys).worst for keys in (77, 0))
#     return with_prompt / alone
#
# assert cost_of_prompt(8) >= 2 > 1.2 > cost_of_prompt(32)
# ```
#
# </details>
#
# * A causal axis of time: `is_causal=(True, False, False)`. Why can no stride make it perfect?
#
# <details><summary>Solution</summary>
#
# Each query of a tile sees one frame more than the one before it: somewhere in the last tile of keys there must be a
# mask. Only tiles of a single frame have none.
#
# ```python
# for stride in (1, 2, 4):
#     window = Neighborhood((16, 16, 16), (8, 8, 8), (stride, 8, 8), is_causal=(True, False, False))
#     assert not count_tiles(window, (4, 8, 8), (4, 8, 8)).is_perfect
# ```
#
# </details>
#
# * On which layouts does a window of 24 with a stride of 8 stay perfect with tiles of 8?
#
# <details><summary>Solution</summary>
#
# Where the length is a multiple of 8.
#
# ```python
# perfect = [
#     length
#     for length in range(24, 81)
#     if count_tiles(Neighborhood((length, length), 24, 8), (8, 8), (8, 8)).is_perfect
# ]
# assert perfect == [length for length in range(24, 81) if length % 8 == 0]
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani et al., *Generalized Neighborhood Attention*, [arXiv:2504.16922](https://arxiv.org/abs/2504.16922): strides,
#   the simulator, and what of its bounds a Blackwell GPU reached.
# * Hassani, Hwu & Shi, *Faster Neighborhood Attention*, [arXiv:2403.04690](https://arxiv.org/abs/2403.04690): tiles of
#   more than one axis.
# * Next: [19, solve the puzzles](19_solve_the_puzzles.ipynb).

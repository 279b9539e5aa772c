# %% [markdown]
# # 16 · Follow a stroke
#
# A scanned digit of 8 x 8 pixels is small enough to see *all* of attention at once, and real enough to ask it
# something: which way do the strokes run? And does the answer stay when the digit moves by a pixel?
#
# **What you'll do:** draw every window of a digit in one picture, make attention read the direction of strokes without
# training it, and compare neighborhoods with blocks, in pictures and in what 797 digits are taken for.
#
# **What you'll need:** [02, meet the edges](02_meet_the_edges.ipynb), and
# [06, stride it and order it](06_stride_and_order_it.ipynb) for stride. scikit-learn brings the digits.

# %%
import torch
from sklearn.datasets import load_digits

from dinat_ref import Neighborhood, na2d, neighborhood_weights

# %% [markdown]
# ## All of attention at once
#
# The ink of a pixel, from 0 to 1, is its query and its key. Ink attends ink; blank paper, with its query of zero,
# attends all alike. 64 queries have 64 maps of 64 weights: the right picture has one tile per pixel, and in each tile
# lies the whole digit, as that pixel sees it.

# %%
dataset = load_digits()
scans = torch.tensor(dataset.images) / 16  # [1797, 8, 8], ink in 0 .. 1
labels = torch.tensor(dataset.target)
three = scans[3]
operand = three[None, ..., None, None]  # [1, 8, 8, heads = 1, 1]
weights = neighborhood_weights(operand, operand, kernel_size=3, scale=4.0)  # [1, 8, 8, 1, 9]
maps = torch.zeros(64, 64, dtype=torch.float64)
maps.scatter_(1, Neighborhood((8, 8), 3).indices(), weights.reshape(64, 9))  # as P in tutorial 05
maps = maps.reshape(8, 8, 8, 8)  # query's row, column; key's
torch.testing.assert_close(maps.sum((2, 3)), torch.ones(8, 8, dtype=torch.float64), rtol=0, atol=1e-12)
assert (maps > 0).sum((2, 3)).unique().tolist() == [9]

# %%
from dinat_ref.viz.attention import draw_photo
from dinat_ref.viz.maps import draw_map
from dinat_ref.viz.theme import INK, QUERY, new_figure, share_legend

figure, grid = new_figure(1, 2, size=(8, 4.2), width_ratios=(1.4, 3))
draw_photo(0.95 - 0.95 * three, grid[0, 0], title=f"a scanned {labels[3]}")
tiles = maps.permute(0, 2, 1, 3).reshape(64, 64)
axes = draw_map(tiles, grid[0, 1], title="what each of its 64 pixels attends", label="weight")
for place in range(8, 64, 8):
    axes.axhline(place - 0.5, color="white", linewidth=0.8, marker="")
    axes.axvline(place - 0.5, color="white", linewidth=0.8, marker="")
own = torch.arange(8).mul(9)  # the query's own place in its tile
axes.scatter(own.repeat(8), own.repeat_interleave(8), s=5, color=QUERY, linewidths=0)
figure

# %% [markdown]
# The orange dots are the queries. Tiles of blank pixels have a flat square of 3 x 3 keys, which wanders from tile to
# tile with its query; only in the first and last row and column the square stays behind, and the query sits on its rim.
# That is the edge shift, 28 times. In the squares of ink lies a piece of the stroke.
#
# ## Which way does it run?
#
# Let the *values* be coordinates. Attention's output is then the mean place of what was attended. Give it squares
# and products of coordinates too, and out come second moments; subtract the square of the mean, and you have the
# spread of the ink in each window, as a 2 x 2 matrix: wide along the stroke, narrow across it. Absolute coordinates go
# in, but only differences are left.
#
# The direction of an axis has no sign, so we write it as the cosine and sine of *twice* its angle, and make them
# shorter where the window has no direction.


# %%
def directions(ink, **window):
    """Which way the ink runs, around each pixel: cosine and sine of twice the angle, [N, X, Y] -> [N, X, Y, 2]."""
    row, column = torch.meshgrid(*[torch.arange(size).double() for size in ink.shape[1:]], indexing="ij")
    moments = torch.stack([row, column, row * row, row * column, column * column], dim=-1)
    value = moments[None, :, :, None].expand(len(ink), -1, -1, -1, -1)  # [N, X, Y, 1, 5]
    operand = ink[..., None, None]
    row, column, row_row, row_column, column_column = na2d(operand, operand, value, scale=4.0, **window).unbind(-1)
    across, along, both = row_row - row * row, column_column - column * column, row_column - row * column
    return torch.cat([along - across, 2 * both], dim=-1) / (along + across)


strokes = torch.zeros(3, 7, 7, dtype=torch.float64)
strokes[0, 3, :] = strokes[1, :, 3] = strokes[2].diagonal()[:] = 1
for name, (cosine, sine) in zip(("level", "upright", "falling"), directions(strokes, kernel_size=3)[:, 3, 3]):
    angle = torch.rad2deg(torch.atan2(sine, cosine) / 2) % 180
    print(f"{name:8} {angle:3.0f} degrees, strength {torch.hypot(cosine, sine):.2f}")
    assert round(angle.item()) == {"level": 0, "upright": 90, "falling": 45}[name]

# %% [markdown]
# The same number without attention, for one pixel of the three: weigh its nine keys, and take their covariance.

# %%
x, y = 4, 4
places = torch.tensor([(i, j) for i in (3, 4, 5) for j in (3, 4, 5)], dtype=torch.float64)
covariance = torch.cov(places.T, aweights=weights[0, x, y, 0], correction=0)
expected = torch.stack([covariance[1, 1] - covariance[0, 0], 2 * covariance[0, 1]]) / covariance.trace()
torch.testing.assert_close(directions(three[None], kernel_size=3)[0, x, y], expected, rtol=1e-12, atol=1e-12)
print("pixel (4, 4):", expected)

# %% [markdown]
# ## Move the digit
#
# We lay the digit on a sheet of 18 x 18, and then again one pixel further right. Below, each ink pixel has a line in
# its direction. Neighborhoods follow the stroke, and when the digit moves, the lines move with it.
#
# Blocked windows, as of the Swin Transformer, are `stride=3` with a kernel of 3: the sheet is cut into blocks of 3 x 3
# that do not move. All that a pixel knows is how its block cuts the stroke, and one pixel further on, it is cut
# differently.


# %%
def lay(scans, right=0):
    """Lay digits on sheets of 18 x 18, some pixels right of the middle."""
    sheets = torch.zeros(len(scans), 18, 18, dtype=scans.dtype)
    sheets[:, 5:13, 5 + right : 13 + right] = scans
    return sheets


def draw_lines(ink, direction, axes):
    """A line in the direction of each pixel that has ink, longer where it is clearer."""
    for x, y in (ink > 0.25).nonzero().tolist():
        cosine, sine = direction[x, y]
        angle, half = torch.atan2(sine, cosine) / 2, torch.hypot(cosine, sine) * 0.55
        ends = half * torch.cos(angle), half * torch.sin(angle)
        axes.plot([y - ends[0], y + ends[0]], [x - ends[1], x + ends[1]], color=QUERY, linewidth=2.2, marker="")


windows = {"neighborhoods": {"kernel_size": 3}, "blocks": {"kernel_size": 3, "stride": 3}}
figure, grid = new_figure(2, 2, size=(8, 7.2))
for axes_of_row, (name, window) in zip(grid, windows.items()):
    for axes, right in zip(axes_of_row, (0, 1)):
        sheet = lay(scans[3:4], right)
        draw_photo(0.95 - 0.45 * sheet[0], axes, title=name + (", one pixel further right" if right else ""))
        axes.set(xlim=(3.5, 14.5), ylim=(13.5, 4.5))
        draw_lines(sheet[0], directions(sheet, **window)[0], axes)
        if name == "blocks":
            for edge in range(6, 15, 3):
                axes.axvline(edge - 0.5, color=INK, linewidth=0.7, linestyle=":", marker="")
                axes.axhline(edge - 0.5, color=INK, linewidth=0.7, linestyle=":", marker="")
figure

# %% [markdown]
# For all 1797 digits: how far do the lines turn when the digit moves? In neighborhoods, not at all. That is
# *translation equivariance*: first move, then attend, or the other way round.

# %%
for name, window in windows.items():
    before, after = directions(lay(scans), **window), directions(lay(scans, right=1), **window)
    cosine = torch.nn.functional.cosine_similarity(before[:, :, :-1], after[:, :, 1:], dim=-1).clamp(-1, 1)
    turn = torch.rad2deg(torch.acos(cosine) / 2)[lay(scans)[:, :, :-1] > 0.25]
    share = (turn > 10).double().mean()
    print(f"{name:13} turn by {turn.mean():4.1f} degrees on average, {100 * share:2.0f} % by more than 10")
    if name == "neighborhoods":
        torch.testing.assert_close(before[:, 1:-1, 1:-2], after[:, 1:-1, 2:-1], rtol=0, atol=1e-10)
    else:
        assert turn.mean() > 10

# %% [markdown]
# Near an edge even neighborhoods do not keep this promise, since windows are shifted there. Scans that fill their 8 x 8
# pixels show it: against the same digit on a large sheet, only outermost pixels differ.

# %%
tight, wide = directions(scans, kernel_size=3), directions(lay(scans), kernel_size=3)[:, 5:13, 5:13]
difference = (tight - wide).abs().amax((0, 3))  # [8, 8], the largest of all digits
assert difference[1:-1, 1:-1].max() < 1e-10
print((difference > 1e-10).int())

# %% [markdown]
# ## Does the answer stay?
#
# Take each digit for what the most similar of 1000 others is. Similar in what? In the directions near each of nine
# places around the centre of its ink. They are the only thing we compare. The 1000 stay in the middle of their sheets;
# the 797 that are asked about move to the right.


# %%
def describe(ink, direction):
    """Directions around the middle of the ink, summed in nine soft places: [N, X, Y], [N, X, Y, 2] -> [N, 18]."""
    places = torch.cartesian_prod(torch.arange(18).double(), torch.arange(18).double())  # [324, 2]
    amount = ink.flatten(1)  # [N, 324]
    middle = amount @ places / amount.sum(1, keepdim=True)  # [N, 2]
    offsets = torch.cartesian_prod(*[torch.tensor([-2.0, 0, 2]).double()] * 2)  # [9, 2]
    distance = (places[None, :, None] - middle[:, None, None] - offsets).square().sum(-1)  # [N, 324, 9]
    near = torch.exp(-distance / 4.5)
    summary = torch.einsum("np,npo,npd->nod", amount, near, direction.flatten(1, 2)).flatten(1)
    return torch.nn.functional.normalize(summary)


def answers(known, asked):
    """The label of the nearest of the first 1000, for each of the others."""
    return labels[:1000][torch.cdist(asked[1000:], known[:1000]).argmin(1)]


moves = range(5)
correct = {"the pixels themselves": [], "directions in neighborhoods": [], "directions in blocks": []}
seen = {
    "the pixels themselves": lambda ink: ink.flatten(1),
    "directions in neighborhoods": lambda ink: describe(ink, directions(ink, kernel_size=3)),
    "directions in blocks": lambda ink: describe(ink, directions(ink, kernel_size=3, stride=3)),
}
for name, see in seen.items():
    known = see(lay(scans))
    given = [answers(known, see(lay(scans, right=right))) for right in moves]
    correct[name] = [100 * (answer == labels[1000:]).double().mean().item() for answer in given]
    print(f"{name:28}", [f"{percent:.1f} %" for percent in correct[name]])
    if name == "directions in neighborhoods":
        assert all((answer == given[0]).all() for answer in given)

# %%
figure, grid = new_figure(1, 1, size=(6.5, 3.6))
for name, percent in correct.items():
    grid[0, 0].plot(moves, percent, label=name)
grid[0, 0].set(xlabel="pixels that the digit has moved", ylabel="correct, in %", ylim=(0, 100), xticks=moves)
grid[0, 0].axhline(10, color=INK, linewidth=0.8, linestyle=":", marker="", label="guessing")
share_legend(figure, grid[0, 0].get_lines(), columns=2)
figure

# %% [markdown]
# Nothing beats the pixels themselves, as long as nothing moves. One pixel further they are wrong two times in five, and
# after three they are guessing.
#
# Neighborhoods give *the same answer* to every digit, wherever it lies. That is not a merit of the nine places, which
# move along with the ink for the blocks as well: there a single pixel costs more than half of the right answers. Three
# pixels further the blocks cut the digit as before, and all is well again. Their grid is what matters, and no
# photographer aligns the world to it.

# %%
pixels, neighborhoods, blocks = correct.values()
assert pixels[0] > neighborhoods[0] > blocks[0]
assert pixels[1] < 60
assert pixels[3] < 15
assert blocks[1] < blocks[0] / 2
assert abs(blocks[3] - blocks[0]) < 0.2

# %% [markdown]
# ## On your own
#
# * Move the digits down, or down and right, and compare.
#
# <details><summary>Solution</summary>
#
# Nothing new: neighborhoods turn nothing in any direction, and blocks do.
#
# ```python
# def lay_lower(scans, down, right=0):
#     sheets = torch.zeros(len(scans), 18, 18, dtype=scans.dtype)
#     sheets[:, 5 + down : 13 + down, 5 + right : 13 + right] = scans
#     return sheets
#
# some = scans[:200]
# for down, right in ((1, 0), (1, 1)):
#     for name, window in windows.items():
#         before = directions(lay_lower(some, 0), **window)[:, 5:13, 5:13]
#         after = directions(lay_lower(some, down, right), **window)[:, 5 + down : 13 + down, 5 + right : 13 + right]
#         turned = (before - after).abs().amax()
#         assert (turned < 1e-10) == (name == "neighborhoods")
# ```
#
# </details>
#
# * Try `kernel_size=7`, without moving the digits. Why does a larger window do worse in so small a digit?
#
# <details><summary>Solution</summary>
#
# A window of 7 pixels holds most of a digit of 8: it says which way the digit runs, and not which way the stroke runs
# here.
#
# ```python
# asked = {}
# for kernel_size in (3, 7):
#     described = describe(lay(scans), directions(lay(scans), kernel_size=kernel_size))
#     asked[kernel_size] = 100 * (answers(described, described) == labels[1000:]).double().mean().item()
#     print(f"kernel {kernel_size}: {asked[kernel_size]:.1f} % correct")
# assert asked[3] > asked[7] + 10
# ```
#
# </details>
#
# * Blocks of another size have another period. Predict the curve of `kernel_size=2, stride=2`, then compute it.
#
# <details><summary>Solution</summary>
#
# The period is two: every other pixel the digit is cut as it was.
#
# ```python
# def curve(moves=(0, 1, 2), **window):
#     see = lambda ink: describe(ink, directions(ink, **window))
#     known = see(lay(scans))
#     return [(answers(known, see(lay(scans, right=right))) == labels[1000:]).double().mean().item() for right in moves]
#
# of_two = curve(kernel_size=2, stride=2)
# print([f"{100 * share:.1f} %" for share in of_two])
# assert abs(of_two[2] - of_two[0]) < 0.01
# assert of_two[1] < of_two[0] - 0.1
# ```
#
# </details>
#
# * Between blocks and neighborhoods lies `kernel_size=3, stride=2`. What should its curve look like?
#
# <details><summary>Solution</summary>
#
# Pairs of pixels share a window, so the period is two again; but the windows overlap, and a move of one pixel costs
# less than with blocks.
#
# ```python
# def share_correct(right, **window):
#     known = describe(lay(scans), directions(lay(scans), **window))
#     moved = lay(scans, right=right)
#     return (answers(known, describe(moved, directions(moved, **window))) == labels[1000:]).double().mean().item()
#
# between = [share_correct(right, kernel_size=3, stride=2) for right in (0, 1, 2)]
# print([f"{100 * share:.1f} %" for share in between])
# assert abs(between[2] - between[0]) < 0.01
# assert 0.6 < between[1] < between[0]
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani et al., *Neighborhood Attention Transformer*, [arXiv:2204.07143](https://arxiv.org/abs/2204.07143), on
#   equivariance and its price.
# * Liu et al., *Swin Transformer*, [arXiv:2103.14030](https://arxiv.org/abs/2103.14030): blocks, and how shifting them
#   in every other layer helps.
# * Dalal & Triggs, *Histograms of oriented gradients for human detection*, CVPR 2005: directions as features, before
#   networks learned them.
# * Next: [17, step through it](17_step_through_it.ipynb).

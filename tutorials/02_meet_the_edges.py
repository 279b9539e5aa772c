# %% [markdown]
# # 02 · Meet the edges
#
# In the middle of a picture everybody agrees what a window is. At the edge there are at least four opinions, and most
# bugs of neighborhood attention live where they differ.
#
# **What you'll do:** compare the four answers, see what each does to a plain grey picture, and measure what the right
# one costs.
#
# **What you'll need:** [01, draw a window](01_draw_a_window.ipynb).

# %%
import torch

from dinat_ref import Neighborhood, na1d, na2d, window

# %% [markdown]
# ## Four answers to one question
#
# Query 0 of an axis of 7 tokens wants two neighbors on each side, -2 -1 **0** 1 2. Two of them do not exist.

# %%
length, kernel_size = 7, 5
wanted = list(range(0 - 2, 0 + 3))
answers = {
    "pad: keep them, as zeros": [j if 0 <= j < length else None for j in wanted],
    "clip: leave them out": [j for j in wanted if 0 <= j < length],
    "wrap: take them from the other end": [j % length for j in wanted],
    "shift: take the nearest that exist": list(window(0, length, kernel_size)),
}
for answer, keys in answers.items():
    print(f"{answer:36} {keys}")

# %% [markdown]
# Neighborhood attention shifts. Two properties speak for it. Every query has the same number of keys, so edge queries
# are no poorer than others. And nothing is invented: all keys are real tokens, and near ones.
#
# ## What padding does to a grey picture
#
# Attention is a weighted *mean*. The mean of equal numbers is that number, so a grey picture must stay grey. Padding
# adds keys that are not there: a padded key is a zero vector, its score is 0, and exp(0) = 1 takes a full share of
# the weight.

# %%
grey = torch.full((1, 7, 1, 1), 0.5)
zeros = torch.zeros_like(grey)
padded = torch.nn.functional.pad(grey[0, :, 0, 0], (2, 2)).unfold(0, 5, 1).mean(1)
print("padded ", [round(number, 2) for number in padded.tolist()])
print("shifted", [round(number, 2) for number in na1d(zeros, zeros, grey, kernel_size=5).flatten().tolist()])
torch.testing.assert_close(na1d(zeros, zeros, grey, kernel_size=5), grey, rtol=1e-6, atol=1e-6)
assert padded[0] < 0.5

# %% [markdown]
# The padded picture gets a dark frame. A test with constant values finds this bug in one line; that is why *constant
# V comes back constant* is the first law in this project's tests.
#
# ## Three windows
#
# The dashed outline is where the window would lie without the edge, the arrow is the shift. In the corner both axes
# shift.

# %%
from dinat_ref.viz.theme import new_figure, share_legend
from dinat_ref.viz.windows import draw_window, window_legend

neighborhood = Neighborhood((12, 12), kernel_size=5)
tokens = [(6, 6), (0, 6), (1, 11)]
figure, grid = new_figure(1, 3, size=(8.5, 3.8))
for axes, token in zip(grid.flat, tokens):
    draw_window(neighborhood, token, axes, view=((-2, 12), (0, 14)), legend=False)
share_legend(figure, window_legend([neighborhood] * 3, tokens))

shifts = [tuple(window(i, 12, 5)[0] - (i - 2) for i in token) for token in tokens]  # first key, less the wanted one
print(dict(zip(tokens, shifts)))
assert shifts == [(0, 0), (2, 0), (1, -2)]
figure

# %% [markdown]
# ## Neighbors at the edge share a window
#
# The first three queries of a row all attend columns 0 to 4. With zero queries they give the same mean, and you can
# read the shift off the output. This five-number example is worth remembering; if your own kernel prints `1 1 2 3 3`,
# its edges are right.

# %%
x = torch.arange(5.0).reshape(1, 5, 1, 1)
means = na1d(torch.zeros_like(x), x, x, kernel_size=3).flatten()
print(means)
torch.testing.assert_close(means, torch.tensor([1.0, 1.0, 2.0, 3.0, 3.0]), rtol=1e-6, atol=1e-6)

# %% [markdown]
# ## The bias table has a rim for them
#
# Models add a learned number to every score, by the *offset* between query and key: the relative positional bias. In
# the middle, offsets run from -2 to 2. The first query sees offsets 0 to 4, the last -4 to 0. So the table needs 2k - 1
# = 9 entries per axis, and its rim is read by edge queries only.

# %%
offsets = torch.tensor([[j - i for j in window(i, 7, 5)] for i in range(7)])
print(offsets)
assert offsets.min() == -4
assert offsets.max() == 4
assert offsets[3].tolist() == [-2, -1, 0, 1, 2]

# %% [markdown]
# ## What it costs
#
# Shifting is not free. Tokens near an edge see another window than the same tokens would inside a larger picture.
# Take two crops of one picture: of 48 tokens that both contain, 3 at each end attend something else. The other 87.5 %
# do not notice, wherever the crop begins. (Windows that tile the picture, as Swin's do, keep *none* unless the shift
# happens to fit.)

# %%
for distance in (1, 5, 8, 16):
    length = 48 + distance  # of each crop; token i of the second is token i + distance of the first
    first = [window(i + distance, length, 7) for i in range(48)]
    second = [range(keys.start + distance, keys.stop + distance) for keys in (window(i, length, 7) for i in range(48))]
    share = sum(a == b for a, b in zip(first, second)) / 48
    print(f"crops {distance:2} tokens apart: {100 * share:.1f} % of the shared tokens see the same window")
    assert share == 42 / 48

# %% [markdown]
# And attention is no longer fair. Every query gives 25 looks, but who receives them? The corner is attended by 9
# queries, a token four steps from two edges by 49: it belongs to all those shifted windows.

# %%
from dinat_ref.viz.inverse import draw_attention_counts

figure, grid = new_figure(1, 1, size=(5.5, 4.2))
draw_attention_counts(neighborhood, grid[0, 0])
counts = neighborhood.mask().sum(0)  # a row of the mask is a query, a column a key
print("fewest", counts.min().item(), "most", counts.max().item(), "mean", counts.float().mean().item())
assert (counts.min(), counts.max(), counts.sum()) == (9, 49, 25 * 144)
figure

# %% [markdown]
# One edge case is left: a layout smaller than the kernel. There is nothing to shift to, so that is an error, and the
# message says which axis it is.

# %%
try:
    na2d(torch.zeros(1, 4, 6, 1, 1), torch.zeros(1, 4, 6, 1, 1), torch.zeros(1, 4, 6, 1, 1), kernel_size=5)
except ValueError as error:
    print(error)

# %% [markdown]
# ## On your own
#
# * The picture of counts is symmetric. Is it with `kernel_size=4`?
#
# <details><summary>Solution</summary>
#
# No. An even window leans left, so the left edge shifts two windows and the right edge only one.
#
# ```python
# odd, even = (Neighborhood((12, 12), kernel_size=k).mask().sum(0).reshape(12, 12) for k in (5, 4))
# assert (odd == odd.flip(0)).all()
# assert not (even == even.flip(0)).all()
# assert [window(i, 12, 4).start for i in (0, 1, 2, 3)] == [0, 0, 0, 1]
# assert [window(i, 12, 4).start for i in (9, 10, 11)] == [7, 8, 8]
# ```
#
# </details>
#
# * What would the other three answers have done with a layout that is too small for the kernel?
#
# <details><summary>Solution</summary>
#
# Each would have gone on without a word. Padding has more zeros than tokens in some windows, clipping a window of 4 in
# place of 5, and wrapping attends one token twice.
#
# ```python
# length, wanted = 4, [-2, -1, 0, 1, 2]
# padded = [j if 0 <= j < length else None for j in wanted]
# assert padded == [None, None, 0, 1, 2]
# wrapped = [j % length for j in wanted]
# assert len(set(wrapped)) == 4 < len(wrapped)
# ```
#
# </details>
#
# * Draw `Neighborhood((12, 12), 5, is_causal=True)` at `(0, 6)`. Causal windows are an exception to "never cut". Why
#   must they be?
#
# <details><summary>Solution</summary>
#
# A causal window must not hold tokens that come after the query, and shifting moves it just there.
#
# ```python
# causal = Neighborhood((12, 12), 5, is_causal=True)
# draw_window(causal, (0, 6), new_figure()[1][0, 0])
# assert causal.neighbors((0, 6)) == [(0, column) for column in (2, 3, 4, 5, 6)]
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani et al., [arXiv:2204.07143](https://arxiv.org/abs/2204.07143), section 3.1 and figure 3.
# * Next: [03, dilate it](03_dilate_it.ipynb).

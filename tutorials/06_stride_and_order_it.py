# %% [markdown]
# # 06 · Stride it and order it
#
# So far a window was centred, odd, and two-dimensional. Neighborhood attention has more settings than that, and each
# is a small change of one line in `window.py`.
#
# **What you'll do:** let queries share windows, forbid them to look ahead, lean even windows to the left, and move to
# sequences and video.
#
# **What you'll need:** [03, dilate it](03_dilate_it.ipynb).

# %%
import torch

from dinat_ref import Neighborhood, na1d, na3d, window
from dinat_ref.window import leader, picture

# %% [markdown]
# ## The family in ten pictures
#
# One row per query, one column per key. Everything on this page is somewhere in here; look back when you are lost.

# %%
from dinat_ref.viz.atlas import draw_pattern, pattern_legend, patterns
from dinat_ref.viz.theme import new_figure, share_legend

figure, grid = new_figure(2, 5, size=(9.5, 4.6))
for axes, (name, layer) in zip(grid.flat, patterns().items()):
    draw_pattern(layer, axes, name)
share_legend(figure, pattern_legend())
figure

# %% [markdown]
# ## Even windows lean left
#
# An even number of keys cannot be centred. Here k/2 of them lie before the query and k/2 - 1 after it. Ports that
# forget this use the odd formula, and then some queries do not even see themselves.

# %%
print(picture(8, 4))
assert [window(i, 8, 4).start for i in range(8)] == [0, 0, 0, 1, 2, 3, 4, 4]

# %% [markdown]
# ## Stride: queries that share a window
#
# With `stride=3`, three consecutive queries use the window of one of them, their *leader*. Nothing is downsampled: the
# output has as many tokens as the input. The point is speed, since queries that share keys are one dense matrix
# product.

# %%
print(picture(9, 5, stride=3))
print("leaders", [leader(i, 9, stride=3) for i in range(9)])

from dinat_ref.viz.windows import draw_window, window_legend

figure, grid = new_figure(1, 2, size=(7.5, 4.4))
strided = Neighborhood((12, 12), 5, stride=3)
for axes, token in zip(grid.flat, [(3, 6), (5, 8)]):
    draw_window(strided, token, axes, legend=False)
share_legend(figure, window_legend([strided], [(3, 6)]), columns=2)
assert strided.neighbors((3, 6)) == strided.neighbors((5, 8))
figure

# %% [markdown]
# The orange frame holds the nine queries that share this window, the same one in both drawings.
#
# Turn the stride up to the kernel size and windows no longer overlap: that is *blocked* (or window) attention, Swin's
# layer. So one argument leads from neighborhood attention to window attention.

# %%
generator = torch.Generator().manual_seed(6)
query, key, value = torch.randn(3, 1, 12, 1, 8, generator=generator, dtype=torch.float64)
strided = na1d(query, key, value, kernel_size=4, stride=4)
blocks = [tensor.unflatten(1, (3, 4)).flatten(0, 1).transpose(1, 2) for tensor in (query, key, value)]  # [3, 1, 4, 8]
blocked = torch.nn.functional.scaled_dot_product_attention(*blocks)
torch.testing.assert_close(strided, blocked.transpose(1, 2).reshape(1, 12, 1, 8), rtol=1e-12, atol=1e-12)
print("stride = kernel_size = 4: blocks of 4")

# %% [markdown]
# ## Causality: not looking ahead
#
# For sequences that are generated one token after the other. The window ends at the query; before it there may be
# fewer than k tokens, so a causal window is the one kind that is *cut* at an edge. Shifting it would mean looking
# into the future.

# %%
print(picture(7, 3, is_causal=True))
assert [len(window(i, 7, 3, is_causal=True)) for i in range(7)] == [1, 2, 3, 3, 3, 3, 3]

# %% [markdown]
# What makes causality useful is the *prefix law*: appending tokens never changes what was computed before. A
# generator can keep its past.

# %%
long = na1d(query, key, value, kernel_size=5, is_causal=True)
for length in (5, 8, 11):
    short = na1d(query[:, :length], key[:, :length], value[:, :length], kernel_size=5, is_causal=True)
    torch.testing.assert_close(short, long[:, :length], rtol=1e-12, atol=1e-12)

shifted = na1d(query, key, value, kernel_size=5)
short = na1d(query[:, :8], key[:, :8], value[:, :8], kernel_size=5)
changed = (short - shifted[:, :8]).abs().amax((0, 2, 3)) > 1e-12
print("without causality, appending tokens changes", changed.nonzero().flatten().tolist())
assert changed.tolist() == [False] * 6 + [True] * 2

# %% [markdown]
# ## Axes of different kinds: video
#
# All settings are given per axis. A video has time, rows and columns; time should be causal, space should not. Here
# each pixel attends the last 2 frames and 3 x 5 pixels around it. Changing a later frame must not change an earlier
# output.

# %%
video = torch.randn(
    1, 4, 6, 7, 2, 8, generator=generator, dtype=torch.float64
)  # frames, rows, columns, heads, head_dim
settings = {"kernel_size": (2, 3, 5), "is_causal": (True, False, False)}
output = na3d(video, video, video, **settings)
later = video.clone()
later[:, 2] += 1
difference = (na3d(later, later, later, **settings) - output).abs().amax((0, 2, 3, 4, 5))
print("frames that change when frame 2 does:", (difference > 1e-12).nonzero().flatten().tolist())
assert (difference > 1e-12).tolist() == [False, False, True, True]

# %% [markdown]
# ## Everything at once
#
# Kernel, dilation, stride and causality combine freely, and in the same order: an axis splits into dilation groups,
# the tokens of a group into stride groups, and each stride group has a leader.

# %%
print(picture(12, 3, stride=2, dilation=2, is_causal=True))
assert list(window(6, 12, 3, stride=2, dilation=2, is_causal=True)) == [2, 4, 6]

# %% [markdown]
# ## On your own
#
# * Mirror an axis (`i` becomes `length - 1 - i`). For which kernel sizes and strides are the windows mirrored, too?
#   Start with `picture(7, 3)`.
#
# <details><summary>Solution</summary>
#
# For odd kernels with stride 1; and for odd strides that divide the length. An even kernel leans to one side, and an
# even stride has its leader on one side.
#
# ```python
# def is_mirrored(length, kernel_size, stride):
#     windows = [set(window(i, length, kernel_size, stride)) for i in range(length)]
#     return all(windows[length - 1 - i] == {length - 1 - j for j in windows[i]} for i in range(length))
#
# assert all(is_mirrored(length, 3, 1) for length in range(3, 12))
# assert not is_mirrored(7, 4, 1)
# assert is_mirrored(9, 5, 3)
# assert not is_mirrored(10, 5, 3)
# assert not is_mirrored(9, 5, 2)
# ```
#
# </details>
#
# * Causal with a stride: read the rows of `picture(9, 4, stride=3, is_causal=True)`. Why do three queries share their
#   window's *start*, but not its end?
#
# <details><summary>Solution</summary>
#
# The leader sets the start for all three. The end is the query itself: to share it would be to look ahead.
#
# ```python
# rows = [window(i, 9, 4, stride=3, is_causal=True) for i in range(9)]
# assert [row.start for row in rows[3:6]] == [2, 2, 2]
# assert [row[-1] for row in rows] == list(range(9))
# ```
#
# </details>
#
# * Axial attention looks along one axis only. Which kernel size per axis gives you that?
#
# <details><summary>Solution</summary>
#
# 1 on the one, and the whole length on the other: `(1, Y)` attends a row, `(X, 1)` a column.
#
# ```python
# along_rows = Neighborhood((4, 6), kernel_size=(1, 6))
# assert all(along_rows.neighbors((i, j)) == [(i, column) for column in range(6)] for i, j in along_rows.tokens())
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani et al., *Generalized Neighborhood Attention*, [arXiv:2504.16922](https://arxiv.org/abs/2504.16922): strides
#   and why GPUs like them.
# * Liu et al., *Swin Transformer*, [arXiv:2103.14030](https://arxiv.org/abs/2103.14030): blocks, shifted from layer to
#   layer.
# * Next: [07, denoise a photo](07_denoise_a_photo.ipynb).

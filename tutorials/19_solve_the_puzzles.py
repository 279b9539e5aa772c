# %% [markdown]
# # 19 · Solve the puzzles
#
# Eight functions to write, each a few lines, that together are neighborhood attention. A check tries yours on every
# small case, and draws the first that fails: what was wanted, and what came.
#
# **What you'll do:** write a window, its leader, its dilation group and its inverse; attend in four lines; and repair
# three kernels that look right.
#
# **What you'll need:** [03, dilate it](03_dilate_it.ipynb) for puzzles 1 to 3, [05, follow the
# gradients](05_follow_the_gradients.ipynb) for the rest. Open this page as a notebook: change the stubs, and run their
# cells again. Solutions are at the end, folded away.

# %%
import torch

from dinat_ref import Neighborhood, window

# %% [markdown]
# ## Puzzle 1: write `window`
#
# An axis has `length` tokens. Which positions does query `i` attend? There are always `kernel_size` of them, around the
# query; an even window has one more on the left; and at an edge the window is shifted, not cut. One line is enough.
#
# In the drawing an orange dot is the query, and blue is attended.

# %%
from dinat_ref.viz.puzzles import check_window


def my_window(i, length, kernel_size):
    return [i]  # your turn


check_window(my_window)

# %% [markdown]
# ## Puzzle 2: the causal leader
#
# Of `n` queries, `stride` share a window: 0, 1, 2 and 3, 4, 5 and so on for a stride of 3. With causality it is the
# window of the *last* of them, the leader. The last group may be incomplete: then its leader is the last query there
# is.

# %%
from dinat_ref.viz.puzzles import check_causal_leader


def my_causal_leader(m, n, stride):
    return m  # your turn


check_causal_leader(my_causal_leader)

# %% [markdown]
# ## Puzzle 3: the dilation group
#
# With a dilation of 3, position 4 belongs to the group 1, 4, 7, ... List all positions of the group of `i`.

# %%
from dinat_ref.viz.puzzles import check_group


def my_group(i, length, dilation):
    return range(i, length, dilation)  # your turn


check_group(my_group)

# %% [markdown]
# ## Puzzle 4: gather, in four lines
#
# Row n of `indices` holds the K numbers of query n's keys. Look up the keys, make scores (the dot products, times
# `D ** -0.5`), make weights, and add up the values. The stub takes the plain mean.
#
# The drawing shows the weights of one query, over a layout of two axes.

# %%
from dinat_ref.viz.puzzles import check_gather


def my_attention(query, key, value, indices):  # [N, D], [N, D], [N, Dv], [N, K] -> [N, Dv]
    return value[indices].mean(1)  # your turn


check_gather(my_attention)

# %% [markdown]
# ## Puzzle 5: the inverse window
#
# Who attends key `j`? In the middle of an axis it is `j`'s own window, turned round. At an edge it is not. You may call
# `window(i, length, kernel_size)`; if you like it hard, do without.

# %%
from dinat_ref.viz.puzzles import check_attended_by


def my_attended_by(j, length, kernel_size):
    return window(j, length, kernel_size)  # your turn


check_attended_by(my_attended_by)

# %% [markdown]
# ## Puzzle 6: a mask that comes too late
#
# Three kernels follow, each with one mistake that was really made. This one computes all scores, and strikes out what
# is not a neighbor. Look at the sum of the weights.

# %%
from dinat_ref.viz.puzzles import check_attention


def masked_late(query, key, value, kernel_size, dilation):  # [X, Y, D], [X, Y, D], [X, Y, Dv] -> [X, Y, Dv]
    mask = Neighborhood(query.shape[:2], kernel_size, dilation=dilation).mask()  # [N, N]
    scores = query.flatten(0, 1) @ key.flatten(0, 1).T * query.shape[-1] ** -0.5
    weights = scores.softmax(-1) * mask  # mend me
    return (weights @ value.flatten(0, 1)).unflatten(0, query.shape[:2])


check_attention(masked_late)

# %% [markdown]
# ## Puzzle 7: right on a square
#
# A table of indices, made by hand. On square layouts it is right.


# %%
def mixed_up(query, key, value, kernel_size, dilation):
    layout = query.shape[:2]
    rows, columns = [
        torch.tensor([list(window(i, length, kernel_size, dilation=dilation)) for i in range(length)])
        for length in layout
    ]  # [X, k], [Y, k]
    indices = rows[:, None, :, None] * layout[0] + columns[None, :, None, :]  # [X, Y, k, k], mend me
    indices = indices.flatten(0, 1).flatten(1)  # [N, K]
    return reference(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), indices, layout)


def reference(query, key, value, indices, layout):
    scores = (query[:, None] * key[indices]).sum(-1) * query.shape[-1] ** -0.5
    return (scores.softmax(-1)[..., None] * value[indices]).sum(1).unflatten(0, layout)


check_attention(mixed_up)

# %% [markdown]
# ## Puzzle 8: pulled apart, and put back wrong
#
# Dilation by sub-grids, as in tutorial 04: each group is attended by itself, without dilation. All the numbers are
# right, but some are not in their place.


# %%
def put_back_wrong(query, key, value, kernel_size, dilation):
    outputs = []
    for g in range(dilation):
        for h in range(dilation):
            group = [tensor[g::dilation, h::dilation] for tensor in (query, key, value)]
            layout = group[0].shape[:2]
            indices = Neighborhood(layout, kernel_size).indices()
            outputs.append(reference(*[tensor.flatten(0, 1) for tensor in group], indices, layout))
    return torch.cat([output.flatten(0, 1) for output in outputs]).unflatten(0, query.shape[:2])  # mend me


check_attention(put_back_wrong)

# %% [markdown]
# ## Are the checks fair?
#
# They must accept the package's own functions, and a check that accepts everything would be no help: a window that is
# right in the middle and cut at the edges must not pass.

# %%
assert check_window(window).solved
assert not check_window(lambda i, length, k: range(max(i - k // 2, 0), min(i - k // 2 + k, length))).solved
assert check_attended_by(lambda j, length, k: Neighborhood((length,), k).attended_by((j,))).solved
print(check_window(window))

# %% [markdown]
# ## On your own
#
# * Puzzle 1: `window`.
#
# <details><summary>Solution</summary>
#
# Begin half a window before the query, and no further left than 0, and no further right than where the window still
# fits.
#
# ```python
# def my_window(i, length, kernel_size):
#     start = min(max(i - kernel_size // 2, 0), length - kernel_size)
#     return range(start, start + kernel_size)
#
# assert check_window(my_window).solved
# ```
#
# </details>
#
# * Puzzle 2: the causal leader.
#
# <details><summary>Solution</summary>
#
# `m // stride * stride` is the first query of the group.
#
# ```python
# def my_causal_leader(m, n, stride):
#     return min(m // stride * stride + stride - 1, n - 1)
#
# assert check_causal_leader(my_causal_leader).solved
# ```
#
# </details>
#
# * Puzzle 3: the dilation group.
#
# <details><summary>Solution</summary>
#
# The group begins at the remainder, not at `i`.
#
# ```python
# def my_group(i, length, dilation):
#     return range(i % dilation, length, dilation)
#
# assert check_group(my_group).solved
# ```
#
# </details>
#
# * Puzzle 4: gather, in four lines.
#
# <details><summary>Solution</summary>
#
# A row of `key[indices]` holds the keys of one query, side by side.
#
# ```python
# def my_attention(query, key, value, indices):
#     keys, values = key[indices], value[indices]  # [N, K, D], [N, K, Dv]
#     scores = torch.einsum("nd,nkd->nk", query, keys) * query.shape[-1] ** -0.5
#     weights = scores.softmax(-1)
#     return torch.einsum("nk,nkd->nd", weights, values)
#
# assert check_gather(my_attention).solved
# ```
#
# </details>
#
# * Puzzle 5: the inverse window.
#
# <details><summary>Solution</summary>
#
# Ask every query. Without `window`: it is the window turned round, from `j - k + 1 + k // 2` to `j + k // 2`; but
# queries near an edge attend whatever the first or the last window holds.
#
# ```python
# def my_attended_by(j, length, kernel_size):
#     return [i for i in range(length) if j in window(i, length, kernel_size)]
#
# assert check_attended_by(my_attended_by).solved
#
#
# def without_window(j, length, kernel_size):
#     first = 0 if j < kernel_size else j - kernel_size + 1 + kernel_size // 2
#     last = length - 1 if j >= length - kernel_size else j + kernel_size // 2
#     return range(first, last + 1)
#
# assert check_attended_by(without_window).solved
# ```
#
# </details>
#
# * Puzzle 6: a mask that comes too late.
#
# <details><summary>Solution</summary>
#
# After softmax, the others have had their share already. The mask belongs before it.
#
# ```python
# def masked_in_time(query, key, value, kernel_size, dilation):
#     mask = Neighborhood(query.shape[:2], kernel_size, dilation=dilation).mask()
#     scores = query.flatten(0, 1) @ key.flatten(0, 1).T * query.shape[-1] ** -0.5
#     weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
#     return (weights @ value.flatten(0, 1)).unflatten(0, query.shape[:2])
#
# assert check_attention(masked_in_time).solved
# ```
#
# </details>
#
# * Puzzle 7: right on a square.
#
# <details><summary>Solution</summary>
#
# The number of a token is its row times the number of *columns*, plus its column.
#
# ```python
# def sorted_out(query, key, value, kernel_size, dilation):
#     layout = query.shape[:2]
#     rows, columns = [
#         torch.tensor([list(window(i, length, kernel_size, dilation=dilation)) for i in range(length)])
#         for length in layout
#     ]
#     indices = rows[:, None, :, None] * layout[1] + columns[None, :, None, :]
#     indices = indices.flatten(0, 1).flatten(1)  # [N, K]
#     return reference(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), indices, layout)
#
# assert check_attention(sorted_out).solved
# ```
#
# </details>
#
# * Puzzle 8: pulled apart, and put back wrong.
#
# <details><summary>Solution</summary>
#
# The outputs lie group after group. Each belongs where its group was taken from.
#
# ```python
# def put_back_right(query, key, value, kernel_size, dilation):
#     output = torch.empty(*query.shape[:2], value.shape[-1], dtype=value.dtype)
#     for g in range(dilation):
#         for h in range(dilation):
#             group = [tensor[g::dilation, h::dilation] for tensor in (query, key, value)]
#             layout = group[0].shape[:2]
#             indices = Neighborhood(layout, kernel_size).indices()
#             output[g::dilation, h::dilation] = reference(*[t.flatten(0, 1) for t in group], indices, layout)
#     return output
#
# assert check_attention(put_back_right).solved
# ```
#
# </details>
#
# ## Further reading
#
# * Rush, *Tensor Puzzles*: sixteen functions of a tensor library, each in one line; where the idea of this page is
#   from.
# * Hassani et al., *Neighborhood Attention Transformer*, [arXiv:2204.07143](https://arxiv.org/abs/2204.07143), and its
#   successors: what you have written.
# * Next: [20, split a picture](20_split_a_picture.ipynb).

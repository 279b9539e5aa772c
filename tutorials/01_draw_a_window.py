# %% [markdown]
# # 01 · Draw a window
#
# Self attention lets every token look at every other one. Neighborhood attention lets it look at the tokens around
# it: a *window*. This tutorial is about that one word.
#
# **What you'll do:** write down the window of a token on one axis, put two axes together, and see what attention
# makes of it.
#
# **What you'll need:** `pip install dinat-ref`, and what a dot product is.

# %%
import torch

from dinat_ref import Neighborhood, na2d, neighborhood_weights, window

# %% [markdown]
# ## One axis
#
# Nine tokens stand in a row. The query at position 4, with `kernel_size=3`, attends itself and one neighbor on each
# side. A window is a Python `range`, and `window.py` is the only place in this package that knows how to make one.

# %%
print(window(4, length=9, kernel_size=3), "=", list(window(4, length=9, kernel_size=3)))

# %% [markdown]
# Drawn, with two more queries below it. Position 0 has no left neighbor, so its window is *shifted* to the right: the
# dashed outline is where it would lie if the axis went on. It is not cut.

# %%
from dinat_ref.viz.theme import new_figure, share_legend
from dinat_ref.viz.windows import draw_window, window_legend

row = Neighborhood((9,), kernel_size=3)
figure, grid = new_figure(3, 1, size=(6, 2.8))
for axes, i in zip(grid.flat, (4, 1, 0)):
    keys = ", ".join(str(j) for j in window(i, length=9, kernel_size=3))
    draw_window(row, (i,), axes, view=((0, 1), (-1, 9)), title=f"query {i} attends {keys}", legend=False)
share_legend(figure, window_legend([row], [(0,)]), columns=4)
figure

# %% [markdown]
# All queries at once, a row each, in plain text: `Q` is the query, `#` a key that it attends.

# %%
from dinat_ref.window import picture

print(picture(9, 3))

# %% [markdown]
# Every query attends exactly three keys, wherever it stands. That is a claim, and a claim can be checked for every axis
# up to 16 tokens.

# %%
checked = 0
for length in range(1, 17):
    for kernel_size in range(1, length + 1):
        for i in range(length):
            keys = window(i, length, kernel_size)
            assert len(keys) == kernel_size, "always kernel_size keys"
            assert i in keys, "the query itself is one of them"
            assert keys[0] >= 0, "nothing hangs over the left edge"
            assert keys[-1] < length, "nothing hangs over the right edge"
            checked += 1
print(f"{checked} windows checked")

# %% [markdown]
# ## Two axes
#
# A picture has rows and columns. The neighborhood of a token is every row of its row window, combined with every column
# of its column window. `Neighborhood` holds the arguments and answers questions.

# %%
neighborhood = Neighborhood((6, 8), kernel_size=3)
print(neighborhood.neighbors((2, 3)))
assert neighborhood.neighbors((2, 3)) == [(row, column) for row in (1, 2, 3) for column in (2, 3, 4)]

# %%
figure, grid = new_figure(1, 2, size=(8, 3.4))
draw_window(neighborhood, (2, 3), grid[0, 0], legend=False)
draw_window(Neighborhood((6, 8), kernel_size=(3, 5)), (2, 3), grid[0, 1], legend=False)
share_legend(figure, window_legend([neighborhood], [(2, 3)]))
figure

# %% [markdown]
# On the right the kernel has one size per axis: 3 rows by 5 columns. Every argument can be given per axis.
#
# ## What attention does with a window
#
# Attention compares a query with its keys, turns the scores into weights that sum to one, and mixes the values with
# them:
#
# $$\text{out}_i = \sum_{j \,\in\, \text{window}(i)} \text{softmax}_j\big(\text{scale}\cdot\langle q_i,
# k_j\rangle\big)\; v_j$$
#
# Tensors are `[batch, rows, columns, heads, head_dim]`. If all queries are zero, all scores are equal, and the output
# is the plain mean over the window. Away from the edges that is what average pooling computes.

# %%
generator = torch.Generator().manual_seed(0)
value = torch.randn(1, 6, 8, 1, 1, generator=generator)
zeros = torch.zeros_like(value)
mean = na2d(zeros, zeros, value, kernel_size=3)[0, :, :, 0, 0]
pooled = torch.nn.functional.avg_pool2d(value[..., 0, 0][:, None], 3, stride=1)[0, 0]
torch.testing.assert_close(mean[1:-1, 1:-1], pooled, rtol=1e-5, atol=1e-6)
print("inside, attention with zero queries is average pooling")

# %% [markdown]
# With queries that say something, the weights differ. `neighborhood_weights` shows them: nine numbers for each token,
# in the order of its keys.

# %%
tokens = torch.randn(1, 6, 8, 1, 4, generator=generator)
weights = neighborhood_weights(tokens, tokens, kernel_size=3)
print(weights.shape)
print([round(weight, 2) for weight in weights[0, 2, 3, 0].tolist()])
torch.testing.assert_close(weights.sum(-1), torch.ones(1, 6, 8, 1), rtol=1e-5, atol=1e-6)

# %% [markdown]
# How can you see *which* keys an operator used, if all you have is its output? Put a 1 into one value and 0 into all
# others: the output at a query is then exactly its weight on that key, and where the output is zero, nobody looked.

# %%
one_hot = torch.zeros(1, 6, 8, 1, 1)
one_hot[0, 2, 3] = 1
seen_by = na2d(tokens, tokens, one_hot, kernel_size=3)[0, :, :, 0, 0]
print((seen_by > 0).int())
assert {tuple(place) for place in seen_by.nonzero().tolist()} == {
    neighborhood.coordinates(number) for number in neighborhood.attended_by((2, 3))
}

# %% [markdown]
# ## On your own
#
# * Print `picture(8, 4)`. On which side of the query does an even window have more keys?
#
# <details><summary>Solution</summary>
#
# On the left: two keys before the query, one after it. An even window cannot be centred.
#
# ```python
# print(picture(8, 4))
# assert list(window(4, length=8, kernel_size=4)) == [2, 3, 4, 5]
# ```
#
# </details>
#
# * What is the largest kernel that an axis of 9 tokens allows? What is attention called then?
#
# <details><summary>Solution</summary>
#
# 9, and then every query attends all tokens: that is plain *self attention*.
#
# ```python
# assert all(window(i, length=9, kernel_size=9) == range(9) for i in range(9))
# x = torch.randn(1, 6, 8, 1, 4, generator=generator)
# everywhere = na2d(x, x, x, kernel_size=(6, 8))
# flat = x.flatten(1, 2).transpose(1, 2)  # [1, heads, 48, 4]
# full = torch.nn.functional.scaled_dot_product_attention(flat, flat, flat)
# torch.testing.assert_close(everywhere.flatten(1, 2).transpose(1, 2), full, rtol=1e-4, atol=1e-5)
# ```
#
# </details>
#
# * In the last cell put the 1 at the corner `(0, 0)`. How many queries attend the corner, and how many tokens does it
#   attend? Tutorial 05 comes back to that.
#
# <details><summary>Solution</summary>
#
# Four attend it: (0, 0), (0, 1), (1, 0) and (1, 1). It attends nine, like every query.
#
# ```python
# one_hot = torch.zeros(1, 6, 8, 1, 1)
# one_hot[0, 0, 0] = 1
# seen_by = na2d(tokens, tokens, one_hot, kernel_size=3)[0, :, :, 0, 0]
# assert seen_by.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
# assert len(neighborhood.neighbors((0, 0))) == 9
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani et al., *Neighborhood Attention Transformer*, [arXiv:2204.07143](https://arxiv.org/abs/2204.07143), section
#   3.
# * `dinat_ref/window.py`, the definition in forty lines. Next: [02, meet the edges](02_meet_the_edges.ipynb).

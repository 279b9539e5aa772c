# %% [markdown]
# # 05 · Follow the gradients
#
# In the forward pass every query looks at its neighbors. In the backward pass every neighbor wants to know who looked
# at it. These are not the same sets, and kernels have been shipped that confused them.
#
# **What you'll do:** write attention as a matrix, see why the backward pass is its transpose, draw inverse
# neighborhoods, and derive the gradients of values, queries and keys by hand.
#
# **What you'll need:** [02, meet the edges](02_meet_the_edges.ipynb), and the chain rule.

# %%
import torch

from dinat_ref import Neighborhood, na2d, neighborhood_weights

# %% [markdown]
# ## Attention is a matrix
#
# For given queries and keys, attention is linear in the values: `out = P @ V`, where row i of P holds the weights of
# query i, with zeros outside its window. So take the K weights of every query, and scatter them to where its keys are.

# %%
X, Y, D = 6, 7, 4
neighborhood = Neighborhood((X, Y), kernel_size=3)
generator = torch.Generator().manual_seed(5)
query, key, value = torch.randn(3, 1, X, Y, 1, D, generator=generator, dtype=torch.float64)
for tensor in (query, key, value):
    tensor.requires_grad_()

weights = neighborhood_weights(query, key, kernel_size=3).detach().reshape(X * Y, 9)  # [N, K]
P = torch.zeros(X * Y, X * Y, dtype=torch.float64)
P.scatter_(1, neighborhood.indices(), weights)  # [N, N]
output = na2d(query, key, value, kernel_size=3)
torch.testing.assert_close(P @ value.detach().flatten(1, 2)[0, :, 0], output.detach().flatten(1, 2)[0, :, 0])
print("P is", tuple(P.shape), "with", int((P > 0).sum()), "entries that are not zero:", X * Y, "queries of 9 keys")

# %% [markdown]
# ## The backward pass is the transpose
#
# A loss hands back one gradient per output, dO. A change of value j changes every output that looked at j, by the
# weight of that look. So
#
# $$dV_j = \sum_{i:\; j \in \text{window}(i)} P_{ij}\; dO_i \qquad\text{or}\qquad dV = P^\top dO .$$

# %%
dO = torch.randn(output.shape, generator=generator, dtype=torch.float64)
dQ, dK, dV = torch.autograd.grad(output, (query, key, value), dO)
flat = {
    name: tensor.detach().flatten(1, 2)[0, :, 0]
    for name, tensor in {"Q": query, "K": key, "V": value, "dO": dO}.items()
}
torch.testing.assert_close(P.T @ flat["dO"], dV.flatten(1, 2)[0, :, 0], rtol=1e-12, atol=1e-12)
print("dV = P^T dO")

# %% [markdown]
# ## Who attends to me?
#
# The sum runs over the *inverse neighborhood* of j: column j of P instead of row j. In the middle of a map the two
# look the same. At the edge they do not: a token in the top row attends three rows of tokens, but is attended by two
# rows only.
#
# Green tokens attend the orange one; small blue squares mark what the orange one attends.

# %%
from dinat_ref.viz.inverse import draw_attended_by, inverse_legend
from dinat_ref.viz.theme import new_figure, share_legend

wide = Neighborhood((12, 12), kernel_size=5)
tokens = [(6, 6), (0, 6), (4, 4)]
figure, grid = new_figure(1, 3, size=(8.5, 3.5))
for axes, token in zip(grid.flat, tokens):
    title = f"token {token}: attends {len(wide.neighbors(token))},\nattended by {len(wide.attended_by(token))}"
    draw_attended_by(wide, token, axes, title=title, legend=False)
share_legend(figure, inverse_legend(), columns=4)
assert [len(wide.attended_by(token)) for token in tokens] == [25, 15, 49]
figure

# %% [markdown]
# Token (4, 4) is attended by 49: the 25 of any interior token, and all those whose windows were shifted away from the
# edge. A backward kernel that uses the forward window for this sum is right in the interior and wrong near every
# edge, by *missing* gradients. No value is strange, no NaN appears, and training merely gets a little worse.
#
# ## One-hot gradients show the support
#
# As in tutorial 01, a one-hot makes it visible: let the loss look at one output only. The values that receive a
# gradient are that query's window.

# %%
one_output = torch.zeros_like(dO)
one_output[0, 0, 3] = 1
(gradient,) = torch.autograd.grad(na2d(query, key, value, kernel_size=3), value, one_output)
touched = {tuple(place) for place in gradient[0, :, :, 0].abs().sum(-1).nonzero().tolist()}
print(sorted(touched))
assert touched == set(neighborhood.neighbors((0, 3)))

# %% [markdown]
# ## Queries and keys
#
# The softmax stands between. With S the scores, the gradient of row i of P is dP = dO V^T, and the softmax's own rule
# gives
#
# $$dS_{ij} = P_{ij}\,\Big(dP_{ij} - \sum_k P_{ik}\, dP_{ik}\Big), \qquad dQ = \text{scale}\; dS\, K, \qquad dK =
# \text{scale}\; dS^\top Q .$$
#
# Where P is zero, dS is zero. The neighborhood needs no further care: dQ sums over windows, dK over inverse
# neighborhoods.

# %%
scale = D**-0.5
dP = flat["dO"] @ flat["V"].T
dS = P * (dP - (P * dP).sum(-1, keepdim=True))
torch.testing.assert_close(scale * dS @ flat["K"], dQ.flatten(1, 2)[0, :, 0], rtol=1e-10, atol=1e-12)
torch.testing.assert_close(scale * dS.T @ flat["Q"], dK.flatten(1, 2)[0, :, 0], rtol=1e-10, atol=1e-12)
print("dQ and dK by hand are autograd's")

# %% [markdown]
# ## A conservation law
#
# Add one and the same vector to all keys: every score of a query changes by the same number, and a softmax does not
# notice. If the output does not change, neither does any loss, so the gradients of all keys must sum to zero. Here is
# a check of a backward kernel that needs no reference at all.

# %%
print(f"the key gradients have {dK.abs().sum().item():.1f} in absolute values, and yet they sum to zero")
torch.testing.assert_close(dK.sum((1, 2)), torch.zeros(1, 1, D, dtype=torch.float64), rtol=0, atol=1e-12)

# %% [markdown]
# With dilation, queries and keys of different dilation groups never meet, so the sum is zero *in each group*: six
# laws for `dilation=(2, 3)`.

# %%
dilated = na2d(query, key, value, kernel_size=2, dilation=(2, 3))
(dK,) = torch.autograd.grad(dilated, key, dO)
for g in range(2):
    for h in range(3):
        total = dK[:, g::2, h::3].sum((1, 2))
        torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)
print("six sums, all zero")

# %% [markdown]
# ## On your own
#
# * Write `dV` with the bug described above: sum over the *forward* window of j. For which tokens is it wrong? Does the
#   conservation law notice the same bug in `dK`?
#
# <details><summary>Solution</summary>
#
# It is wrong where somebody attends j from outside of j's own window: near the edges. The law does notice: terms are
# missing, and the sum is no longer zero.
#
# ```python
# mask = neighborhood.mask()  # [N, N], a row for each query
# forward_only = P * mask.T  # i counts for j only if j also attends i
# wrong = (forward_only.T @ flat["dO"] - P.T @ flat["dO"]).abs().amax(1) > 1e-12  # [N]
# expected = [
#     not set(neighborhood.attended_by(token)) <= {neighborhood.number(key) for key in neighborhood.neighbors(token)}
#     for token in neighborhood.tokens()
# ]
# assert wrong.tolist() == expected
# assert wrong.any() and not wrong.all()
# total = (scale * (dS * mask.T).T @ flat["Q"]).sum(0)
# assert total.abs().max() > 0.01
# ```
#
# </details>
#
# * `torch.autograd.gradcheck` compares a gradient with finite differences. Run it on `na2d` with float64. Then think of
#   a wrong forward pass whose gradient it would call right.
#
# <details><summary>Solution</summary>
#
# Any of them: it asks whether the gradient belongs to the function, not whether the function is attention. Here is one
# that hands its output to the wrong queries.
#
# ```python
# small = [tensor[:, :3, :4].detach().requires_grad_() for tensor in (query, key, value)]
# assert torch.autograd.gradcheck(lambda q, k, v: na2d(q, k, v, kernel_size=3), small)
# assert torch.autograd.gradcheck(lambda q, k, v: na2d(q, k, v, kernel_size=3).flip(1), small)
# ```
#
# </details>
#
# * How does the inverse neighborhood of a causal window look? Draw it.
#
# <details><summary>Solution</summary>
#
# It lies *behind* the token: whoever attends it comes later, or is the token itself.
#
# ```python
# causal = Neighborhood((12, 12), kernel_size=5, is_causal=True)
# draw_attended_by(causal, (6, 6), new_figure()[1][0, 0])
# assert [causal.coordinates(number) for number in causal.attended_by((6, 6))] == [
#     (row, column) for row in range(6, 11) for column in range(6, 11)
# ]
# ```
#
# </details>
#
# ## Further reading
#
# * Dao et al., *FlashAttention*, [arXiv:2205.14135](https://arxiv.org/abs/2205.14135), appendix B: the same
#   derivation, and how not to store P.
# * Next: [06, stride it and order it](06_stride_and_order_it.ipynb).

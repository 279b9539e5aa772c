# %% [markdown]
# # 10 · Look at attention
#
# Attention weights are numbers about pairs of tokens: far too many to read. Here are four ways to look at them, on a
# real photo, and what each of them does *not* say.
#
# **What you'll do:** draw attention maps, and condense them to an entropy and a reach per token; follow attention
# through several layers; and look at a network that has learned nothing yet.
#
# **What you'll need:** [07, denoise a photo](07_denoise_a_photo.ipynb) and [09, build DiNAT](09_build_dinat.ipynb).

# %%
import math

import torch

from dinat_ref import Neighborhood, na2d, neighborhood_weights
from dinat_ref.analysis.attention_maps import attention_map, entropy, reach, rollout, scatter_weights
from dinat_ref.analysis.model_attention import model_attention
from dinat_ref.analysis.photo import load_photo, patch_operands
from dinat_ref.analysis.receptive_field import receptive_field
from dinat_ref.models import DiNAT, DinatConfig
from dinat_ref.viz.attention import draw_attention, draw_photo
from dinat_ref.viz.maps import draw_map
from dinat_ref.viz.theme import new_figure
from dinat_ref.viz.windows import mark_query

# %% [markdown]
# ## Weights that mean something
#
# We need attention that pays attention. Published checkpoints would have it, but this page needs no network: tutorial
# 07's patches will do. Tokens that look alike attend each other. The photo shrinks to 60 x 51 tokens.

# %%
photo = torch.nn.functional.avg_pool2d(load_photo().movedim(-1, 0)[None, :, :, :510], 10)[0].movedim(
    0, -1
)  # [60, 51, 3]
layout = tuple(photo.shape[:2])
neighborhood = Neighborhood(layout, kernel_size=7)
query, key = patch_operands(photo, patch_size=3, strength=0.5)
weights = neighborhood_weights(query, key, kernel_size=7, scale=1.0)  # [1, 60, 51, 1, 49]
print(tuple(weights.shape), "=", f"{weights.numel():,} numbers")

# %% [markdown]
# ## 1. A map for a query
#
# Put the 49 weights of one query back where their keys lie. A query always looks most like itself, so its own weight
# is off the scale here. The flag's blue attends the blue and not the stars; the sky attends all of its window alike;
# at the upper edge the window is shifted, and the map with it.

# %%
places = {"the flag": (20, 6), "the cheek": (28, 21), "the sky, at the edge": (0, 45)}
figure, grid = new_figure(1, 3, size=(9.5, 3))
for axes, (name, token) in zip(grid.flat, places.items()):
    weight = attention_map(query, key, token, kernel_size=7, scale=1.0)[0, 0]
    torch.testing.assert_close(
        weight.flatten(), scatter_weights(weights, neighborhood)[0, 0, neighborhood.number(token)]
    )
    second = 49 * weight.flatten().sort().values[-2].item()
    draw_attention(photo.numpy(), weight.numpy(), neighborhood, token, axes, title=f"{name} {token}", largest=second)
figure

# %% [markdown]
# ## 2. One number per query: entropy
#
# How many keys does a query really use? The exponential of the entropy counts them: 1 if all weight is on one key, 49
# if all weigh the same. In plain regions attention is an average over everything; at edges and in texture it selects.

# %%
keys_used = entropy(weights).exp()[0, ..., 0]
assert keys_used.min() >= 1
assert keys_used.max() <= 49 + 1e-3
for name, token in places.items():
    print(f"{name:22} uses {keys_used[token].item():4.1f} of 49 keys")

# %% [markdown]
# ## 3. Another: reach
#
# The mean distance between a query and what it attends, in tokens. With equal weights it is 2.65 in the middle of a
# map and more at the edges, where windows hang to one side: a difference that is geometry and says nothing about the
# content. Subtract it before you interpret.

# %%
distance = reach(weights, neighborhood)[0, ..., 0]
zeros = torch.zeros(1, *layout, 1, 1)
indifferent = reach(neighborhood_weights(zeros, zeros, 7), neighborhood)[0, ..., 0]
print(
    f"indifferent reach: {indifferent[30, 25].item():.2f} in the middle, {indifferent[0, 0].item():.2f} in the corner"
)
assert indifferent[0, 0] > 1.5 * indifferent[30, 25]

figure, grid = new_figure(1, 3, size=(9.5, 3.6))
draw_photo(photo.numpy(), grid[0, 0], title="60 x 51 tokens")
draw_map(keys_used, grid[0, 1], title="keys in use", label="of 49 keys")
draw_map(distance - indifferent, grid[0, 2], title="reach, less indifference", label="tokens")
figure

# %% [markdown]
# ## 4. Through the layers: rollout
#
# The second layer attends tokens that have already mixed. Multiply the layers' matrices (and give the residual
# connection its half) and you get, for every output token, its weights on the *input*. For three layers with
# dilations 1, 3, 1, each on the output of the one before:

# %%
current, layer_weights, neighborhoods = photo, [], []
for dilation in (1, 3, 1):
    query, key = patch_operands(current, patch_size=3, strength=0.5)
    layer_weights.append(neighborhood_weights(query, key, 7, dilation=dilation, scale=1.0))
    neighborhoods.append(Neighborhood(layout, 7, dilation=dilation))
    mixed = na2d(query, key, current[None, :, :, None], 7, dilation=dilation, scale=1.0)[0, :, :, 0]
    current = (current + mixed) / 2  # the residual connection
total = rollout(layer_weights, neighborhoods)[0]  # [N, N]
torch.testing.assert_close(total.sum(-1), torch.ones(len(total)), rtol=1e-4, atol=1e-4)

# %% [markdown]
# There is a rare chance to check it. Here queries and keys only *select* and every layer is linear in its values, so
# rollout is not an approximation: applied to the photo, it must give what the layers gave. In a real network, values
# are projected and an MLP follows, and rollout is a story about it.

# %%
torch.testing.assert_close((total @ photo.flatten(0, 1)).unflatten(0, layout), current, rtol=1e-4, atol=1e-4)
print("rollout reproduces the output of the three layers")

token = (28, 21)
row = total[neighborhood.number(token)].unflatten(0, layout)
exact = receptive_field(neighborhoods, token)
assert not (row[~exact] > 0).any()
heaviest = row.flatten().sort(descending=True).values.cumsum(0)
print(f"{exact.sum().item()} tokens can matter; half of the weight is on {(heaviest < 0.5).sum().item() + 1} of them")

figure, grid = new_figure(1, 3, size=(9.5, 3.6))
draw_photo(photo.numpy(), grid[0, 0], title="the cheek, and what counts for it")
mark_query(grid[0, 0], token)
draw_map(exact, grid[0, 1], title="what can matter")
draw_map(row.clamp(min=1e-6).log10(), grid[0, 2], title="rollout", label="log10 of the weight")
figure

# %% [markdown]
# ## A network that has learned nothing
#
# `model_attention` collects the weights of every layer of a model, each with its neighborhood. Before training, all
# scores are nearly zero, so every query uses all of its 49 keys. This is the baseline against which a trained model's
# maps should be read; a beautiful map from an untrained network would be a bug.

# %%
torch.manual_seed(10)
model = DiNAT(
    DinatConfig(embed_dim=64, depths=[3], num_heads=[2], dilations=[[1, 8, 1]])
).eval()  # DiNAT-Mini's first level
picture = torch.nn.functional.interpolate(load_photo().movedim(-1, 0)[None], (224, 224), mode="bilinear")
for layer in model_attention(model, picture):
    used = entropy(layer.weights).exp().mean().item()
    dilation, distance = layer.neighborhood.dilation[0], reach(layer.weights, layer.neighborhood).mean().item()
    print(f"{layer.name} dilation {dilation}: {used:4.1f} of 49 keys, reach {distance:4.1f} tokens")
    assert used > 0.97 * 49
print(f"(the largest entropy is log 49 = {math.log(49):.2f})")

# %% [markdown]
# ## On your own
#
# * Make `strength` 0.1 and 2. What happens to the entropy map? When is a map "sharp" for a dull reason?
# * Load a published checkpoint (tutorial 09) and run the last cell again. Which layers use few keys?
# * Set `residual=0` in `rollout`. What does it claim now, and is it still true of these layers?
#
# ## Further reading
#
# * Abnar & Zuidema, *Quantifying attention flow*, [arXiv:2005.00928](https://arxiv.org/abs/2005.00928): rollout.
# * Jain & Wallace, *Attention is not explanation*, [arXiv:1902.10186](https://arxiv.org/abs/1902.10186): what maps do
#   not say.
# * Next: [11, count the cost](11_count_the_cost.ipynb).

# %% [markdown]
# # 10 · Look at attention
#
# Attention weights are numbers about pairs of tokens: far too many to read. Here are four ways to look at them, on a
# real photo, and what each of them does *not* say.
#
# **What you'll do:** draw attention maps; condense each to two numbers, how many keys it uses and how far away they
# are; follow attention through several layers; and look at a DiNAT before and after it has learned to read.
#
# **What you'll need:** [07, denoise a photo](07_denoise_a_photo.ipynb), [09, build DiNAT](09_build_dinat.ipynb), and
# `pip install 'dinat-ref[tutorials]'` for digits and trained weights.

# %%
import copy

import torch

from dinat_ref import Neighborhood, na2d, neighborhood_weights
from dinat_ref.analysis.photo import load_photo, patch_operands

# %% [markdown]
# ## Weights that mean something
#
# We need attention that pays attention. A trained network has it, and we shall come to one; but what its queries and
# keys mean, nobody knows. So we begin with some that we made ourselves, tutorial 07's patches: tokens that look alike
# attend each other. The photo shrinks to 60 x 51 tokens.

# %%
photo = load_photo()[:, :510].unflatten(0, (60, 10)).unflatten(2, (51, 10)).mean((1, 3))  # [60, 51, 3]
layout = tuple(photo.shape[:2])
neighborhood = Neighborhood(layout, kernel_size=7)
query, key = patch_operands(photo, patch_size=3, strength=0.5)
weights = neighborhood_weights(query, key, kernel_size=7, scale=1.0)  # [1, 60, 51, 1, 49]
print(tuple(weights.shape), "=", f"{weights.numel():,} numbers")

# %% [markdown]
# ## 1. A map for a query
#
# Put the 49 weights of each query back where its keys lie: the matrix P of tutorial 05. A row of it is a map.

# %%
N = neighborhood.num_tokens
P = torch.zeros(N, N).scatter(1, neighborhood.indices(), weights.reshape(N, 49))
places = {"the flag": (20, 6), "the cheek": (28, 21), "the backdrop": (0, 45)}
maps = {name: P[neighborhood.number(token)].unflatten(0, layout) for name, token in places.items()}
for name, token in places.items():
    print(f"{name:12} {100 * maps[name][token]:4.1f} % of the weight is on the query itself")
    assert maps[name].argmax() == neighborhood.number(token)

# %%
from dinat_ref.viz.attention import draw_attention, draw_photo
from dinat_ref.viz.theme import new_figure
from dinat_ref.viz.windows import outline_window

figure, grid = new_figure(1, 4, size=(9, 2.7), width_ratios=(1.35, 1, 1, 1.25))
draw_photo(photo, grid[0, 0], title=f"{layout[0]} x {layout[1]} tokens")
for axes, letter, (name, token) in zip(grid[0, 1:], "ABC", places.items()):
    outline_window(grid[0, 0], neighborhood, token, label=letter)
    style = {"title": f"{letter}: {name}", "largest": 4, "colorbar": letter == "C"}
    draw_attention(photo, maps[name], neighborhood, token, axes, **style)
figure

# %% [markdown]
# A weight of 1 on the scale is a fair share, 1/49. A query looks most like itself, so its own weight is off the scale.
# The flag's blue attends the blue and not the stars; the cheek attends skin; and the backdrop attends all of its window
# alike. There, at the edge, the window is shifted, and the map with it.

# %% [markdown]
# ## 2. One number per query: entropy
#
# How many keys does a query really use? The exponential of the entropy counts them: 1 if all weight is on one key, 49
# if all weigh the same. In plain regions attention is an average over everything; at edges and in texture it selects.

# %%
entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1)  # [1, 60, 51, 1]
keys_used = entropy.exp()[0, ..., 0]
assert keys_used.min() >= 1
assert keys_used.max() <= 49 + 1e-3
for name, token in places.items():
    print(f"{name:12} uses {keys_used[token].item():4.1f} of 49 keys")

# %% [markdown]
# ## 3. Another: reach
#
# The mean distance between a query and what it attends, in tokens. With equal weights it is 2.65 in the middle of a
# map and more at the edges, where windows hang to one side: a difference that is geometry and says nothing about the
# content. Subtract it before you interpret.

# %%
place = torch.tensor(list(neighborhood.tokens())).double()  # [N, 2]
distances = (place[neighborhood.indices()] - place[:, None]).norm(dim=-1)  # [N, K], from each query to its keys
reach = (weights.reshape(N, 49) * distances).sum(-1).unflatten(0, layout)
of_equal_weights = distances.mean(-1).unflatten(0, layout)
print(f"with equal weights: {of_equal_weights[30, 25]:.2f} in the middle, {of_equal_weights[0, 0]:.2f} in the corner")
assert of_equal_weights[0, 0] > 1.5 * of_equal_weights[30, 25]

# %%
from dinat_ref.viz.maps import draw_map

figure, grid = new_figure(1, 2, size=(8, 3.6))
draw_map(keys_used, grid[0, 0], title="keys in use", label="of 49 keys")
draw_map(reach - of_equal_weights, grid[0, 1], title="reach, compared to equal weights", label="tokens")
figure

# %% [markdown]
# ## 4. Through the layers: rollout
#
# The second layer attends tokens that have already mixed. Multiply the layers' matrices (and give the residual
# connection its half) and you get, for every output token, its weights on the *input*. This product is called
# *rollout*. For three layers with dilations 1, 3, 1, each on the output of the one before:

# %%
current, total, neighborhoods = photo, torch.eye(N), []
for dilation in (1, 3, 1):
    query, key = patch_operands(current, patch_size=3, strength=0.5)
    weights = neighborhood_weights(query, key, 7, dilation=dilation, scale=1.0)
    neighborhoods.append(Neighborhood(layout, 7, dilation=dilation))
    P = torch.zeros(N, N).scatter(1, neighborhoods[-1].indices(), weights.reshape(N, 49))
    total = (total + P @ total) / 2  # rollout
    mixed = na2d(query, key, current[None, :, :, None], 7, dilation=dilation, scale=1.0)[0, :, :, 0]
    current = (current + mixed) / 2  # the layer, with its residual connection
torch.testing.assert_close(total.sum(-1), torch.ones(len(total)), rtol=1e-4, atol=1e-4)

# %% [markdown]
# There is a rare chance to check it. Here queries and keys only *select* and every layer is linear in its values, so
# rollout is not an approximation: applied to the photo, it must give what the layers gave. In a real network, values
# are projected and an MLP follows, and rollout is a story about it.

# %%
torch.testing.assert_close((total @ photo.flatten(0, 1)).unflatten(0, layout), current, rtol=1e-4, atol=1e-4)
print("rollout reproduces the output of the three layers")

# %%
from dinat_ref.analysis.receptive_field import receptive_field
from dinat_ref.viz.windows import mark_query

token = (28, 21)
row = total[neighborhood.number(token)].unflatten(0, layout)
exact = receptive_field(neighborhoods, token)
assert not (row[~exact] > 0).any()
heaviest = row.flatten().sort(descending=True).values.cumsum(0)
print(f"{exact.sum().item()} tokens can matter; half of the weight is on {(heaviest < 0.5).sum().item() + 1} of them")

figure, grid = new_figure(1, 3, size=(9, 3.2))
draw_photo(photo, grid[0, 0], title="the cheek")
draw_map(exact, grid[0, 1], title="what can matter for it")
draw_map(row.clamp(min=1e-6).log10(), grid[0, 2], title="rollout: how much it does", label="log10 of the weight")
for axes in grid.flat:
    mark_query(axes, token)
figure

# %% [markdown]
# ## A network, before and after
#
# `model_attention` collects the weights of every layer of a model, each with its neighborhood; `entropy`, `reach` and
# `rollout` are what you have just seen, for a batch of pictures and several heads. The model is the DiNAT that comes
# with this package: four layers with windows of 3 x 3, the second with dilation 2, trained on scanned digits (tutorial
# [13](13_train_a_dinat.ipynb) does it); beside it is the same network untrained.
#
# Before training all scores are nearly zero, and a query uses all of its nine keys. That is the baseline for maps of a
# trained model; a beautiful map from an untrained one would be a bug. Training leaves five keys in the first level and
# three in the second. And it makes every token look *away from itself*, and so further: the residual connection
# brings a token to itself anyway.

# %%
from dinat_ref.analysis.attention_maps import entropy, reach, rollout, scatter_weights
from dinat_ref.analysis.model_attention import model_attention
from dinat_ref.models import create_model
from dinat_ref.training.data import load_digits

digits = load_digits("train")
scans = digits.images[:300]
torch.manual_seed(10)
networks = {"untrained": create_model("dinat_nano_digits").eval()}
networks["trained"] = create_model("dinat_nano_digits", pretrained=True)
seen = {name: model_attention(network, scans) for name, network in networks.items()}
for name, layers in seen.items():
    for number, layer in enumerate(layers, start=1):
        maps = scatter_weights(layer.weights, layer.neighborhood)  # [300, heads, N, N]
        used, own = entropy(layer.weights).exp().mean().item(), maps.diagonal(dim1=2, dim2=3).mean().item()
        zeros = torch.zeros(1, *layer.neighborhood.layout, 1, 1)
        even = neighborhood_weights(zeros, zeros, 3, dilation=layer.neighborhood.dilation)
        further = reach(layer.weights, layer.neighborhood).mean() - reach(even, layer.neighborhood).mean()
        print(f"{name:9} layer {number}: {used:.1f} of 9 keys, {own:4.0%} on itself, reach {further:+.2f} tokens")
        assert used > 7.5 if name == "untrained" else used < 6
        assert own > 0.08 if name == "untrained" else own < 0.07
        assert abs(further) < 0.1 if name == "untrained" else further > 0.15

# %%
from matplotlib.colors import Normalize

number, token = 3, (2, 5)
ink = torch.nn.functional.avg_pool2d(scans, 4)[:, 0]  # [300, 8, 8], of each token
paper = 1 - 0.9 * ink[number].numpy()
figure, grid = new_figure(2, 3, size=(8.4, 5), width_ratios=(1, 1, 1.2))
for axes_of_row, (name, layers) in zip(grid, seen.items()):
    draw_photo(paper, axes_of_row[0], title=f"{name}: the query")
    mark_query(axes_of_row[0], token)
    for axes, which, layer in zip(axes_of_row[1:], ("layer 1", "layer 2, dilation 2"), layers):
        weight = scatter_weights(layer.weights[[number]], layer.neighborhood)[0, 0, layer.neighborhood.number(token)]
        style = {"view": ((0, 8), (0, 8)), "largest": 4, "colorbar": which != "layer 1"}
        draw_attention(paper, weight.unflatten(0, (8, 8)), layer.neighborhood, token, axes, title=which, **style)
figure

# %% [markdown]
# One query, at the orange dot, in two layers: before training a fair share for each key, and after it a choice, and not
# the query itself. All queries at once: how many keys each of them uses, and by rollout of both layers how much each
# token counts for all others.

# %%
figure, grid = new_figure(2, 2, size=(7, 5))
for axes_of_row, (name, layers) in zip(grid, seen.items()):
    used = entropy(layers[0].weights[number]).exp().mean(-1)
    draw_map(used, axes_of_row[0], title=f"{name}: keys in use, layer 1", label="of 9 keys", norm=Normalize(1, 9))
    flow = rollout([layer.weights for layer in layers[:2]], [layer.neighborhood for layer in layers[:2]])  # [300, N, N]
    counts = flow[number].mean(0).unflatten(0, (8, 8)) * 64
    draw_map(counts, axes_of_row[1], title="rollout: how much it counts", label="times 1/64", norm=Normalize(0, 2.5))
figure

# %% [markdown]
# What do they look at? Not at ink, as one would think. Rollout prefers ink, but hardly more than before training. In
# the first layer, ink attends less ink than its window has, and paper more: the layer looks for contrast.

# %%
for name, layers in seen.items():
    flow = rollout([layer.weights for layer in layers[:2]], [layer.neighborhood for layer in layers[:2]]).mean(1)
    preference = ((flow * ink.flatten(1)).sum(1) / ink.mean((1, 2))).mean().item()
    print(f"{name}: rollout is {preference:.2f} times as much on ink as chance")
    assert 1.05 < preference < 1.3
    maps = scatter_weights(layers[0].weights, layers[0].neighborhood).mean(1)  # [300, N, N]
    of_window = layers[0].neighborhood.mask() / 9.0
    excess = ((maps - of_window) @ ink.flatten(1)[..., None])[..., 0]  # [300, N]
    dark = ink.flatten(1) > 0.5
    print(
        f"   ink attends {excess[dark].mean():+.2f} of ink, paper {excess[~dark].mean():+.2f}, compared to its window"
    )
    if name == "trained":
        assert excess[dark].mean() < -0.05
        assert excess[~dark].mean() > 0.05

# %% [markdown]
# Maps show what is *attended*, not what *matters*. To know that, one must interfere. With queries and bias tables set
# to zero, every key weighs the same:


# %%
from dinat_ref.models.layers import Layer
from dinat_ref.training.evaluate import evaluate


def equal_weights_in(network, numbers):
    """The network with equal weights in some of its layers."""
    changed = copy.deepcopy(network)
    layers = [module for module in changed.modules() if isinstance(module, Layer)]
    for number in numbers:
        attention = layers[number - 1].attn
        dim = attention.qkv.in_features
        with torch.no_grad():
            for parameter in (attention.qkv.weight[:dim], attention.qkv.bias[:dim], attention.rpb):
                parameter.zero_()
    return changed


for numbers in ([], [1], [2], [3], [4], [1, 2, 3, 4]):
    right = evaluate(equal_weights_in(networks["trained"], numbers), digits)[1]
    print(f"equal weights in layers {numbers}: {right:6.1%} of the digits are read as what they are")
    assert right > 0.9 if len(numbers) < 2 else right < 0.4

# %% [markdown]
# (These are the digits that it learned from; we ask what it uses, not how good it is.) With equal weights everywhere
# the network reads hardly anything, so it does use attention. But take the choice from any *one* layer, also from those
# with the sharpest maps, and nearly all digits are still read: what one layer no longer picks out, the others do.
#
# ## On your own
#
# * Make `strength` 0.1 and 2. What happens to the keys in use? When is a map "sharp" for a dull reason?
#
# <details><summary>Solution</summary>
#
# With 0.1 nothing looks like anything else, and a query uses little but itself: sharp, but only because of the scale.
# With 2 everything looks alike, and nearly all 49 keys are used.
#
# ```python
# for strength, low, high in ((0.1, 1, 5), (2.0, 40, 49.1)):
#     query, key = patch_operands(photo, patch_size=3, strength=strength)
#     used = entropy(neighborhood_weights(query, key, 7, scale=1.0)).exp()
#     print(f"strength {strength}: {used.median():.1f} of 49 keys")
#     assert low <= used.median() < high
# ```
#
# </details>
#
# * The trained network has bias tables, too. Set only these to equal weights, or only the queries. Which does it use?
#
# <details><summary>Solution</summary>
#
# Its queries. Without bias tables it reads all digits still; without queries, about as few as with equal weights
# everywhere.
#
# ```python
# def without(network, what):
#     changed = copy.deepcopy(network)
#     for module in changed.modules():
#         if isinstance(module, Layer):
#             dim = module.attn.qkv.in_features
#             parts = {"bias": [module.attn.rpb], "queries": [module.attn.qkv.weight[:dim], module.attn.qkv.bias[:dim]]}
#             with torch.no_grad():
#                 for parameter in parts[what]:
#                     parameter.zero_()
#     return changed
#
# right = {what: evaluate(without(networks["trained"], what), digits)[1] for what in ("bias", "queries")}
# print({what: f"{share:.0%}" for what, share in right.items()})
# assert right["bias"] > 0.95
# assert right["queries"] < 0.4
# ```
#
# </details>
#
# * Do all heads of a layer do the same? Print the keys in use for each head of the second level.
#
# <details><summary>Solution</summary>
#
# Nearly: between 3.1 and 3.4 keys.
#
# ```python
# layer = seen["trained"][2]
# used = entropy(layer.weights).exp().mean(dim=(0, 1, 2))  # [heads]
# print([round(keys, 1) for keys in used.tolist()])
# assert 3 < used.min() < used.max() < 3.5
# ```
#
# </details>
#
# * Leave the residual connection out of the rollout: `total = P @ total`. What does it claim now, and is it still true
#   of these layers?
#
# <details><summary>Solution</summary>
#
# It claims that a token counts less for itself. It is not true: applied to the photo, it no longer gives what the
# layers gave.
#
# ```python
# unlike = torch.eye(N)
# state = photo
# for dilation, layer in zip((1, 3, 1), neighborhoods):
#     query, key = patch_operands(state, patch_size=3, strength=0.5)
#     weights = neighborhood_weights(query, key, 7, dilation=dilation, scale=1.0)
#     unlike = torch.zeros(N, N).scatter(1, layer.indices(), weights.reshape(N, 49)) @ unlike
#     mixed = na2d(query, key, state[None, :, :, None], 7, dilation=dilation, scale=1.0)[0, :, :, 0]
#     state = (state + mixed) / 2
# assert unlike.diagonal().mean() < total.diagonal().mean()
# assert ((unlike @ photo.flatten(0, 1)).unflatten(0, layout) - current).abs().max() > 0.05
# ```
#
# </details>
#
# ## Further reading
#
# * Abnar & Zuidema, *Quantifying attention flow*, [arXiv:2005.00928](https://arxiv.org/abs/2005.00928): rollout.
# * Jain & Wallace, *Attention is not explanation*, [arXiv:1902.10186](https://arxiv.org/abs/1902.10186): what maps do
#   not say.
# * Next: [11, count the cost](11_count_the_cost.ipynb).

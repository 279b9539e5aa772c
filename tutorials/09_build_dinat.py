# %% [markdown]
# # 09 · Build DiNAT
#
# DiNAT-Mini has 19,984,174 parameters. When you know where each of them lives, you know the model.
#
# **What you'll do:** count DiNAT-Mini block by block until the sum is right to the last parameter, write its layer in
# ten lines, give it a relative positional bias, and load weights whatever names they were published under.
#
# **What you'll need:** [08, grow a receptive field](08_grow_a_receptive_field.ipynb), and what a linear layer, a
# convolution and a LayerNorm are.

# %%
import torch
from torch import nn
from torch.nn import functional

from dinat_ref import na2d
from dinat_ref.models import create_model, list_models, load_checkpoint
from dinat_ref.models.layers import Layer
from dinat_ref.models.variants import variant_config

# %% [markdown]
# ## The plan
#
# A picture becomes tokens; four levels follow, each with a quarter of the tokens and twice the channels of the one
# before; then a mean and a linear layer. Everything that sets one published model apart from another is in its
# configuration.

# %%
print(list_models("dinat*"))
config = variant_config("dinat_mini")
print("depths   ", config.depths)
print("channels ", config.dims)
print("heads    ", config.num_heads, "of 32 channels each")
print("dilations", config.dilations)

# %% [markdown]
# ## Tokenizer
#
# Two overlapping 3 x 3 convolutions of stride 2, nothing between them, and a LayerNorm. A convolution from a to b
# channels has 9ab weights and b biases.


# %%
def conv(a, b, bias=True):
    return 9 * a * b + (b if bias else 0)


def norm(c):
    return 2 * c


def linear(a, b):
    return a * b + b


tokenizer = conv(3, 32) + conv(32, 64) + norm(64)
print(f"tokenizer {tokenizer:10,}")

# %% [markdown]
# ## A layer
#
# Two branches, each normalised first and added to what came in: attention, then a small network on each token.
# Attention projects to queries, keys and values in one linear layer, has a bias table of 13 x 13 offsets per head,
# and projects back. The network is three times as wide inside.


# %%
def layer(c, heads, kernel_size=7, ratio=3):
    attention = linear(c, 3 * c) + heads * (2 * kernel_size - 1) ** 2 + linear(c, c)
    network = linear(c, ratio * c) + linear(ratio * c, c)
    return norm(c) + attention + norm(c) + network


print(f"one layer of level 1 {layer(64, 2):10,}")
assert layer(64, 2) == sum(parameter.numel() for parameter in Layer(64, num_heads=2, kernel_size=7).parameters())

# %% [markdown]
# ## Levels, and the sum
#
# Each level but the last ends in a convolution of stride 2 without bias, from c to 2c channels, and a LayerNorm. Last
# come a LayerNorm and 1000 classes.

# %%
total = tokenizer
for level, (depth, channels, heads) in enumerate(zip(config.depths, config.dims, config.num_heads), start=1):
    here = depth * layer(channels, heads)
    if level < 4:
        here += conv(channels, 2 * channels, bias=False) + norm(2 * channels)
    print(f"level {level}   {here:10,}")
    total += here
total += norm(512) + linear(512, 1000)
print(f"in all    {total:10,}")
assert total == 19_984_174

model = create_model("dinat_mini", device="meta")  # a model without memory, to count with
assert total == sum(parameter.numel() for parameter in model.parameters())

# %% [markdown]
# Two thirds of the parameters are in the last level, which sees 7 x 7 tokens. NAT-Mini has exactly as many: dilation
# is free. And the bias tables, all of them together:

# %%
tables = sum(parameter.numel() for name, parameter in model.named_parameters() if name.endswith("rpb"))
print(f"{tables:,} numbers in bias tables, {100 * tables / total:.1f} %")

# %% [markdown]
# ## The layer in ten lines
#
# Write it out with `na2d` and compare with the package's.

# %%
torch.manual_seed(9)
block = Layer(64, num_heads=2, kernel_size=7, dilation=2).eval()
x = torch.randn(1, 14, 18, 64)


def by_hand(x):
    normed = functional.layer_norm(x, (64,), block.norm1.weight, block.norm1.bias)
    qkv = functional.linear(normed, block.attn.qkv.weight, block.attn.qkv.bias)
    query, key, value = qkv.unflatten(-1, (3, 2, 32)).unbind(-3)  # each [B, X, Y, heads, 32]
    attended = na2d(query, key, value, kernel_size=7, dilation=2, rpb=block.attn.rpb)  # scale is 32 ** -0.5
    x = x + functional.linear(attended.flatten(-2), block.attn.proj.weight, block.attn.proj.bias)
    normed = functional.layer_norm(x, (64,), block.norm2.weight, block.norm2.bias)
    hidden = functional.gelu(functional.linear(normed, block.mlp.fc1.weight, block.mlp.fc1.bias))
    return x + functional.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)


with torch.no_grad():
    torch.testing.assert_close(by_hand(x), block(x), rtol=1e-5, atol=1e-5)
print("the same layer")

# %% [markdown]
# ## What a bias table does
#
# Attention alone does not know *where* in its window a key lies. The table adds a number for each offset. Suppose it
# holds minus the squared distance: with zero queries, attention becomes a Gaussian blur. The black square in the
# drawing holds the offsets of queries away from the edges; the rim is for shifted windows.

# %%
from dinat_ref.analysis.attention_maps import attention_map
from dinat_ref.viz.bias import draw_bias
from dinat_ref.viz.maps import draw_map
from dinat_ref.viz.theme import new_figure

offsets = torch.arange(-6.0, 7)
table = -(offsets[:, None] ** 2 + offsets**2) / 8
zeros = torch.zeros(1, 14, 18, 1, 4)
figure, grid = new_figure(1, 3, size=(9, 2.9))
draw_bias(table, grid[0, 0], title="the table")
for axes, token in zip(grid[0, 1:], ((6, 9), (0, 1))):
    weights = attention_map(zeros, zeros, token, kernel_size=7, rpb=table[None])[0, 0]
    draw_map(weights, axes, title=f"weights of query {token}")
    assert divmod(weights.argmax().item(), 18) == token, "the bias peaks at the query, at edges too"
figure

# %% [markdown]
# At the upper edge the window is shifted down, but the bell still sits on the query, since the table is read by
# offset and not by place in the window. A kernel that reads it by place puts the bell in the wrong spot at every
# edge, and works perfectly in the middle.
#
# ## Checkpoints
#
# A *checkpoint* is a file of trained weights, a tensor for each parameter's name. Published ones come in two spellings:
# the original repository's, and Hugging Face's, which splits the qkv projection into three. `load_checkpoint` reads
# both and insists that every parameter is there. There is no network here, so we cut DiNAT-Mini down to two levels,
# write a checkpoint of it in Hugging Face's spelling, and read it back.

# %%
from dinat_ref.models.keys import to_huggingface

small = {"num_classes": 10, "depths": [1, 2], "num_heads": [2, 4], "dilations": [[1], [1, 4]]}
source = create_model("dinat_mini", **small)
theirs = to_huggingface(source.state_dict())
for name in list(theirs)[:12]:
    print(name, tuple(theirs[name].shape))

copy = create_model("dinat_mini", **small)
report = load_checkpoint(copy, theirs)
print(report)
for name, parameter in source.state_dict().items():
    torch.testing.assert_close(copy.state_dict()[name], parameter, rtol=0, atol=0)
assert isinstance(source.head, nn.Linear)

# %% [markdown]
# A real one, where you have a network: `huggingface-cli download shi-labs/dinat-mini-in1k-224`, and then the path of
# its folder in place of `theirs`, with `num_classes=1000`.
#
# ## On your own
#
# * Count `dinat_base`: 89,769,652. Its layers have something that Mini's don't; the configuration tells you what.
#
# <details><summary>Solution</summary>
#
# Its `layer_scale_init_value` is not 0: each of the two branches of a layer is multiplied by a learned number per
# channel. And its MLP is twice as wide inside, not three times.
#
# ```python
# base = variant_config("dinat_base")
# count = conv(3, 64) + conv(64, 128) + norm(128)
# for level, (depth, channels, heads) in enumerate(zip(base.depths, base.dims, base.num_heads), start=1):
#     count += depth * (layer(channels, heads, ratio=2) + 2 * channels)
#     if level < 4:
#         count += conv(channels, 2 * channels, bias=False) + norm(2 * channels)
# count += norm(1024) + linear(1024, 1000)
# assert count == 89_769_652
# ```
#
# </details>
#
# * What happens to a picture of 100 x 100? Its first level has 25 x 25 tokens, too few for kernel 7 and dilation 8.
#   Look for `small_input`.
#
# <details><summary>Solution</summary>
#
# By default the tokens are padded to as many as the windows need, and cut off again, as in the published models. With
# `small_input="raise"` it is an error.
#
# ```python
# small_picture = torch.zeros(1, 3, 100, 100)
# options = {"depths": [2], "num_heads": [2], "dilations": [[1, 8]], "num_classes": 10}
# with torch.no_grad():
#     assert create_model("dinat_mini", **options)(small_picture).shape == (1, 10)
#     try:
#         create_model("dinat_mini", small_input="raise", **options)(small_picture)
#         raise AssertionError("25 tokens are too few")
#     except ValueError as error:
#         print(error)
# ```
#
# </details>
#
# * DiNAT_s is a Swin whose windows became neighborhoods. Count `dinat_s_tiny`.
#
# <details><summary>Solution</summary>
#
# It cuts the picture into patches of 4 x 4, by one convolution; an MLP is four times as wide inside; and between levels
# four tokens are laid side by side, normalised, and reduced by a linear layer without bias.
#
# ```python
# tiny = variant_config("dinat_s_tiny")
# count = 4 * 4 * 3 * 96 + 96 + norm(96)
# for level, (depth, channels, heads) in enumerate(zip(tiny.depths, tiny.dims, tiny.num_heads), start=1):
#     count += depth * layer(channels, heads, ratio=4)
#     if level < 4:
#         count += norm(4 * channels) + 4 * channels * 2 * channels
# count += norm(768) + linear(768, 1000)
# assert count == sum(parameter.numel() for parameter in create_model("dinat_s_tiny", device="meta").parameters())
# print(f"{count:,}")
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani & Shi, [arXiv:2209.15001](https://arxiv.org/abs/2209.15001), table 2.
# * `dinat_ref/models/`: one concept a file. Next: [10, look at attention](10_look_at_attention.ipynb).

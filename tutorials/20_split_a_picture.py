# %% [markdown]
# # 20 · Split a picture
#
# A picture of a gigapixel fits into no machine. Cut it into bands of rows, a band for each machine, and most queries
# never notice: their windows lie inside the band. The others need keys that somebody else owns.
#
# **What you'll do:** plan which keys travel, at dilation 1, at 4, and at the largest there is; carry the plan out with
# four ranks in one process, and get the same numbers and the same gradients as without a cut; see where sending heads
# is cheaper than sending tokens; cut a convolution; and start real processes.
#
# **What you'll need:** [01, draw a window](01_draw_a_window.ipynb), [03, dilate it](03_dilate_it.ipynb). One process:
# the last section has a command for more.

# %%
import torch

from dinat_ref import na2d
from dinat_ref.attention import neighborhood_attention_part
from dinat_ref.parallel.plan import Plan, even_split, received_bytes

# %% [markdown]
# ## What travels
#
# An axis of 32 tokens over four ranks, a colour each. A window of 7 reaches three tokens to either side, so every rank
# needs three keys of each neighbour, its *halo*: hatched, in the colour of their owner.

# %%
from dinat_ref.viz.split import draw_plan, draw_traffic, plan_legend
from dinat_ref.viz.theme import new_figure, share_legend

near = Plan(even_split(32, 4), kernel_size=7)
figure, grid = new_figure(size=(8.0, 2.3))
draw_plan(near, grid[0, 0], title="kernel 7: three keys of each neighbour")
share_legend(figure, plan_legend())
print("rank 1 receives", near.receives(1))
assert near.receives(1) == {0: [range(5, 8)], 2: [range(16, 19)]}
figure

# %% [markdown]
# Nothing is rounded up. Here is the same said with sets, from the windows of tutorial 01 alone: what the queries of a
# rank attend, less what it owns.

# %%
from dinat_ref import window


def needed(plan, rank):
    """The keys of all windows of a rank's queries that it does not own."""
    options = {"kernel_size": plan.kernel_size, "dilation": plan.dilation}
    keys = {key for query in plan.shards[rank] for key in window(query, plan.length, **options)}
    return keys - set(plan.shards[rank])


def planned(plan, rank):
    """The keys that the plan brings."""
    return [key for ranges in plan.receives(rank).values() for keys in ranges for key in keys]


for rank in range(4):
    assert sorted(planned(near, rank)) == sorted(needed(near, rank))

# %% [markdown]
# Now dilate. At 4 three keys span nine tokens, and every group of the neighbour sends one: a halo of four. At 10, the
# largest dilation there is, a rank needs something of everybody, with gaps: a halo that knew no groups would bring the
# whole axis. And a rank may own next to nothing; then its halo reaches over several ranks. At the edges it follows the
# shift: the last two tokens attend the last seven.

# %%
plans = {
    "kernel 3, dilation 4": Plan(even_split(32, 4), kernel_size=3, dilation=4),
    "kernel 3, dilation 10, the largest: keys of the whole axis": Plan(even_split(32, 4), 3, dilation=10),
    "kernel 7, shards of 13, 1, 16 and 2": Plan((13, 1, 16, 2), kernel_size=7),
}
figure, grid = new_figure(3, 1, size=(8.0, 5.6))
for axes, (title, plan) in zip(grid.flat, plans.items()):
    draw_plan(plan, axes, title=title)
    assert all(sorted(planned(plan, rank)) == sorted(needed(plan, rank)) for rank in range(4))
    print(f"{title}: {[plan.halo(rank) for rank in range(4)]} keys travel to the ranks")
assert planned(plans["kernel 7, shards of 13, 1, 16 and 2"], 3) == [25, 26, 27, 28, 29]
figure

# %% [markdown]
# ## Four ranks in one process
#
# Carry a plan out on a photo. Each rank has a band of rows of queries, keys and values: those of
# [tutorial 07](07_denoise_a_photo.ipynb), 3 x 3 patches that make the layer a denoiser. What a rank receives we copy
# out of the others' bands, and count. What it computes is `neighborhood_attention_part`: queries of a part, windows of
# the whole.

# %%
from dinat_ref.analysis.photo import load_photo, patch_operands

torch.manual_seed(0)
photo = load_photo()[96:224, 196:324]
noisy = photo + 0.1 * torch.randn_like(photo)
query, key = patch_operands(noisy, strength=0.4)
value = noisy[None, :, :, None]
plan = Plan(even_split(128, 4), kernel_size=9, dilation=2)
kernel = {"kernel_size": 9, "dilation": 2, "scale": 1.0}


def own(tensor, rank):
    """A rank's band of rows."""
    return tensor[:, plan.shards[rank].start : plan.shards[rank].stop]


def held(bands, rank):
    """The rows at hand of a rank, its own between those that others send, and how many numbers that takes."""
    pieces, sent = [], 0
    for source, ranges in sorted({**plan.receives(rank), rank: [plan.shards[rank]]}.items()):
        rows = sorted(row for keys in ranges for row in keys)
        piece = bands[source][:, [row - plan.shards[source].start for row in rows]]
        pieces.append(piece)
        sent += piece.numel() if source != rank else 0
    return torch.cat(pieces, 1), sent


def attend(query, key, value):
    """All ranks, one after the other; what each computes, and how many numbers it receives."""
    outputs, received = [], []
    keys, values = ([own(tensor, rank) for rank in range(4)] for tensor in (key, value))
    for rank in range(4):
        (near_keys, sent_keys), (near_values, sent_values) = held(keys, rank), held(values, rank)
        first = min([plan.shards[rank].start, *planned(plan, rank)])
        box = {"layout": (128, 128), "query_start": (plan.shards[rank].start, 0), "key_start": (first, 0)}
        outputs.append(neighborhood_attention_part(own(query, rank), near_keys, near_values, **kernel, **box))
        received.append(sent_keys + sent_values)
    return torch.cat(outputs, 1), received


output, received = attend(query, key, value)
whole = na2d(query, key, value, **kernel)
torch.testing.assert_close(output, whole, rtol=1e-5, atol=1e-6)
numbers = key.shape[-1] + value.shape[-1]
print("numbers received:", received)
assert received == [128 * numbers * plan.halo(rank) for rank in range(4)]

# %% [markdown]
# The picture in the colours of the ranks, and what rank 1 holds while it computes its band:

# %%
from matplotlib.colors import to_rgb

from dinat_ref.viz.split import rank_colour

tints = torch.tensor([to_rgb(rank_colour(rank)) for rank in range(4)])
tinted = torch.cat([0.65 * own(photo[None], rank)[0] + 0.35 * tints[rank] for rank in range(4)])
mine = torch.ones_like(photo)
rows = torch.tensor(sorted([*plan.shards[1], *planned(plan, 1)]))
mine[rows] = tinted[rows]
mine[own(torch.arange(128)[None], 1)[0]] = output[0, own(torch.arange(128)[None], 1)[0], :, 0].detach()
figure, grid = new_figure(1, 3, size=(8.2, 3.0))
for axes, image, title in zip(
    grid.flat,
    (tinted, mine, output[0, :, :, 0].detach()),
    ("who owns what", "rank 1: its output, and its halo", "all ranks: no seam"),
):
    axes.imshow(image.clamp(0, 1).numpy())
    axes.set_title(title)
    axes.set_axis_off()
figure

# %% [markdown]
# ## The way back
#
# A key that travelled has two lives: its owner's windows attend it, and a neighbour's. Its gradient is the sum of both.
# So what was sent forwards comes back backwards, and is *added* to what the owner has. Autograd does it here by itself,
# for the exchange is nothing but copying; between processes the message is sent the other way.

# %%
leaves = [tensor.double().requires_grad_() for tensor in (query, key, value)]
weights = torch.randn(whole.shape, dtype=torch.float64)
split = torch.autograd.grad((attend(*leaves)[0] * weights).sum(), leaves)
together = torch.autograd.grad((na2d(*leaves, **kernel) * weights).sum(), leaves)
for mine, theirs in zip(split, together):
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
print("the same gradients of queries, keys and values, to 1e-12")

# %% [markdown]
# ## When heads are cheaper
#
# There is another way to cut: by heads. Every rank trades its tokens of all heads for all tokens of some heads, attends
# as if nothing were cut, and trades back. What that costs does not depend on the window, and it falls with the number
# of ranks. A halo costs what the window asks for:

# %%
ranks = [2, 4, 8, 16, 32]
curves = {}
for dilation in (1, 4, 36):
    plans = [Plan(even_split(256, count), 7, dilation=dilation) for count in ranks]
    curves[f"halo, dilation {dilation}"] = [256 * received_bytes(plan, 32, 32, 4)["halo"] for plan in plans]
curves["heads"] = [256 * received_bytes(plan, 32, 32, 4)["heads"] for plan in plans]
figure, grid = new_figure(size=(7.5, 3.6))
draw_traffic(curves, ranks, grid[0, 0], "One layer, 256 x 256 tokens, 32 heads of 32, float32")
for name, amounts in curves.items():
    print(f"{name:18}", *(f"{amount / 2**20:8.1f} MiB" for amount in amounts))
assert all(near < heads for near, heads in zip(curves["halo, dilation 1"], curves["heads"]))
assert all(far > heads for far, heads in zip(curves["halo, dilation 36"][1:4], curves["heads"][1:4]))
figure

# %% [markdown]
# DiNAT's layers alternate between the two: windows of dilation 1, whose halo is a few rows however many ranks there
# are, and windows that span the map. `how="auto"` decides for each call, and says why:

# %%
from dinat_ref.parallel.checked import choose_way

for dilation in (1, 36):
    print(*choose_way(Plan(even_split(256, 8), 7, dilation=dilation), heads=32, head_dim=32, element_size=4), sep=": ")
assert choose_way(Plan(even_split(256, 8), 7, dilation=36), heads=32, head_dim=32, element_size=4)[0] == "heads"

# %% [markdown]
# ## Convolutions
#
# Between the layers of a DiNAT stand convolutions of 3 x 3 with stride 2. They need a halo, too, but one of a row.
# Output o looks at inputs 2o - 1 to 2o + 1, and belongs to the rank that owns input 2o, so a map that is halved stays
# where it is. Seven rows of uneven shards:

# %%
from dinat_ref.parallel.halo import Sliding, outputs_of, sliding_of

halving = Sliding(sizes=(3, 0, 4), kernel_size=3, stride=2, padding=1)
print("outputs of each rank", halving.outputs, "- rank 0 receives", halving.receives(0))

convolution = torch.nn.Conv2d(2, 4, kernel_size=3, stride=2, padding=1)
rows = torch.randn(1, 2, 7, 6)
sliding, apply, fill = sliding_of(convolution, (3, 0, 4))
bands = [outputs_of(apply, rows[:, :, :4], 0, sliding.output_shards[0], sliding, fill)]  # its own three, and one more
bands.append(outputs_of(apply, rows[:, :, 3:], 3, sliding.output_shards[2], sliding, fill))
torch.testing.assert_close(torch.cat(bands, 2), convolution(rows))
assert halving.receives(0) == {2: [range(3, 4)]}

# %% [markdown]
# Everything else in a DiNAT looks at one token at a time. That is a whole model in bands: `shard_model`.
#
# ## Real processes
#
# The same with processes that share nothing. A program, `split.py`:
#
#     import torch
#     from dinat_ref.parallel.sharded import neighborhood_attention_sharded
#
#     torch.distributed.init_process_group("gloo")
#     mesh = torch.distributed.init_device_mesh("cpu", (torch.distributed.get_world_size(),))
#     query, key, value = torch.randn(3, 1, 64, 128, 4, 32)  # this rank's 64 rows
#     output = neighborhood_attention_sharded(query, key, value, kernel_size=7, mesh=mesh, axis=0)
#
# started by `torchrun --nproc-per-node 2 split.py`. And the photo of this tutorial, with the bytes that travel:
#
#     torchrun --nproc-per-node 2 -m dinat_ref.parallel.demo
#
# It is two files of what you have just done by hand: [held.py](../dinat_ref/parallel/held.py) brings the keys,
# [attend.py](../dinat_ref/parallel/attend.py) computes the middle of the band while they are under way. A rank that was
# started with another kernel is told so, on every rank, before anything is sent.
#
# ## On your own
#
# * `python -m dinat_ref.parallel.plan 4096 7 --dilation 585 --ranks 16` draws plans in a terminal, and counts for up to
#   4,096 ranks. From how many ranks on is a halo of the largest dilation less than half of an all-gather?
#
# <details><summary>Solution</summary>
#
# From 16. A rank needs seven keys at most for each of its queries, and with 16 ranks that is less than the axis.
#
# ```python
# for count in (2, 4, 8, 16, 32):
#     amounts = received_bytes(Plan(even_split(4096, count), 7, dilation=585), heads=8, head_dim=32, element_size=4)
#     assert (2 * amounts["halo"] < amounts["all-gather"]) == (count >= 16)
# ```
#
# </details>
#
# * Give the plan `is_causal=True`, or a stride: who receives nothing at all?
#
# <details><summary>Solution</summary>
#
# The first rank of a causal axis, which has no past; and everybody, where the stride is the window and no block is cut.
#
# ```python
# assert Plan(even_split(32, 4), 7, is_causal=True).receives(0) == {}
# assert not any(Plan(even_split(32, 4), 8, stride=8).receives(rank) for rank in range(4))
# ```
#
# </details>
#
# * One machine, and a map that is larger than its memory: `dinat_ref.parallel.stream` carries the same plan out band by
#   band. Why does it take the rows of one dilation group at a time?
#
# <details><summary>Solution</summary>
#
# The rows of a group see each other alone. A band of neighbouring rows would need rows of every group, which at the
# largest dilation is all of them, whatever the band.
#
# ```python
# band = range(0, 4)  # neighbouring rows, or four of a group
# of_rows = {key for row in band for key in window(row, 32, 3, dilation=8)}
# of_a_group = {key for row in band for key in window(8 * row, 32, 3, dilation=8)}
# assert (len(of_rows), len(of_a_group)) == (12, 4)
# ```
#
# </details>
#
# * Split columns, too, rows first: the corners come in two steps, through a neighbour. Why does no token come twice?
#
# <details><summary>Solution</summary>
#
# The second step sends columns of all rows at hand, the first step's halo included. Both together are all that is held
# less what is owned, and each token of it once.
#
# ```python
# plan = Plan(even_split(24, 3), kernel_size=5)
# size, halo = plan.sizes[1], plan.halo(1)  # of the rank in the middle, on either axis
# assert halo * size + halo * (size + halo) == (size + halo) ** 2 - size**2
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani & Shi, *Dilated Neighborhood Attention Transformer*, [arXiv:2209.15001](https://arxiv.org/abs/2209.15001):
#   the layers that alternate.
# * Jacobs et al., *DeepSpeed Ulysses*, [arXiv:2309.14509](https://arxiv.org/abs/2309.14509): tokens for heads.
# * Liu, Zaharia & Abbeel, *Ring Attention*, [arXiv:2310.01889](https://arxiv.org/abs/2310.01889): what to do when every
#   query needs every key.

# %% [markdown]
# # 14 · See why dilation helps
#
# DiNAT's layers take turns: one attends nearby, the next far away. Why not all nearby, or all far away? Here is a task
# so small that the reason can be *proved*; then networks are trained, to see whether it is so.
#
# **What you'll do:** show that some networks cannot learn to compare two markers, however long they are trained; draw
# which tokens meet inside a network; predict who learns what; and train them.
#
# **What you'll need:** [03, dilate it](03_dilate_it.ipynb), [13, train a DiNAT](13_train_a_dinat.ipynb), and
# [08, grow a receptive field](08_grow_a_receptive_field.ipynb).

# %%
import copy
from dataclasses import replace
from itertools import product

import torch

from dinat_ref import Neighborhood
from dinat_ref.training.synthetic import far_match, texture

torch.set_num_threads(1)  # so small a network gains little from more

# %% [markdown]
# ## Two markers
#
# An image of 6 x 6 pixels is empty but for two markers, each orange or blue. Have they the same colour? `far_match`
# draws such images at any distance. We take the largest, on opposite sides of the image, and the least, where the
# markers touch.

# %%
from dinat_ref.viz.attention import draw_photo
from dinat_ref.viz.theme import ACCENT, INK, QUERY, SERIES, new_figure, share_legend

size = 6
tasks = {"far apart": (5, 5), "touching": (1, 1)}  # the least and the largest distance
colours = torch.tensor([[0.84, 0.37, 0.0], [0.0, 0.45, 0.7]])  # orange, blue
figure, grid = new_figure(2, 6, size=(8, 3.2))
for axes_of_row, distance in zip(grid, tasks.values()):
    examples = far_match(num_images=40, seed=0, size=size, distance=distance)
    assert (examples.images.sum((1, 2, 3)) == 2).all()
    examples = examples.pick(examples.labels.argsort(stable=True)[[0, 1, 2, -1, -2, -3]])  # three of each class
    for axes, image, label in zip(axes_of_row, examples.images, examples.labels):
        empty = 0.93 * (1 - image.sum(0))[..., None]  # [6, 6, 1]
        draw_photo(empty + torch.einsum("cxy,cr->xyr", image, colours), axes, title=examples.class_names[label])
figure

# %% [markdown]
# One marker alone says nothing: orange is as likely in both classes. It takes both.
#
# ## What a sum cannot do
#
# At the end of a DiNAT stands a *mean over tokens*. Suppose no token has seen both markers. Then each token's share of
# the score knows of one marker at most, and the whole score is a sum: $f$(first marker) + $g$(second marker), above 0
# for "same".
#
# Such a sum gets at most three of the four cases right. For if AA and BB are above 0, and AB and BA below, then
#
# $$f(A) + g(A) + f(B) + g(B) \;>\; 0 \;>\; f(A) + g(B) + f(B) + g(A),$$
#
# and on both sides stand the same four numbers. All sums of numbers from -3 to 3:

# %%
best = 0
for f_a, f_b, g_a, g_b in product(range(-3, 4), repeat=4):
    same, different = (f_a + g_a, f_b + g_b), (f_a + g_b, f_b + g_a)
    best = max(best, sum(score > 0 for score in same) + sum(score < 0 for score in different))
print(f"of the four cases a sum gets at most {best} right")
assert best == 3

# %% [markdown]
# Three of four: an accuracy of 75 %, with the best $f$ and $g$ there are. Training does not enter into it.
#
# ## Who meets whom?
#
# So what counts is whether *some* token, after all layers, has both markers in its receptive field. `pairs_that_meet`
# answers that for every pair of positions on an axis; in the image, two tokens meet if they do so on both axes. We
# compare two layers with windows of 3 x 3: NA has dilation 1, and DiNA dilation 2, the largest that fits.

# %%
from dinat_ref.analysis.pairs import pairs_that_meet, share_that_meets
from dinat_ref.viz.maps import draw_map

local, dilated = Neighborhood((size, size), 3), Neighborhood((size, size), 3, dilation=2)
stacks = {"na_na": [local, local], "dina_dina": [dilated, dilated], "na_dina": [local, dilated]}
names = {"na_na": "NA-NA", "dina_dina": "DiNA-DiNA", "na_dina": "NA-DiNA"}
beside = torch.arange(size - 1)

figure, grid = new_figure(1, 3, size=(8, 3.2))
for axes, (pattern, layers) in zip(grid[0], stacks.items()):
    draw_map(pairs_that_meet(layers)[0], axes, title=names[pattern])
    axes.images[0].set(cmap="Greys", clim=(-0.1, 2.5))
    axes.set_xticks(range(size))
    axes.set_yticks(range(size))
    axes.set_xlabel("position of one")
    far_pairs = axes.scatter([0, 5], [5, 0], s=70, color=QUERY, label="markers far apart")
    places = torch.cat([beside, beside + 1]), torch.cat([beside + 1, beside])
    touching_pairs = axes.scatter(*places, s=50, marker="s", color=SERIES[0], label="markers that touch")
grid[0, 0].set_ylabel("position of the other")
share_legend(figure, [far_pairs, touching_pairs])
figure

# %% [markdown]
# Grey cells are pairs of positions that meet. NA-NA leaves out the two corners: tokens meet up to a distance of 4, and
# the markers are 5 apart. DiNA-DiNA is a chequerboard: each token stays in its dilation group, and no two tokens
# that touch are in one group. With one layer of each, everybody meets everybody. So we predict:


# %%
def markers(images):
    """Row and column of both markers: two of [N, 2]."""
    return images.sum(1).nonzero()[:, 1:].unflatten(0, (-1, 2)).unbind(1)


meet = {}
for task, distance in tasks.items():
    first, second = markers(far_match(2000, seed=0, size=size, distance=distance).images)
    for pattern, layers in stacks.items():
        meet[task, pattern] = share_that_meets(layers, first, second)
        verdict = "can learn it" if meet[task, pattern] else "at most 75 %"
        print(f"{task:10} {names[pattern]:10} {meet[task, pattern]:4.0%} of the pairs meet: {verdict}")
assert meet["far apart", "na_na"] == meet["far apart", "dina_dina"] == meet["touching", "dina_dina"] == 0
assert meet["far apart", "na_dina"] == meet["touching", "na_dina"] == meet["touching", "na_na"] == 1

# %% [markdown]
# ## Ask a network whether it is a sum
#
# That was the receptive field. Does a real network obey? For a sum, score(AA) + score(BB) - score(AB) - score(BA) is 0,
# at any place of the markers and with any parameters, also random ones. We ask networks of two DiNAT layers, 17,478
# parameters each, with the markers in all places that far-apart ones can have. (Double precision, to see a zero.)


# %%
from dinat_ref.training.small_models import pattern_model


def make(pattern, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return pattern_model(pattern, size, num_channels=2)


def four_cases(first, second):
    """The same places in all four colourings AA, AB, BA, BB: [N, 4, 2, 6, 6]."""
    images = torch.zeros(len(first), 4, 2, size, size)
    place = torch.arange(len(first))
    for case, (one, other) in enumerate(product((0, 1), repeat=2)):
        images[place, case, one, first[:, 0], first[:, 1]] = 1
        images[place, case, other, second[:, 0], second[:, 1]] = 1
    return images


@torch.no_grad()
def not_a_sum(model, cases):
    """The largest score(AA) + score(BB) - score(AB) - score(BA) of all places."""
    logits = copy.deepcopy(model).double().eval()(cases.flatten(0, 1).double())
    score = (logits[:, 1] - logits[:, 0]).unflatten(0, (-1, 4))  # how much more it believes in "same"
    return (score @ torch.tensor([1.0, -1, -1, 1]).double()).abs().max().item()


places = {task: torch.cat(markers(far_match(2000, 0, size, distance).images), 1) for task, distance in tasks.items()}
cases = {task: four_cases(*of_task.unique(dim=0).split(2, dim=1)) for task, of_task in places.items()}
for task, pattern in product(tasks, stacks):
    value = not_a_sum(make(pattern), cases[task])
    print(f"{task:10} {names[pattern]:10} {value:.1e}")
    assert (value < 1e-12) == (meet[task, pattern] == 0)

# %% [markdown]
# Where the markers do not meet, the network is a sum, to the last digits of double precision. It stays one whatever
# training does to its parameters.
#
# ## Train them
#
# Each network learns each task: 300 steps of 32 images, all from seed 0. The accuracy is measured on every image that
# there is. That is not many: a network could learn them by heart. Even so it cannot get past 75 % as a sum.

# %%
from dinat_ref.training.loop import start, train
from dinat_ref.training.recipe import TASK

recipe = replace(TASK, epochs=6, batch_size=32)
found = {}
for task, distance in tasks.items():
    labels = torch.tensor([1, 0, 0, 1]).repeat(len(cases[task]))
    learned = far_match(50 * recipe.batch_size, seed=0, size=size, distance=distance)
    every = replace(learned, images=cases[task].flatten(0, 1), labels=labels)
    print(f"{task}: {len(every)} different images")
    for pattern in stacks:
        state = train(start(make(pattern), recipe), learned, every, recipe)
        found[task, pattern] = state.history
        accuracy = state.history[-1]["held_out_accuracy"]
        print(f"   {names[pattern]:10} {accuracy:6.1%}, not a sum: {not_a_sum(state.model, cases[task]):.1e}")
        if meet[task, pattern]:
            assert accuracy > 0.95
        else:
            assert accuracy < 0.76  # rounding may decide a tie
            assert not_a_sum(state.model, cases[task]) < 1e-9

# %%
figure, grid = new_figure(2, 3, size=(8, 4.6), sharex=True, sharey=True)
for axes, (task, pattern) in zip(grid.flat, product(tasks, stacks)):
    accuracy = [0.5, *[row["held_out_accuracy"] for row in found[task, pattern]]]
    colour = ACCENT if meet[task, pattern] else QUERY
    axes.plot(torch.arange(len(accuracy)) * 50, accuracy, color=colour, marker="o", markersize=4, clip_on=False)
    axes.axhline(0.75, color=INK, linestyle="--", linewidth=1, marker="")
    axes.set(ylim=(0.4, 1.03), yticks=(0.5, 0.75, 1))
    axes.set_title(f"{names[pattern]}: {'meet' if meet[task, pattern] else 'never meet'}", loc="left", fontsize=9)
    if axes in grid[:, 0]:
        axes.set_ylabel(f"{task}\naccuracy")
grid[1, 1].set_xlabel("steps of training")
grid[0, 0].text(300, 0.76, "most for a sum", fontsize=8, ha="right")
figure

# %% [markdown]
# As predicted, in all six. (One seed each; the experiment at the end of this page has five.)
#
# Note what the prediction does *not* say. Where markers meet, a network *can* learn the task. Whether training finds
# it, and when, is another matter: such tasks begin with a plateau, on which nothing can be seen to happen, and
# which lasts longer in larger images.
#
# ## A task of many pixels
#
# `texture` is the other extreme: noise in which pixels come in equal pairs. Do the pairs lie side by side, or one above
# the other?

# %%
noise = texture(num_images=4000, seed=0, size=9)
shown = noise.pick(noise.labels.argsort(stable=True)[[0, 1, 2, -1, -2, -3]])
figure, grid = new_figure(1, 6, size=(8, 1.7))
for axes, image, label in zip(grid[0], shown.images[:, 0], shown.labels):
    draw_photo((image + 1.3) / 2.4, axes, title=f"in {noise.class_names[label]}")

for apart in (1, 2, 3):
    equal = (noise.images[..., apart:] == noise.images[..., :-apart]).double().mean((1, 2, 3))  # [N], along rows
    shares = [equal[noise.labels == label].mean().item() for label in (0, 1)]
    print(f"{apart} apart in a row, equal: {shares[0]:.2f} (pairs in rows), {shares[1]:.2f} (pairs in columns)")
    assert (abs(shares[0] - shares[1]) > 0.2) == (apart == 1)
dilated = [Neighborhood((9, 9), 3, dilation=3)] * 2
assert not pairs_that_meet(dilated)[0].diagonal(1).any()  # no pixel meets the one beside it
figure

# %% [markdown]
# All that there is to know lies between pixels that touch, and a token of DiNA-DiNA never has two of them. What it
# does have is the same noise in both classes, so the mean of its score is the same in both, whatever it has learned.
#
# ## The whole experiment
#
# The command `python -m dinat_ref.training.experiments patterns` trains all orders of two layers on `far_match` and
# `texture`, on images of 9 x 9 pixels, with DiNA's dilation at 3, five seeds each:
#
# ![Bars and dots: accuracy of five orders of layers on two tasks](../figures/patterns.svg)
#
# `... distance` moves the markers apart, one token at a time, for two layers of NA with larger and larger windows. A
# token sees $k - 1$ tokens to each side after two layers, so that tokens meet up to a distance of $2 (k - 1)$:
#
# ![Curves of accuracy against the distance of two markers, for three kernel sizes](../figures/distance.svg)
#
# And `... digits` changes the dilation of trained networks, like those of [13](13_train_a_dinat.ipynb), at test time:
# of the second layer alone, which costs little; and on scans twice as large, of all layers. The same weights, every
# window stretched to what it spanned in training, find most of the digits again:
#
# ![Bars of accuracy on digits, with dilations changed at test time](../figures/digits.svg)
#
# These are illustrations. Two layers, toy tasks, minutes on a processor: they show a mechanism, and say nothing about
# how much it matters on photographs. For that there are the paper's numbers, of models with twelve layers on ImageNet:
#
# | layers | NA-NA | DiNA-DiNA | DiNA-NA | NA-DiNA | full attention |
# |---|---|---|---|---|---|
# | top-1, % | 80.0 | 77.9 | 80.6 | 80.8 | 81.2 |
#
# There, too, the mixed orders come before the pure ones, in much smaller steps. Photographs forgive: a dog can be told
# from a cat without comparing two pixels on opposite sides, and twelve layers see further than two.
#
# ## On your own
#
# * Put a third layer of NA behind NA-NA. How many does an image of 12 x 12 need, so that markers on opposite sides
#   meet?
#
# <details><summary>Solution</summary>
#
# Each layer lets tokens meet that are two further apart: 2 after one layer, 4 after two. Opposite sides of 12 tokens
# are 11 apart, which takes six.
#
# ```python
# def farthest(num_layers, length=12):
#     meets = pairs_that_meet([Neighborhood((length, length), 3)] * num_layers)[0]  # [12, 12]
#     return max(abs(i - j) for i, j in meets.nonzero().tolist())
#
# assert [farthest(count) for count in (1, 2, 3)] == [2, 4, 6]
# assert farthest(5) < 11 == farthest(6)
# ```
#
# </details>
#
# * Add DiNA-NA to `stacks`. Is there a distance at which it matters which comes first?
#
# <details><summary>Solution</summary>
#
# On this image it does not matter. It begins to matter where the dilation is larger than the kernel: with dilation 4 on
# 12 tokens, markers on opposite sides meet in one order only.
#
# ```python
# def meeting(length, *dilations):
#     return pairs_that_meet([Neighborhood((length, length), 3, dilation=d) for d in dilations])[0]
#
# assert meeting(size, 1, 2).all() and meeting(size, 2, 1).all()
# assert (meeting(12, 1, 3) == meeting(12, 3, 1)).all()
# in_one_order = meeting(12, 1, 4) != meeting(12, 4, 1)
# assert in_one_order.nonzero().tolist() == [[0, 11], [11, 0]]
# print("NA first:", meeting(12, 1, 4)[0, 11].item(), "DiNA first:", meeting(12, 4, 1)[0, 11].item())
# ```
#
# </details>
#
# * How do markers meet in a network with windows that do not overlap, and in one where they are shifted? Tutorial 08
#   has the layers for it: `WindowedAttention`.
#
# <details><summary>Solution</summary>
#
# With fixed blocks they meet only if they lie in one block, and more layers change nothing. Shifted in every other
# layer, most pairs of an axis meet after two.
#
# ```python
# from dinat_ref.analysis.receptive_field import WindowedAttention
#
# fixed = [WindowedAttention((6, 6), 3)] * 2
# shifted = [WindowedAttention((6, 6), 3), WindowedAttention((6, 6), 3, 1)]
# counts = [int(pairs_that_meet(layers)[0].sum()) for layers in (fixed, shifted)]
# print(counts, "of 36 pairs")
# assert counts[0] == 2 * 9 < counts[1]
# ```
#
# </details>
#
# ## Further reading
#
# * Hassani & Shi, *Dilated neighborhood attention transformer*, [arXiv:2209.15001](https://arxiv.org/abs/2209.15001):
#   the table above.
# * Minsky & Papert, *Perceptrons*, MIT Press 1969: what sums over local views cannot do, and where the argument comes
#   from.
# * Next: [15, colour a photo](15_colour_a_photo.ipynb).

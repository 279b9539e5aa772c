# %% [markdown]
# # 15 · Colour a photo
#
# A grey photo in which one pixel of 400 has kept its colour. No network is trained, and nothing is learned from other
# photos. Four passes of attention over 49 keys each bring the colours back; and without dilation, even 32 passes do
# not do it as well.
#
# **What you'll do:** make attention carry colours from the few pixels that have one to all the others, see what
# dilation is good for when knowledge is sparse, and trace a wrong colour back to the pixels that gave it.
#
# **What you'll need:** [07, denoise a photo](07_denoise_a_photo.ipynb), and [03, dilate it](03_dilate_it.ipynb). The
# photos ship with scikit-learn.

# %%
import torch
from sklearn.datasets import load_sample_image

from dinat_ref import Neighborhood, na2d
from dinat_ref.analysis.photo import patch_operands, psnr

# %% [markdown]
# ## A few coloured pixels
#
# Grey is the weighted mean of red, green and blue that the eye takes for brightness. What is missing is the *colour*:
# the photo minus its grey, three numbers per pixel. We keep those of one pixel in 400, chosen by chance.


# %%
def load(name):
    """A photo of scikit-learn at half its size."""
    pixels = torch.tensor(load_sample_image(name)).movedim(-1, 0) / 255  # [3, 427, 640]
    return torch.nn.functional.avg_pool2d(pixels[None], 2)[0].movedim(0, -1)  # [213, 320, 3]


def take_colours(photo):
    """Grey, and colours with a fourth number behind them: 1 where a colour is known. Both 0 elsewhere."""
    grey = (photo @ torch.tensor([0.299, 0.587, 0.114]))[..., None]  # [213, 320, 1]
    known = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)) < 1 / 400
    return grey, known, torch.cat([photo - grey, torch.ones_like(grey)], dim=-1) * known  # [213, 320, 4]


def paint(grey, state):
    """The grey photo with its colours; grey where there is none."""
    return (grey + state[..., :3] / state[..., 3:].clamp_min(1e-30)).clamp(0, 1)


flower = load("flower.jpg")
grey, known, colours = take_colours(flower)
grey_psnr = psnr(paint(grey, 0 * colours), flower)
print(f"{known.sum()} of {known.numel():,} pixels have a colour; the grey photo has {grey_psnr:.1f} dB")

# %% [markdown]
# ## Attention that passes colours on
#
# Queries and keys are tutorial 07's patches, of the grey photo: attend to what looks alike. The value is the colour,
# and the fourth number goes with it as a *witness*. Of a pixel's 49 keys most know nothing: they bring 0, and weaken
# the colour; but they weaken the witness just as much. So the quotient of the two,
#
# $$\frac{\sum_j w_{ij}\, m_j\, c_j}{\sum_j w_{ij}\, m_j},$$
#
# with $m_j$ = 1 where the colour $c_j$ is known, is a mean over the keys that know. Pixels that knew their colour keep
# it. One pass per dilation:


# %%
def spread(colours, known, query, key, dilations, kernel_size=7):
    """Pass colours on, once for each dilation."""
    state = colours
    for dilation in dilations:
        passed = na2d(query, key, state[None, :, :, None], kernel_size, dilation=dilation, scale=1.0)[0, :, :, 0]
        state = torch.where(known, colours, passed)
    return state


query, key = patch_operands(grey[..., 0], patch_size=3, strength=0.2)
for dilation in (1, 8):
    once = spread(colours, known, query, key, [dilation])
    coloured = (once[..., 3] > 0).double().mean().item()
    print(f"after one pass with dilation {dilation}, {100 * coloured:.1f} % of the pixels have a colour")
    assert abs(coloured - (1 - (1 - 1 / 400) ** 49)) < 0.01

# %% [markdown]
# That is as many as chance says: a pixel finds a colour if one of its 49 keys has one. Far or near makes no
# difference. *A dilated window looks further, but not at more.*
#
# ## Four passes
#
# It does make a difference for what follows. After four passes without dilation a pixel has heard from 25 x 25 pixels.
# With dilations 8, 4, 2, 1, for the same number of keys, from 91 x 91: every pass spreads what the coarser one brought,
# and fills the gaps that it left.

# %%
near = spread(colours, known, query, key, [1, 1, 1, 1])
far = spread(colours, known, query, key, [8, 4, 2, 1])
results = {"dilations 1, 1, 1, 1": near, "dilations 8, 4, 2, 1": far}
for name, state in results.items():
    share = (state[..., 3] > 0).double().mean().item()
    print(f"{name}: {100 * share:5.1f} % coloured, {psnr(paint(grey, state), flower):.1f} dB")
assert psnr(paint(grey, far), flower) > psnr(paint(grey, near), flower) + 5

# %%
from dinat_ref.viz.attention import draw_photo
from dinat_ref.viz.theme import new_figure, share_legend

figure, grid = new_figure(2, 2, size=(8, 5.8))
draw_photo(paint(grey, 0 * colours), grid[0, 0], title=f"given: {known.sum()} coloured pixels (enlarged)")
rows, columns = known[..., 0].nonzero(as_tuple=True)
grid[0, 0].scatter(columns, rows, s=14, c=flower[rows, columns].numpy(), linewidths=0)
draw_photo(flower, grid[0, 1], title="the photo")
for axes, (name, state) in zip(grid[1], results.items()):
    draw_photo(paint(grey, state), axes, title=f"{name}: {psnr(paint(grey, state), flower):.1f} dB")
figure

# %% [markdown]
# The squares at the bottom left are receptive fields. A pixel stays grey exactly if there is no coloured one among the
# pixels that tutorial 08 says it can see. (To test "exactly", all keys get equal weights here. A softmax weight is
# never 0 on paper, but in float32 it is where a score lies a hundred below the largest.)

# %%
from dinat_ref.analysis.receptive_field import axis_fields

for dilations in ([1, 1, 1, 1], [8, 4, 2, 1]):
    layers = [Neighborhood(grey.shape[:2], 7, dilation=dilation) for dilation in dilations]
    rows, columns = [axis_fields(layers, axis)[-1].double() for axis in (0, 1)]  # [213, 213] and [320, 320]
    in_sight = rows @ known[..., 0].double() @ columns.T  # [213, 320], how many coloured pixels a pixel can see
    means = spread(colours, known, 0 * query, key, dilations)
    torch.testing.assert_close(means[..., 3] > 0, in_sight > 0, rtol=0, atol=0)
    print(f"dilations {dilations}: {in_sight.mean():4.1f} coloured pixels in sight, on average")

# %% [markdown]
# ## More passes, other orders
#
# Could patience replace dilation? 32 passes colour everything, for eight times the cost, and are still behind four.
#
# Fine to coarse is worse than coarse to fine: the pass from afar should not have the last word. And the same large
# dilation four times is the mistake of tutorial 03. Every pixel hears from its own dilation group only, one pixel in
# 64; what it hears comes from far away; and the result is worse than the grey photo.

# %%
for dilations in ([1] * 8, [1] * 32, [1, 2, 4, 8], [8, 8, 8, 8], [16, 8, 4, 2, 1]):
    name = f"dilations {', '.join(map(str, dilations))}"
    if len(set(dilations)) == 1:
        name = f"dilation {dilations[0]}, {len(dilations)} times"
    results[name] = spread(colours, known, query, key, dilations)
results["dilations 8, 4, 2, 1, equal weights"] = means
quality = {name: psnr(paint(grey, state), flower) for name, state in results.items()}
for name, decibels in quality.items():
    print(f"{name:36} {decibels:.1f} dB")
best = quality["dilations 8, 4, 2, 1"]
assert best > quality["dilation 1, 32 times"] > quality["dilation 1, 8 times"]
assert best > quality["dilations 1, 2, 4, 8"]
assert grey_psnr > quality["dilation 8, 4 times"]
assert best > quality["dilations 8, 4, 2, 1, equal weights"] + 2

# %% [markdown]
# The last line shows what the patches are good for. With equal weights colours run over every edge; the patches stop
# them where the grey changes.
#
# ## Or larger windows
#
# A larger window looks further, too. We count what it costs: the keys that a pixel attends in all its passes.

# %%
kernel_sizes = (3, 5, 7, 9, 13)
curves = {}
for dilations in ([1, 1, 1, 1], [8, 4, 2, 1], [16, 8, 4, 2, 1]):
    states = [spread(colours, known, query, key, dilations, kernel_size) for kernel_size in kernel_sizes]
    decibels = [psnr(paint(grey, state), flower) for state in states]
    costs = [len(dilations) * kernel_size**2 for kernel_size in kernel_sizes]
    curves[f"dilations {', '.join(map(str, dilations))}"] = costs, decibels
    for cost, decibel in zip(costs, decibels):
        print(f"{cost:4} keys, dilations {dilations}: {decibel:.1f} dB")

costs, decibels = curves["dilations 16, 8, 4, 2, 1"]
assert costs[0] == 45
assert decibels[0] > curves["dilations 1, 1, 1, 1"][1][-1] + 1

# %%
figure, grid = new_figure(1, 1, size=(6.5, 3.8))
for name, (costs, decibels) in curves.items():
    grid[0, 0].semilogx(costs, decibels, label=name)
ticks = [4 * kernel_size**2 for kernel_size in kernel_sizes]
grid[0, 0].set_xticks(ticks, [str(tick) for tick in ticks])
grid[0, 0].minorticks_off()
grid[0, 0].set(xlabel="keys that a pixel attends in all passes", ylabel="PSNR, in decibels")
share_legend(figure, grid[0, 0].get_lines())
figure

# %% [markdown]
# Windows of 3 x 3 in five dilations: 45 keys a pixel. Four passes of 13 x 13 without dilation attend 676, and stay more
# than a decibel behind. It is like crossing a city: a train first, then a bus, and walk the rest.
#
# ## Where it bleeds
#
# And where the grey does *not* change? The other photo has walls and trees that are equally bright and equally rough.
# All that queries and keys know is grey patches, and so the trees get some red from the wall. We can check that this
# is the cause: let queries and keys look at the photo's colours (which nobody has who wants to colour a grey photo),
# and pass on the same 1 in 400 in the same four passes.

# %%
china = load("china.jpg")
grey, known, colours = take_colours(china)
colours.requires_grad_()  # for later
query, key = patch_operands(grey[..., 0], patch_size=3, strength=0.2)
state = spread(colours, known, query, key, [8, 4, 2, 1])
honest = paint(grey, state).detach()
cheated_state = spread(colours, known, *patch_operands(china, strength=0.35), [8, 4, 2, 1])
cheated = paint(grey, cheated_state).detach()
print(f"grey photo {psnr(paint(grey, 0 * colours).detach(), china):.1f} dB")
print(f"queries that see grey {psnr(honest, china):.1f} dB, queries that see colours {psnr(cheated, china):.1f} dB")
assert psnr(cheated, china) > psnr(honest, china) + 1

# %% [markdown]
# ## Whose colour is it?
#
# A pixel's colour is a mean of the colours that were given. Passes only add and multiply by weights, so the output is
# *linear* in the given colours, and the share that each of them has in one pixel is a gradient, as in
# [05, follow the gradients](05_follow_the_gradients.ipynb): through all four passes in one call.


# %%
def percent(colour):
    """Red, green and blue for printing."""
    return "red {} %, green {} %, blue {} %".format(*(100 * colour).round().int().tolist())


def shares(state, token):
    """How much each pixel gave to the colour of one token; those without a colour gave nothing."""
    (influence,) = torch.autograd.grad(state[(*token, 3)], colours)  # [213, 320, 4]
    return (influence * known)[..., 3] / state[(*token, 3)].detach()  # [213, 320]


tree = (174, 76)
share = shares(state, tree)
given = share[..., None] * colours.detach()[..., :3]
torch.testing.assert_close(given.sum((0, 1)), (honest - grey)[tree], rtol=1e-3, atol=1e-4)

print("in the photo", percent(china[tree]), "\npainted     ", percent(honest[tree]))
givers = [divmod(place, share.shape[1]) for place in share.flatten().topk(4).indices.tolist()]
for giver in givers:
    print(f"{100 * share[giver]:4.1f} % from {giver}: {percent(china[giver])}")
wall, cheated_share = givers[0], shares(cheated_state, tree)
assert share[wall] > 0.5
assert china[wall][0] > 2 * china[wall][1]

# %%
from dinat_ref.viz.windows import mark_query

figure, grid = new_figure(2, 2, size=(8, 5.6))
view = ((130, 213), (48, 178))
pictures = {"the photo": china, "coloured by grey patches": honest, "coloured by patches with colours": cheated}
for axes, (name, image) in zip(grid.flat, pictures.items()):
    draw_photo(image, axes, title=name, view=view)
axes = draw_photo(
    paint(grey, 0 * colours).detach(), grid[1, 1], title="who gave the marked pixel its colour", view=view
)
rows, columns = (share > 0).nonzero(as_tuple=True)
axes.scatter(columns, rows, s=1000 * share[rows, columns].numpy(), c=china[rows, columns].numpy(), edgecolors="w")
mark_query(axes, tree)
figure

# %% [markdown]
# More than half of this leaf's colour comes from the wall: the nearest coloured pixel lies there, and to grey patches
# the way is open. Queries that see colours leave it less to say.

# %%
print(f"the wall's share: {100 * share[wall]:.0f} % by grey patches, {100 * cheated_share[wall]:.0f} % by colours")
assert cheated_share[wall] < share[wall] - 0.2

# %% [markdown]
# Attention does what its queries and keys say. Where these cannot tell a leaf from a wall, the values get mixed, and no
# pass that follows can unmix them. That is why networks *learn* their queries and keys.
#
# ## On your own
#
# * Give 1 pixel in 50. How much does dilation help now? And with 1 in 4,000?
#
# <details><summary>Solution</summary>
#
# With 1 in 50 every window has a coloured pixel or the next one has: dilation helps little. With 1 in 4,000 a field of
# 91 x 91 holds two coloured pixels on average, and only larger dilations find one for every pixel.
#
# ```python
# grey, _, _ = take_colours(flower)
# query, key = patch_operands(grey[..., 0], patch_size=3, strength=0.2)
# gain = {}
# for one_in in (50, 4000):
#     known = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)) < 1 / one_in
#     given = torch.cat([flower - grey, torch.ones_like(grey)], dim=-1) * known
#     for dilations in ([1, 1, 1, 1], [8, 4, 2, 1], [30, 16, 8, 4, 2, 1]):
#         quality = psnr(paint(grey, spread(given, known, query, key, dilations)), flower)
#         gain[one_in, len(dilations), dilations[0]] = quality
#         print(f"1 in {one_in}, dilations {dilations}: {quality:.1f} dB")
# assert gain[50, 4, 8] - gain[50, 4, 1] < 2
# assert gain[4000, 6, 30] > gain[4000, 4, 8] + 1
# ```
#
# </details>
#
# * Draw strokes in place of the random pixels: set `known` along a line. A colour must now travel further; how far do
#   8, 4, 2, 1 reach?
#
# <details><summary>Solution</summary>
#
# Each pass reaches 3 * dilation pixels, together 3 * (8 + 4 + 2 + 1) = 45.
#
# ```python
# grey, _, _ = take_colours(flower)
# known = torch.zeros(grey.shape, dtype=torch.bool)
# known[:, 160] = True  # one upright stroke
# given = torch.cat([flower - grey, torch.ones_like(grey)], dim=-1) * known
# flat = torch.zeros(1, *grey.shape[:2], 1, 1)
# state = spread(given, known, flat, flat, [8, 4, 2, 1])
# columns = (state[100, :, 3] > 0).nonzero().flatten()
# assert (columns.min(), columns.max()) == (160 - 45, 160 + 45)
# ```
#
# </details>
#
# * Two more numbers in queries and keys, the position of a pixel divided by some width, prefer near pixels. Does that
#   help against the wall?
#
# <details><summary>Solution</summary>
#
# Not here. The nearest coloured pixel *is* on the wall, and preferring near pixels makes its share larger.
#
# ```python
# def add_position(query, key, width):
#     """Subtract half the squared distance, divided by the squared width, from every score."""
#     row, column = torch.meshgrid(*[torch.arange(size).float() for size in query.shape[1:3]], indexing="ij")
#     place = torch.stack([row, column], dim=-1)[None, :, :, None] / width  # [1, X, Y, 1, 2]
#     half, one = place.square().sum(-1, keepdim=True) / 2, torch.ones_like(place[..., :1])
#     return torch.cat([query, place, one], dim=-1), torch.cat([key, place, -half], dim=-1)
#
# grey, known, colours = take_colours(china)
# colours.requires_grad_()
# query, key = patch_operands(grey[..., 0], patch_size=3, strength=0.2)
# nearer = spread(colours, known, *add_position(query, key, width=8), [8, 4, 2, 1])
# (influence,) = torch.autograd.grad(nearer[(*tree, 3)], colours)
# share_of_wall = (influence * known)[(*wall, 3)] / nearer[(*tree, 3)].detach()
# print(f"the wall's share: {100 * share[wall]:.0f} %, preferring near pixels {100 * share_of_wall:.0f} %")
# assert share_of_wall > 0.4
# ```
#
# </details>
#
# ## Further reading
#
# * Levin, Lischinski & Weiss, *Colorization using optimization*, SIGGRAPH 2004: the passes without end, as one sparse
#   linear system.
# * Hassani & Shi, [arXiv:2209.15001](https://arxiv.org/abs/2209.15001): dilation in a network.
# * Next: [16, follow a stroke](16_follow_a_stroke.ipynb).

# %% [markdown]
# # 07 · Denoise a photo
#
# No weights are learned in this tutorial, and nothing is trained. One layer of neighborhood attention, told what
# "alike" means, takes the noise out of a photograph.
#
# **What you'll do:** turn a classic of image processing, non-local means, into queries and keys; denoise a portrait;
# and find out what kernel size and dilation do to it.
#
# **What you'll need:** [01, draw a window](01_draw_a_window.ipynb), and what a mean squared error is.

# %%
import torch

from dinat_ref import Neighborhood, na2d
from dinat_ref.analysis.photo import load_photo, patch_operands, psnr

# %% [markdown]
# ## A noisy portrait
#
# Grace Hopper, whose team taped a computer bug with wings into its logbook, in a photo that ships with matplotlib. We
# take 256 x 256 pixels and add noise. Quality is measured as PSNR, in decibels: 10 dB more is a tenth of the squared
# error.

# %%
clean = load_photo()[80:336, 120:376]  # [256, 256, 3]
generator = torch.Generator().manual_seed(0)
noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
print(f"noisy: {psnr(noisy, clean):.1f} dB")

# %% [markdown]
# ## Averaging blurs
#
# Noise averages out. The mean over a 7 x 7 window has a 49th of its variance; but it also has the eyes of the
# neighbors in it. Attention with zero queries *is* that mean.

# %%
pixels = noisy[None, :, :, None]  # [1, X, Y, heads = 1, 3]
zeros = torch.zeros_like(pixels)
for kernel_size in (3, 5, 7, 13):
    mean = na2d(zeros, zeros, pixels, kernel_size)[0, :, :, 0]
    print(f"mean over {kernel_size:2} x {kernel_size:2}: {psnr(mean, clean):.1f} dB")
blurred = na2d(zeros, zeros, pixels, 13)[0, :, :, 0]

# %% [markdown]
# ## Attend to what looks alike
#
# Better: average a pixel with those that *look like* it. Describe pixel i by the patch of 3 x 3 pixels around it, a
# vector f of 27 numbers, and weigh neighbor j by
#
# $$w_{ij} \propto \exp\Big(-\frac{|f_i - f_j|^2}{2h^2}\Big)$$
#
# That is a softmax of scores, and the scores are dot products in disguise. Multiply out:
# $-|f_i|^2 + 2\langle f_i, f_j\rangle - |f_j|^2$. The first term is the same for all neighbors, so the softmax drops
# it. The rest is the dot product of $(f_i, 1)$ with $(f_j, -|f_j|^2/2)$, over $h^2$. So one appended number turns a
# distance into attention. That is all `patch_operands` does.

# %%
query, key = patch_operands(noisy, patch_size=3, strength=0.4)
print("query", tuple(query.shape), "key", tuple(key.shape))

patch = query[0, ..., 0, :-1] * 0.4**2
difference = (patch[100, 100] - patch[103, 98]).square().sum() - (patch[100, 100] - patch[99, 100]).square().sum()
scores = [query[0, 100, 100, 0] @ key[0, i, j, 0] for i, j in ((103, 98), (99, 100))]
torch.testing.assert_close(scores[0] - scores[1], -difference / (2 * 0.4**2), rtol=1e-3, atol=1e-3)
print("the difference of two scores is the difference of two squared distances")

# %%
denoised = na2d(query, key, pixels, kernel_size=13, scale=1.0)[0, :, :, 0]
print(f"mean {psnr(blurred, clean):.1f} dB, attention {psnr(denoised, clean):.1f} dB, with the same 169 keys")
assert psnr(denoised, clean) > psnr(noisy, clean) + 7
assert psnr(denoised, clean) > psnr(blurred, clean) + 3

# %%
from dinat_ref.viz.attention import draw_attention, draw_photo
from dinat_ref.viz.theme import new_figure

figure, grid = new_figure(1, 3, size=(8, 2.5))
names = [f"noisy, {psnr(noisy, clean):.1f} dB", f"13 x 13 mean, {psnr(blurred, clean):.1f} dB"]
names.append(f"13 x 13 attention, {psnr(denoised, clean):.1f} dB")
for axes, image, name in zip(grid.flat, (noisy, blurred, denoised), names):
    draw_photo(image[70:200, 40:200].numpy(), axes, title=name)
figure

# %% [markdown]
# ## Where the attention goes
#
# The weights of three pixels, in multiples of 1/169, which each key would get if all were alike. In flat skin the
# weight is spread widely. On the rim of the glasses it stays on the rim: an edge averages with the edge, and remains
# one.
#
# How many keys does a pixel use? The *entropy* of its weights, exponentiated, counts them: 1 if all weight is on one
# key, 169 if all weigh the same.

# %%
from dinat_ref.analysis.attention_maps import attention_map
from dinat_ref.viz.windows import outline_window

places = {"forehead": (76, 135), "rim of the glasses": (103, 108), "cheek": (165, 95)}
neighborhood = Neighborhood((256, 256), 13)
figure, grid = new_figure(1, 4, size=(9.5, 2.6), width_ratios=(1, 1.15, 1.15, 1.15))
draw_photo(noisy, grid[0, 0], title="three windows")
for axes, letter, (name, token) in zip(grid[0, 1:], "ABC", places.items()):
    outline_window(grid[0, 0], neighborhood, token, label=letter)
    weights = attention_map(query, key, token, kernel_size=13, scale=1.0)[0, 0]
    second = 169 * weights.flatten().sort().values[-2].item()  # the end of the colour scale
    draw_attention(
        noisy.mean(-1).numpy(), weights.numpy(), neighborhood, token, axes, title=f"{letter}: {name}", largest=second
    )
    used = weights[weights > 0]
    print(f"{name:20} looks at {(-(used * used.log()).sum()).exp().item():5.1f} of 169 keys, effectively")
figure

# %% [markdown]
# ## What k and d do
#
# A larger window finds more lookalikes. Dilation spreads the same number of keys over a wider area, and here that
# loses: a photo's best lookalikes are near. In a network, dilation pays for another reason. A deep layer does not
# want the nearest 49 tokens again, it wants to know about the rest of the picture.

# %%
result = {}
for kernel_size, dilation in ((3, 1), (7, 1), (13, 1), (7, 2), (7, 4), (7, 8)):
    output = na2d(query, key, pixels, kernel_size, dilation=dilation, scale=1.0)[0, :, :, 0]
    result[kernel_size, dilation] = psnr(output, clean)
    print(f"kernel {kernel_size:2}, dilation {dilation}: {result[kernel_size, dilation]:.1f} dB")
assert result[3, 1] < result[7, 1] < result[13, 1]
assert result[7, 1] > result[7, 2] > result[7, 4] > result[7, 8]

# %% [markdown]
# ## On your own
#
# * `strength` is h. Compute the PSNR for h from 0.2 to 0.8. What is the limit for very small h, and for very large?
#
# <details><summary>Solution</summary>
#
# There is a best h in between, near 0.4. For very small h a pixel looks like nothing but itself, and the photo stays
# noisy; for very large h all weigh the same, and it is the blurred mean. (A quarter of the photo is enough to see it.)
#
# ```python
# part, clean_part = noisy[64:192, 64:192], clean[64:192, 64:192]
#
# def denoise(h):
#     query, key = patch_operands(part, patch_size=3, strength=h)
#     return na2d(query, key, part[None, :, :, None], kernel_size=7, scale=1.0)[0, :, :, 0]
#
# quality = {h: psnr(denoise(h), clean_part) for h in (0.2, 0.3, 0.4, 0.6, 0.8)}
# print({h: round(decibels, 1) for h, decibels in quality.items()})
# assert max(quality, key=quality.get) in (0.3, 0.4)
# torch.testing.assert_close(denoise(0.01), part, rtol=1e-3, atol=1e-3)
# zeros = torch.zeros_like(part)[None, :, :, None]
# mean = na2d(zeros, zeros, part[None, :, :, None], kernel_size=7)[0, :, :, 0]
# torch.testing.assert_close(denoise(100.0), mean, rtol=1e-3, atol=1e-3)
# ```
#
# </details>
#
# * Denoise twice: take patches from the *denoised* photo, pixels from the noisy one. When does that help?
#
# <details><summary>Solution</summary>
#
# When the first pass left noise in the patches, which makes pixels look different that are alike: after h = 0.3 a
# second pass gains a little. After h = 0.4 it loses half of one, because details that are gone cannot be told apart any
# more.
#
# ```python
# def second_pass(first, h):
#     query, key = patch_operands(first, patch_size=3, strength=h)
#     return na2d(query, key, pixels, kernel_size=13, scale=1.0)[0, :, :, 0]
#
# timid = second_pass(noisy, 0.3)  # the first pass: patches of the noisy photo
# for first in (timid, denoised):
#     print(f"once {psnr(first, clean):.1f} dB, twice {psnr(second_pass(first, 0.2), clean):.1f} dB")
# assert psnr(second_pass(timid, 0.2), clean) > psnr(timid, clean)
# assert psnr(second_pass(denoised, 0.2), clean) < psnr(denoised, clean)
# ```
#
# </details>
#
# * `dinat-ref tour` does the same with all 307,200 pixels. Which formulation of tutorial 04 can it not use, and why?
#
# <details><summary>Solution</summary>
#
# `masked`: its scores are all pairs of pixels, 377 GB in float32.
#
# ```python
# assert 377 < 307_200**2 * 4 / 1e9 < 378
# ```
#
# </details>
#
# ## Further reading
#
# * Buades, Coll & Morel, *A non-local algorithm for image denoising*, CVPR 2005.
# * Wang et al., *Non-local neural networks*, [arXiv:1711.07971](https://arxiv.org/abs/1711.07971): from there to
#   attention.
# * Next: [08, grow a receptive field](08_grow_a_receptive_field.ipynb).

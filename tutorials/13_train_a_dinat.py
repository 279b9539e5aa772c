# %% [markdown]
# # 13 · Train a DiNAT
#
# 108,534 numbers, drawn by chance, become a DiNAT that reads handwriting. It takes a laptop some seconds, and a loop
# of thirty lines with no secrets in it.
#
# **What you'll do:** take the parts of a training loop into your hands one by one, check each against what it claims,
# put them together, and look at what goes wrong. Then do the same with `dinat_ref.training` in three lines: killed
# half-way, resumed, and equal to the last bit.
#
# **What you'll need:** [09, build DiNAT](09_build_dinat.ipynb), and `pip install 'dinat-ref[tutorials]'`:
# scikit-learn brings the digits, safetensors stores weights in files.

# %%
import contextlib
import copy
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from dinat_ref.models import create_model
from dinat_ref.training.data import hold_out, load_digits
from dinat_ref.training.recipe import DIGITS

torch.set_num_threads(1)  # so small a network gains little from more

# %% [markdown]
# ## Digits to learn from, and digits to be asked about
#
# 1,150 scans of 8 x 8 pixels are 73,600 numbers. A network with more parameters than that can learn them by heart. So
# a fifth of the digits is held out, as many of each class, and what we say about the network is measured on those.
#
# (There is a third part, for tests. It is for a single look, after all decisions; nobody decides on this page.)

# %%
examples, held_out = hold_out(load_digits("train"), fraction=0.2, seed=0)
print(f"{len(examples)} digits to learn from, {len(held_out)} held out, each {tuple(examples.images.shape[1:])}")
assert len(examples) + len(held_out) == 1437
assert held_out.labels.bincount().min() >= 27

# %% [markdown]
# ## A batch
#
# A step of training looks at 64 digits, in the order of a shuffle that is new in every epoch. *Augmentation* shifts,
# turns and zooms each a little, differently every time: still the same digit to us, and a new one to the network.

# %%
from dinat_ref.training.augment import apply_changes, draw_changes
from dinat_ref.viz.attention import draw_photo
from dinat_ref.viz.theme import INK, SERIES, new_figure

generator = torch.Generator().manual_seed(13)
order = torch.randperm(len(examples), generator=generator)
images, labels = examples.batch(order[:64])  # [64, 1, 32, 32] and [64]
changes = draw_changes("affine", 64, generator)  # [64, 2, 3], an affine map for each
changed = apply_changes(images, changes)
unmoved = torch.eye(2, 3).expand(64, 2, 3)
torch.testing.assert_close(apply_changes(images, unmoved), images, rtol=1e-4, atol=1e-5)

figure, grid = new_figure(3, 9, size=(8, 3))
rows = {
    "as scanned": images,
    "changed": changed,
    "and again": apply_changes(images, draw_changes("affine", 64, generator)),
}
for axes_of_row, (name, batch) in zip(grid, rows.items()):
    axes_of_row[0].text(0, 0.5, name)
    axes_of_row[0].axis("off")
    for axes, image in zip(axes_of_row[1:], batch):
        draw_photo(1 - 0.9 * image[0], axes)
for axes, label in zip(grid[0, 1:], labels):
    axes.set_title(examples.class_names[label])
figure

# %% [markdown]
# ## How wrong is it? The loss
#
# Cross entropy asks for *all* of the probability on the right class, and a network that obeys makes its logits grow
# without end. *Label smoothing* asks for 91 % and leaves 1 % to each of the nine others. Then guessing still costs
# log 10 = 2.30; the least possible loss is no longer 0 but 0.50, the entropy of the target; and to be too certain
# costs more.


# %%
def smoothed_loss(logits, labels, smoothing=0.1):
    target = torch.full_like(logits, smoothing / 10)  # [B, 10]
    target[torch.arange(len(labels)), labels] += 1 - smoothing
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


right = torch.nn.functional.one_hot(labels, 10).float()
for name, logits in {"guessing": 0 * right, "91 % certain": math.log(91) * right, "certain": 20 * right}.items():
    loss = smoothed_loss(logits, labels)
    torch.testing.assert_close(loss, cross_entropy(logits, labels, label_smoothing=0.1), rtol=1e-5, atol=1e-6)
    print(f"{name:13} loss {loss:.2f}")
least = -(0.91 * math.log(0.91) + 9 * 0.01 * math.log(0.01))
assert abs(smoothed_loss(math.log(91) * right, labels).item() - least) < 1e-5

# %% [markdown]
# ## Which way? The gradient
#
# `backward` asks each parameter how the loss would change with it. All answers together are one long vector. Now and
# then a batch makes it very long; then only its direction is trusted, and its length is cut to 1.


# %%
def new_model(seed=13):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_model("dinat_nano_digits")


model = new_model().eval()  # no layer is skipped by chance, for now
cross_entropy(model(images), labels, label_smoothing=0.1).backward()
length = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in model.parameters()))
cut_from = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
cut_to = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in model.parameters()))
count = sum(parameter.numel() for parameter in model.parameters())
print(f"{count:,} parameters; the gradient's length {length:.1f}, cut to {cut_to:.1f}")
assert count == 108_534
assert abs(cut_from.item() / length - 1) < 1e-4
assert abs(cut_to - min(1, length)) < 1e-4

# %% [markdown]
# ## How far? AdamW
#
# AdamW keeps two running means for each parameter, of the gradient and of its square, and divides the one by the root
# of the other. A steady gradient, however small, moves its parameter by the full learning rate; one that keeps
# changing its sign hardly at all. The *W*: besides, each weight shrinks by a small part of itself.


# %%
def adamw_step(weight, gradient, mean, square, step, rate, decay):
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    direction = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)  # both began at 0
    return weight - rate * decay * weight - rate * direction, mean, square


weight = torch.randn(3, 4, generator=generator, dtype=torch.float64)
parameter = torch.nn.Parameter(weight.clone())
optimizer = torch.optim.AdamW([parameter], lr=0.01, weight_decay=0.05)
mean = square = torch.zeros_like(weight)
for step in range(1, 6):
    parameter.grad = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    weight, mean, square = adamw_step(weight, parameter.grad, mean, square, step, rate=0.01, decay=0.05)
    optimizer.step()
torch.testing.assert_close(weight, parameter.detach(), rtol=1e-12, atol=1e-12)
print("five steps of our own and of PyTorch's AdamW: equal")

# %% [markdown]
# ## How far, when? The learning rate
#
# Small at first, while the running means still know little; then large; then down along a cosine to nothing, so that
# the weights come to rest. A `Recipe` holds this and all other settings of a run.

# %%
recipe = replace(DIGITS, epochs=12, augmentation="none", average_decay=0.97)
steps = len(examples) // recipe.batch_size
rates = [recipe.learning_rate_at(step, recipe.epochs * steps) for step in range(recipe.epochs * steps)]
warm_up = round(recipe.warm_up * len(rates))
assert rates[warm_up - 1] == max(rates) == recipe.learning_rate
assert rates[-1] < 0.001 * recipe.learning_rate

figure, grid = new_figure(1, 1, size=(6.5, 2.4))
grid[0, 0].plot(rates, marker="")
grid[0, 0].set(xlabel="step", ylabel="learning rate")
grid[0, 0].axvline(warm_up, color=INK, linestyle=":", linewidth=1, marker="")
grid[0, 0].annotate("end of warm-up", (warm_up + 3, 0.0001))
print(f"{recipe.epochs} epochs of {steps} batches: {len(rates)} steps")
figure

# %% [markdown]
# ## The loop
#
# One part is left. As long as the learning rate is high, each batch pulls the weights elsewhere; a *moving average* of
# them is calmer. Each step moves it by 3 % of the way to the weights: half of what it knows is from the last 23 steps.
# The average is what will be used, and measured.
#
# Everything random is drawn from generators seeded by the epoch: the order, the augmentation (off, for now), and which
# layers are skipped. (Training leaves out a layer now and then, by chance, so that the others learn not to rely on it.
# That is called *stochastic depth*.)

# %%
from dinat_ref.training.evaluate import evaluate
from dinat_ref.training.loop import epoch_seed, start, train

assert round(math.log(0.5) / math.log(recipe.average_decay)) == 23

model = new_model()
average = copy.deepcopy(model)
matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith("rpb")]
others = [p for name, p in model.named_parameters() if p.ndim < 2 or name.endswith("rpb")]  # they do not shrink
optimizer = torch.optim.AdamW(
    [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
)
history, at_the_moment = [], []
for epoch in range(recipe.epochs):
    torch.manual_seed(epoch_seed(recipe, epoch))  # for stochastic depth
    generator = torch.Generator().manual_seed(epoch_seed(recipe, epoch))
    order = torch.randperm(len(examples), generator=generator)
    losses, right = [], 0
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rates[epoch * steps + step]
        images, labels = examples.batch(order[step * recipe.batch_size : (step + 1) * recipe.batch_size])
        images = apply_changes(images, draw_changes(recipe.augmentation, len(images), generator))
        logits = model(images)
        loss = cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters()):
                slow.lerp_(fast, 1 - recipe.average_decay if epoch + step else 1.0)  # the first step: just take over
        losses.append(loss.item())
        right += (logits.argmax(-1) == labels).sum().item()
    row = {"epoch": epoch + 1, "train_loss": sum(losses) / steps, "train_accuracy": right / (steps * recipe.batch_size)}
    row["held_out_loss"], row["held_out_accuracy"] = evaluate(average, held_out, recipe)
    history.append(row)
    at_the_moment.append(evaluate(model, held_out, recipe)[1])
    print(f"epoch {epoch + 1:2}  loss {row['train_loss']:.2f}  held out {row['held_out_accuracy']:.1%}")

# %% [markdown]
# The green line is the weights of the moment. While all still changes they are ahead, and the average follows; when the
# learning rate has come down, both are one. What calm is worth shows in longer runs.
#
# And blue must not be compared too closely with the others: it is measured while an epoch goes on, with layers that are
# skipped by chance.

# %%
from dinat_ref.viz.learning import draw_training

assert history[-1]["held_out_accuracy"] > 0.93
assert history[-1]["train_loss"] > least
assert abs(history[-1]["held_out_accuracy"] - at_the_moment[-1]) < 0.02

figure, grid = new_figure(1, 2, size=(8.5, 3.2))
draw_training(history, grid[0, 0], "loss")
grid[0, 0].axhline(least, color=INK, linestyle=":", linewidth=1, marker="")
grid[0, 0].text(1, least + 0.03, "least possible", fontsize=8)
grid[0, 1].plot(
    range(1, 1 + len(at_the_moment)), at_the_moment, color=SERIES[2], marker="", label="held out, no average"
)
draw_training(history, grid[0, 1], "accuracy")
figure

# %% [markdown]
# ## Which ones does it get wrong?
#
# Few. So we look at probabilities in place of answers: on the left, what the network gives each class, on average over
# the digits of each class (label smoothing asked for -2 off the diagonal). On the right, the eight digits whose own
# class gets least.

# %%
from dinat_ref.viz.maps import draw_map

with torch.no_grad():
    probability = average.eval()(held_out.images).softmax(-1)  # [N, 10]
confusion = torch.stack([probability[held_out.labels == label].mean(0) for label in range(10)])  # [10, 10]
torch.testing.assert_close(confusion.sum(1), torch.ones(10), rtol=1e-5, atol=1e-5)
answers = probability.argmax(-1)
right = answers == held_out.labels
assert abs(right.float().mean().item() - history[-1]["held_out_accuracy"]) < 1e-6
print(f"{(~right).sum()} of {len(held_out)} are wrong")

figure = new_figure(1, 1, size=(8.5, 4))[0]
figure.clear()
left, side = figure.subfigures(1, 2, width_ratios=(1, 1))
axes = left.subplots()
draw_map(confusion.log10(), axes, label="log10 of the mean probability")
axes.set_xticks(range(10), examples.class_names)
axes.set_yticks(range(10), examples.class_names)
axes.set(xlabel="read as", ylabel="scanned")
hardest = probability[torch.arange(len(held_out)), held_out.labels].argsort()[:8]
for axes, number in zip(side.subplots(2, 4).flat, hardest.tolist()):
    draw_photo(1 - 0.9 * held_out.images[number, 0], axes)
    title = f"{held_out.labels[number]} read as {answers[number]}\n({probability[number].max():.0%} sure)"
    axes.set_title(title, fontsize=8)
figure

# %% [markdown]
# ## In three lines, and killed half-way
#
# `dinat_ref.training` does the same. With a folder, it writes a *checkpoint* after each epoch, all that it takes to go
# on from there: weights, average, the means of AdamW, recipe, metrics. Here somebody presses Ctrl-C after the fifth:


# %%
from dinat_ref.training.checkpoint import latest_checkpoint, load_training


def killed_after(epochs):
    def report(row):
        if row["epoch"] == epochs:
            raise KeyboardInterrupt

    return report


folder = tempfile.TemporaryDirectory()
state = start(new_model(), recipe)
with contextlib.suppress(KeyboardInterrupt):
    train(state, examples, held_out, recipe, Path(folder.name), report=killed_after(5))
checkpoint = latest_checkpoint(Path(folder.name))
print(*sorted(path.name for path in checkpoint.iterdir()), sep="\n")
assert len(state.history) == 5

# %% [markdown]
# To go on, start anew, take up the checkpoint, and train. No random state was saved, and none is missing, since every
# epoch draws from generators of its own. The result is that of our own loop, which was never interrupted: equal, not
# nearly, in every bit of every parameter.

# %%
tensors, content = load_training(checkpoint)
folder.cleanup()
state = start(new_model(), recipe)
state.restore(tensors, content["history"])
train(state, examples, held_out, recipe)

for ours, theirs in ((model, state.model), (average, state.kept_model)):
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), parameter, rtol=0, atol=0)
for ours, theirs in zip(history, state.history):
    assert ours["held_out_accuracy"] == theirs["held_out_accuracy"]
print(f"{len(state.history)} epochs, 5 of them from before: equal to the last bit")

# %% [markdown]
# From the shell, `dinat-ref train --data digits --out runs/digits` does this, and goes on after Ctrl-C, a power cut or
# `kill -9` with `--resume`.
#
# ## What augmentation is for
#
# The same again, with augmentation. Then we ask both networks about the held-out digits, and about the same digits
# shifted, turned and zoomed as in the first picture above.

# %%
from dinat_ref.training.data import Examples

changing = replace(recipe, augmentation="affine")
robust = train(start(new_model(), changing), examples, held_out, changing)
changes = draw_changes("affine", len(held_out), torch.Generator().manual_seed(1))
moved = Examples(apply_changes(held_out.images, changes), held_out.labels, held_out.class_names)
networks = {"without augmentation": state, "with augmentation": robust}
table = {
    name: [evaluate(of.kept_model, part)[1] for part in (examples, held_out, moved)] for name, of in networks.items()
}
for name, accuracies in table.items():
    print(f"{name:22}", *[f"{accuracy:8.1%}" for accuracy in accuracies])
assert table["without augmentation"][0] > table["with augmentation"][0]
assert table["with augmentation"][1] < table["without augmentation"][1] + 0.01
assert table["with augmentation"][2] > table["without augmentation"][2] + 0.05

# %% [markdown]
# The columns are: digits learned from, held out, and held out and moved. Without augmentation the network nearly knows
# the first by heart. On the second, augmentation has won nothing in so short a run. On the third it has: a network that
# has only ever seen digits filling their frame misreads many that do not.
#
# ## The one in the box
#
# `create_model("dinat_nano_digits", pretrained=True)` is this network after 60 epochs with augmentation, on all 1,437
# digits. It does well on our held-out digits, and that says nothing: it has learned from them. It was measured on
# scikit-learn's test part, once; the module `dinat_ref.models.nano` has the command that trains and measures it again.

# %%
shipped = create_model("dinat_nano_digits", pretrained=True)
assert (DIGITS.epochs, DIGITS.augmentation) == (60, "affine")
assert [p.shape for p in shipped.parameters()] == [p.shape for p in model.parameters()]
for name, part in {"seen in training": held_out, "the same, moved": moved}.items():
    print(f"{name:16} {evaluate(shipped, part)[1]:.1%}")
assert evaluate(shipped, moved)[1] > 0.95

# %% [markdown]
# ## On your own
#
# * Set `learning_rate` to 0.03, and `warm_up` to 0. What do the losses do? (One epoch is enough to see it.) What does
#   the clipping?
#
# <details><summary>Solution</summary>
#
# At 0.03 the network learns less in the same time. Clipping keeps the gradient short, but AdamW divides by its size
# anyway: it is the learning rate that sets the step.
#
# ```python
# losses = {}
# for name, change in {"as it was": {}, "0.03, no warm-up": {"learning_rate": 0.03, "warm_up": 0.0}}.items():
#     short = replace(recipe, epochs=1, **change)
#     losses[name] = [row["train_loss"] for row in train(start(new_model(), short), examples, held_out, short).history]
#     print(name, [f"{loss:.2f}" for loss in losses[name]])
# assert losses["0.03, no warm-up"][0] > losses["as it was"][0] + 0.1
# ```
#
# </details>
#
# * Train with `dilations=[[1, 1], [1, 1]]`, a NAT, and you may get another number of digits right. On how many of 287
#   digits must two networks differ before you would believe that one is better?
#
# <details><summary>Solution</summary>
#
# If they are equally good, each digit that only one of them reads is as likely to be the one's as the other's. With
# five such digits, all for one side, chance does that 2 times in 32. Six are the least that one could believe; and if
# they do not all point to one side, it takes many more.
#
# ```python
# def by_chance(wins, losses):
#     """How often equal networks differ at least so much, in either direction."""
#     n, most = wins + losses, max(wins, losses)
#     return min(1.0, 2 * sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n)
#
# assert by_chance(5, 0) > 0.05 > by_chance(6, 0)
# assert by_chance(14, 6) > 0.05 > by_chance(16, 5)
# ```
#
# </details>
#
# * Which parts of the recipe does the *optimizer* need to know? Write down which of them change the first step, and
#   which do not.
#
# <details><summary>Solution</summary>
#
# The learning rate (and so the warm-up) and the weight decay do, and the smoothing of labels, through the gradient. The
# moving average follows the weights and never leads them; clipping changes the length of the gradient, to which AdamW
# is indifferent in its first step.
#
# ```python
# def weights_after_one_step(**change):
#     altered = replace(recipe, epochs=1, **change)
#     few = Examples(examples.images[:64], examples.labels[:64], examples.class_names)
#     model = train(start(new_model(), altered), few, held_out, altered).model
#     return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
#
# as_it_was = weights_after_one_step()
# assert (weights_after_one_step(average_decay=0.5) == as_it_was).all()
# assert (weights_after_one_step(learning_rate=0.001) != as_it_was).any()
# assert (weights_after_one_step(label_smoothing=0.0) != as_it_was).any()
# ```
#
# </details>
#
# ## Further reading
#
# * Loshchilov & Hutter, *Decoupled weight decay regularization*, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101):
#   AdamW; and [arXiv:1608.03983](https://arxiv.org/abs/1608.03983): the cosine.
# * Szegedy et al., [arXiv:1512.00567](https://arxiv.org/abs/1512.00567): label smoothing. Huang et al.,
#   [arXiv:1603.09382](https://arxiv.org/abs/1603.09382): stochastic depth.
# * Next: [14, see why dilation helps](14_see_why_dilation_helps.ipynb).

# %% [markdown]
# # 17 · Step through it
#
# You have read what neighborhood attention does. Here you watch it: real code of this package, stopped after each line
# that matters, with all that it has found so far.
#
# **What you'll do:** record a run; follow the four lines that make a window; follow one query at an edge from its
# window to its output, and one with dilation; and check that what was recorded is what the operator computes.
#
# **What you'll need:** [03, dilate it](03_dilate_it.ipynb), and part 1 of
# [04, write it five ways](04_write_it_five_ways.ipynb).

# %%
import torch

from dinat_ref import Neighborhood, neighborhood_attention, window
from dinat_ref.analysis.recording.problem import Problem
from dinat_ref.analysis.recording.run import record

# %% [markdown]
# ## A window, in four lines
#
# `record` runs a function and writes down each line and what it did to the variables. First `window` itself, for all
# positions of an axis of 7 tokens. We follow position 0, at the edge.

# %%
axis = record("window", Problem("an axis of 7", Neighborhood((7,), kernel_size=3)))
print(f"{len(axis.steps)} steps, of which these are about position 0:")

# %%
from dinat_ref.viz.stages import draw_stage, stage_legend, stages
from dinat_ref.viz.theme import new_figure, share_legend

names = ["g", "start", "stop", "return"]
strip = [stage for stage in stages(axis, 0, names) if stage.step.function == "window"]
figure, grid = new_figure(2, 2, size=(8, 3.9))
for axes, stage in zip(grid.flat, strip):
    draw_stage(axis, stage, axes)
share_legend(figure, stage_legend(strip[0]))
assert len(strip) == 4
assert axis.values.get(strip[-1].step.returned) == window(0, 7, 3) == range(0, 3)
figure

# %% [markdown]
# Over each picture is the line as it stands in `dinat_ref/window.py`, with its number; under it is what the line made.
# 0 is in dilation group 0, which is the whole axis of n = 7. The window of 3 wants to start one before the query. `max`
# says: not before 0; that is the shift. `min` would say the same at the right end. Then `stop` is three further, and
# the range is done.
#
# Now the same four lines with `dilation=2`, for position 1.

# %%
dilated_axis = record("window", Problem("an axis of 9", Neighborhood((9,), kernel_size=3, dilation=2)))
strip = [stage for stage in stages(dilated_axis, 1, names) if stage.step.function == "window"]
figure, grid = new_figure(2, 2, size=(8, 3.9))
for axes, stage in zip(grid.flat, strip):
    draw_stage(dilated_axis, stage, axes)
share_legend(figure, stage_legend(strip[0]))
assert dilated_axis.values.get(strip[-1].step.returned) == range(1, 6, 2)
figure

# %% [markdown]
# Only odd positions are in the group, pale blue, and there are n = 4 of them. `start` and `stop` count *inside the
# group*: all that lies between is the same as without dilation. The last line goes back from the group to the axis, by
# `g + dilation * start`.
#
# ## A query at the edge
#
# The definition in `dinat_ref/attention/loops.py` attends one query after the other. We follow token (0, 1) of a map of
# 4 by 5. Queries and keys have two numbers, values one digit.

# %%
problem = Problem("edges", Neighborhood((4, 5), kernel_size=3))
recording = record("loops", problem)
operands = problem.operands()
print("values")
print(operands.value[0, :, :, 0, 0].int())

names = ["query", "neighbor", "score", "weights", "output"]
figure, grid = new_figure(2, 3, size=(8.6, 6.4))
strip = [stage for stage in stages(recording, 1, names) if stage.step.function == "_attend"]
for axes, stage in zip(grid.flat, strip):
    draw_stage(recording, stage, axes)
share_legend(figure, stage_legend(strip[0]), columns=4)
figure

# %% [markdown]
# 1. The query is taken, and scaled. 2. Its window is asked for: rows 0 to 2, since there is no row -1. The first key is
# read. 3. Query times key, summed: the first score. 4. Eight keys later there are nine scores, in the order of the
# keys. 5. `exp` makes weights of them. The largest score was subtracted first, so the largest weight is 1. 6. The
# weighted sum of the values, divided by the sum of the weights. Left of the query is the output of token 0, which was
# done before: the map fills from left to right.
#
# Nothing in these pictures was computed for them. By hand, with what was recorded:

# %%
weights = recording.values.get(strip[4].step.changed["weights"])[0]  # [9]
values = torch.stack([operands.value[0, i, j, 0, 0] for i, j in problem.neighborhood.neighbors((0, 1))])
output = recording.values.get(strip[5].step.changed["output"])
print(f"weights times values {(weights * values).sum():.3f}, over {weights.sum():.3f}: {output.item():.3f}")
torch.testing.assert_close((weights * values).sum() / weights.sum(), output[0, 0], rtol=1e-5, atol=1e-6)

expected = neighborhood_attention(operands.query, operands.key, operands.value, kernel_size=3)
torch.testing.assert_close(recording.output, expected, rtol=1e-5, atol=1e-6)
print("and the whole output is the operator's")

# %% [markdown]
# ## A query with dilation
#
# The same lines with `dilation=2`, for token (0, 3) of a map of 6 by 7. Compare with the strip above: the second
# picture differs, and with it where the numbers stand. Nothing else does.

# %%
problem = Problem("dilated", Neighborhood((6, 7), kernel_size=3, dilation=2))
recording = record("loops", problem)
figure, grid = new_figure(2, 3, size=(8.6, 7.2))
strip = [stage for stage in stages(recording, 3, names) if stage.step.function == "_attend"]
for axes, stage in zip(grid.flat, strip):
    draw_stage(recording, stage, axes)
share_legend(figure, stage_legend(strip[0]), columns=4)
figure

# %% [markdown]
# Columns 1, 3 and 5 are the nearest three of column 3's group; rows 0, 2 and 4 are shifted, as the edge demands. Two
# other tokens of the map, (0, 2) and (0, 4), stand beside the query and are not attended.
#
# ## In text, and in a browser
#
# `dinat-ref step loops --out loops.html` makes a page of all this: every line, forward and back, with all variables.
# `dinat-ref step loops --query 0,1 --text` prints it. Here is a part, the window of column 1:

# %%
from dinat_ref.viz.step.text import trace_text

axis = record("window", Problem("columns", Neighborhood((5,), kernel_size=3)))
text = trace_text(axis, query=1)
print("\n".join(text.splitlines()[-8:]))
assert text.endswith("-> 0 1 2")

# %% [markdown]
# ## On your own
#
# * Record `gather` on the same problem. After which line are all 180 scores there? How many steps does it take, and how
#   many did the loops?
#
# <details><summary>Solution</summary>
#
# After one line: `einsum` makes the scores of all 20 queries at once. That is why gather is fast, and why there is
# little to watch.
#
# ```python
# gathered = record("gather", Problem("edges", Neighborhood((4, 5), kernel_size=3)))
# steps = [step for step in gathered.steps if "scores" in step.changed]
# assert "einsum" in gathered.text(steps[0])
# assert gathered.values.get(steps[0].changed["scores"]).numel() == 20 * 9
# one_by_one = record("loops", gathered.problem)
# assert len(one_by_one.steps) > 10 * len(gathered.steps)
# torch.testing.assert_close(gathered.output, one_by_one.output, rtol=1e-5, atol=1e-6)
# ```
#
# </details>
#
# * Follow a position of a causal axis, and one with `stride=3`. Which lines differ?
#
# <details><summary>Solution</summary>
#
# A causal window takes the other branch: its `start` is counted from the leader, and `stop` is the query itself, plus
# one. With a stride, the same lines run, but `leader` returns another position than the query's own.
#
# ```python
# causal = record("window", Problem("causal", Neighborhood((9,), kernel_size=3, is_causal=True)))
# start = stages(causal, 5, ["start"])[0]
# assert causal.text(start.step).strip() == "start = max(leader(m, n, stride, is_causal=True) - kernel_size + 1, 0)"
#
# strided = record("window", Problem("strided", Neighborhood((9,), kernel_size=3, stride=3)))
# shared = [stages(strided, i, ["return"])[-1].step.returned for i in (3, 4, 5)]
# assert [strided.values.get(number) for number in shared] == [range(3, 6)] * 3
# ```
#
# </details>
#
# * The largest weight in the strips is 1. Change the queries so that the output of token (0, 1) becomes the value of
#   one key, nearly. What must the scores look like?
#
# <details><summary>Solution</summary>
#
# One score must be far above the others: multiply the queries by a large number. Then `exp` of all differences is
# nearly 0, and the sum of the weights nearly 1.
#
# ```python
# problem = Problem("edges", Neighborhood((4, 5), kernel_size=3))
# operands = problem.operands()
# sharp = neighborhood_attention(1000 * operands.query, operands.key, operands.value, kernel_size=3)[0, 0, 1, 0, 0]
# query = operands.query[0, 0, 1, 0]
# best = max(problem.neighborhood.neighbors((0, 1)), key=lambda token: (query @ operands.key[0][token][0]).item())
# torch.testing.assert_close(sharp, operands.value[0][best][0, 0], rtol=1e-4, atol=1e-4)
# ```
#
# </details>
#
# ## Further reading
#
# * `dinat_ref/analysis/recording/recorder.py`: how a run is recorded, with `sys.settrace`.
# * `dinat_ref/attention/loops.py` and `dinat_ref/window.py`, the files that you have just seen at work.
# * Vaswani et al., *Attention is all you need*, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762): the sum that all
#   this computes, over all tokens.
# * Next: [18, choose a stride](18_choose_a_stride.ipynb).

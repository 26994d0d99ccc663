# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour: load a study, compare, plot, look into one run, ask your own model
#
# This notebook reads records and never trains. It shows what is committed in `experiments/findings`; for
# runs of your own, such as those of `hdc train study=quickstart`, edit the next cell
# (`results = "../results"`) or set `HDC_STUDY` and `HDC_RESULTS`.

# %%
# %matplotlib inline
import os

study = os.environ.get("HDC_STUDY", "terrain")
results = os.environ.get("HDC_RESULTS", "../experiments/findings")

# %% [markdown]
# ## Load
# A run is one configuration, trained with several seeds. All are listed, whatever became of them.

# %%
import numpy as np
import polars as pl
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from hdc.lab import records
from hdc.lab.report import figures, tables
from hdc.lab.report.figures import FigureConfig
from hdc.lab.report.tables import rendering

runs = records.load(study, results)
pl.DataFrame(
    {
        "run": [run.run_id for run in runs],
        "schedule": [run.config.dilation.label for run in runs],
        "seeds": [list(run.config.seeds) for run in runs],
        "state": [run.state for run in runs],
    }
)

# %% [markdown]
# The measurements of all runs are one data frame in long form: one a row.

# %%
frame = records.frame(runs)
frame.head()

# %%
frame.filter(pl.col("split") == "test").group_by("label", "metric", maintain_order=True).agg(
    pl.col("value").mean().alias("mean"), pl.col("value").std().alias("sd"), pl.len().alias("n")
)

# %% [markdown]
# ## Compare
# The same as `hdc table` prints: mean ± half of the 95 % interval over seeds, and
# differences to the plain network, paired by seed.

# %%
table = tables.build(tables.TableConfig(study=study, results=results), runs)
display(Markdown(rendering.to_text(tables.document(table), "markdown")))

# %%
figures.differences(FigureConfig(study=study, results=results), runs)

# %% [markdown]
# ## Plot every seed
# One dot a seed, the bar is the mean. Two schedules whose dots mix are not told apart by this study.

# %%
columns = [column for column in table.measured if column.startswith("test/")]
figure = Figure(figsize=(2.6 * len(columns), 2.8), layout="constrained")
for axis, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
    for position, row in enumerate(table.rows):
        values = list(row.values[column].values())
        axis.plot([position] * len(values), values, "o", color="#0072B2", alpha=0.7)
        axis.hlines(row.estimate(column).mean, position - 0.3, position + 0.3, color="#D55E00")
    names = [row.label for row in table.rows]
    axis.set_xticks(range(len(names)), names, fontsize=8, rotation=30, ha="right")
    axis.set_title(column, fontsize=9)
figure

# %% [markdown]
# ## Does it fit better, or test better?
# Accuracy on the images it was trained on, and on images it never saw: a wide gap is overfitting. A dot a
# seed.

# %%
last = frame.filter(pl.col("metric") == "accuracy").sort("step").group_by("run_id", "seed", "split", "label")
last = last.agg(pl.col("value").last())
figure = Figure(figsize=(5, 3.2), layout="constrained")
axis = figure.subplots()
for split, marker, colour in (("train", "o", "#E69F00"), ("validation", "s", "#0072B2")):
    shown = last.filter(pl.col("split") == split)
    place = [row.schedule for row in table.rows].index
    axis.plot([place(label) for label in shown["label"]], shown["value"], marker, color=colour, label=split)
names = list(dict.fromkeys(row.schedule for row in table.rows))
axis.set_xticks(range(len(names)), names, fontsize=8, rotation=30, ha="right")
axis.set(ylabel="accuracy after the last epoch")
axis.legend(frameon=False)
figure

# %% [markdown]
# ## What each network sees, and what it predicts

# %%
figures.panels(FigureConfig(study=study, results=results), runs)

# %% [markdown]
# ## Look into one run
# Its configuration, where it ran, and the arrays that it kept: here the confusion matrix (rows are the truth)
# and the effective receptive field of its first seed.

# %%
run = next(run for run in runs if run.state == "done" and run.config.dilation.kind != "plain")
seed = run.config.seeds[0]
print(run.run_id, run.config.dilation.label, run.config.net)
print({key: run.info[key] for key in ("network", "versions", "git") if key in run.info})

# %%
kept = run.artifact("predictions", seed)
names = [str(name) for name in kept["classes"]]
pl.DataFrame(kept["confusion"], schema=names).insert_column(0, pl.Series("truth", names))

# %%
erf = run.artifact("gridding", seed)["erf"]
profile = erf if erf.ndim == 1 else erf[erf.shape[0] // 2]  # signals have one axis
figure = Figure(figsize=(6, 2.6), layout="constrained")
axis = figure.subplots()
axis.semilogy(np.arange(len(profile)) - len(profile) // 2, np.maximum(profile / erf.max(), 1e-6), ".-")
axis.set(xlabel="pixels to the right of the output", ylabel="gradient, of the largest")
figure

# %% [markdown]
# ## Ask your own model
# `analyse` follows every operation of an NNX model back from one output and counts the paths to each input:
# exactly, without training. Put your own model here; this one is an untrained network of the run's schedule.

# %%
from flax import nnx

from hdc.networks import ContextNetwork
from hdc.receptive import analyse

model = ContextNetwork(run.config.dilation, in_channels=3, classes=6, task="dense", rngs=nnx.Rngs(0))
seen = analyse(model, (1, 64, 64, 3))
print(seen)

# %%
seen.figure()

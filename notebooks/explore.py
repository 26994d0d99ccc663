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
# # Explore a study
#
# This notebook reads records and never trains. Make some first with
# `python -m experiments.train study=quickstart`; set `HDC_STUDY` or edit the next cell for another study.

# %%
# %matplotlib inline
import os

import polars as pl
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from hdc import figures, records, rendering, tables

study = os.environ.get("HDC_STUDY", "quickstart")
results = os.environ.get("HDC_RESULTS", "../results")
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
# ## The table
# The same as `python -m experiments.table` prints: mean ± half of the 95 % interval over seeds, and
# differences to the plain network, paired by seed.

# %%
table = tables.build(tables.TableConfig(study=study, results=results), runs)
display(Markdown(rendering.to_text(tables.document(table), "markdown")))

# %% [markdown]
# ## Every seed
# One dot a seed, the bar is the mean. Two schedules whose dots mix are not told apart by this study.

# %%
frame = records.frame(runs)
columns = [column for column in table.measured if column.startswith("test/")]
figure = Figure(figsize=(2.6 * len(columns), 2.8), layout="constrained")
for axis, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
    for position, row in enumerate(table.rows):
        values = list(row.values[column].values())
        axis.plot([position] * len(values), values, "o", color="#0072B2", alpha=0.7)
        axis.hlines(row.estimate(column).mean, position - 0.3, position + 0.3, color="#D55E00")
    axis.set_xticks(range(len(table.rows)), [row.label for row in table.rows], fontsize=8)
    axis.set_title(column, fontsize=9)
figure

# %% [markdown]
# ## Validation while training
# A thin line a seed. The test split is looked at once, at the end.

# %%
validation = frame.filter(pl.col("split") == "validation", pl.col("metric") == "accuracy")
figure = Figure(figsize=(6, 3), layout="constrained")
axis = figure.subplots()
colours = dict(zip([row.schedule for row in table.rows], figures.COLOURS[::-1], strict=False))
for (label, _), curve in validation.group_by("label", "seed", maintain_order=True):
    named = label if label not in axis.get_legend_handles_labels()[1] else None
    axis.plot(curve["step"], curve["value"], marker=".", lw=1, color=colours[label], label=named)
axis.set(xlabel="step", ylabel="validation accuracy")
axis.legend(frameon=False)
figure

# %% [markdown]
# ## What each network sees, and what it predicts

# %%
figures.panels(figures.FigureConfig(study=study, results=results), runs)

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
# # The claims, and what speaks for and against them
#
# Claims about dilated, hybrid and separable convolution, each with the number it was judged by. This
# notebook reads `experiments/findings`, trains nothing and decides nothing: the verdicts follow from the
# statistics by the written rule under the table. `results = "../results"` judges runs of your own.

# %%
# %matplotlib inline
import os

results = os.environ.get("HDC_RESULTS", "../experiments/findings")

# %% [markdown]
# ## The ledger
# The same as `hdc table table=claims`.

# %%
from IPython.display import Markdown, display

from hdc.lab.report import claims
from hdc.lab.report.claims import ledger
from hdc.lab.report.tables import rendering

document = ledger.document(ledger.judge(claims.claims(), results))
display(Markdown(rendering.to_text(document, "markdown")))

# %% [markdown]
# As data:

# %%
document.frame

# %% [markdown]
# ## What is behind it
# Every study, what it cost, and the differences to its baseline: filled where they are clear.

# %%
import polars as pl

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.report import figures
from hdc.lab.report.figures import FigureConfig

studies = {study: records.load(study, results) for study in records.studies(results)}
pl.DataFrame(
    {
        "study": list(studies),
        "runs": [len(runs) for runs in studies.values()],
        "done": [sum(run.state == "done" for run in runs) for runs in studies.values()],
        "minutes": [sum(run.seconds or 0 for run in runs) / 60 for runs in studies.values()],
    }
)

# %%
for study, runs in studies.items():
    try:
        display(figures.differences(FigureConfig(study=study, results=results), runs))
    except InputError as error:  # a study without a baseline has other figures
        print(error)

# %% [markdown]
# ## Does the prediction predict?
# The gridding index G needs no training. Against what was measured, a point a configuration, where a study
# has four or more schedules.

# %%
for study, runs in studies.items():
    if len({run.config.dilation.label for run in runs if run.state == "done"}) >= 4:
        display(figures.prediction(FigureConfig(study=study, results=results), runs))

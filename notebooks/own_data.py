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
# # Data of your own
#
# From a folder of images to a table. This notebook writes a small folder first, so that it runs as it is;
# put the path of yours in its place. Its networks are tiny, and few: the
# [tutorial](../docs/tutorial/own-data.md) has the same with ten seeds.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import numpy as np
from IPython.display import Image as Picture
from PIL import Image

from hdc.lab.commands.main import main

work = Path(tempfile.mkdtemp())
folder, results = work / "cells", work / "results"

# %% [markdown]
# ## A folder
# `images/`, `masks/` with the class of each pixel as a grey value, and the names of the classes. Small and
# large cells differ in nothing but their size.

# %%
generator = np.random.default_rng(0)
y, x = np.mgrid[:32, :32]
for name in ("images", "masks"):
    (folder / name).mkdir(parents=True)
for number in range(80):
    radius = generator.choice([generator.uniform(3, 5), generator.uniform(7, 9)])
    top, left = generator.uniform(radius, 32 - radius, 2)
    inside = (y - top) ** 2 + (x - left) ** 2 < radius**2
    mask = np.where(inside, 1 + (radius > 6), 0).astype(np.uint8)
    photo = generator.normal(90, 25, (32, 32, 3)) + 60 * inside[..., None]
    Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number:03}.png")
    Image.fromarray(mask).save(folder / "masks" / f"{number:03}.png")
(folder / "classes.txt").write_text("background\nsmall\nlarge\n")

# %% [markdown]
# ## Look at it
# `main` takes the words of a command. In the shell, write `hdc data info folder path=cells`.

# %%
main(["data", "info", "folder", f"path={folder}"])

# %%
main(["data", "show", "folder", f"path={folder}", "--out", f"{work}/cells.png"])
Picture(f"{work}/cells.png")

# %% [markdown]
# ## Train
# Two schedules, two seeds each. With so few, every difference is marked by `?`.

# %%
sweep = "schedule.rates=[1,1,1],[1,2,5] schedule.repeat=1 seeds=[0,1] net.width=8 train.epochs=12"
data = f"data=folder data.path={folder} name=cells results={results}"
main(["train", "-m", *sweep.split(), "optim.learning_rate=0.01", *data.split()])

# %% [markdown]
# ## The records
# Everything is a data frame, and every figure of `hdc figure` can be drawn here.

# %%
from hdc.lab import records
from hdc.lab.report import figures
from hdc.lab.report.figures import FigureConfig

runs = records.load("cells", results)
frame = records.frame(runs)
frame.tail()

# %%
figures.panels(FigureConfig(study="cells", results=str(results)), runs)

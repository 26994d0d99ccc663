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
# # A first schedule
#
# Dilated layers read pixels that are a few apart. Which pixels does a stack of them see, and which does it
# never see? This notebook needs no training and no data. Move the sliders further below, or change the
# numbers.

# %%
# %matplotlib inline
import ipywidgets as widgets
import polars as pl
from IPython.display import display

import hdc
from hdc import fields, plots

# %% [markdown]
# ## Three layers of rate 2
# All taps of all layers land on even distances. What is never seen is orange.


# %%
def show(text, kernel_size=3):
    """The field of a schedule, such as `1,2,5`, and what is to be said of it."""
    field = fields.parse(text, kernel_size)
    ripple = field.predicted_ripple()
    print(f"{text}: a field of {field.receptive_field[0]} pixels per axis, {field.seen:.0%} of it seen")
    print("no holes" if field.gap_free else f"first hole at {field.first_hole}, from the corner of the field")
    print(
        f"gridding index {field.gridding.index:.3f}"
        + (f", predicted ripple {ripple.db:.1f} dB" if ripple else "")
    )
    display(plots.figure([(text, field.paths)]))


show("2,2,2")

# %% [markdown]
# ## Mixed rates
# The same number of layers and of parameters, a wider field, and no holes.

# %%
show("1,2,5")

# %% [markdown]
# ## Your turn
# The sliders are the rates of three layers. (On a page without a running notebook they do not move.)

# %%
rates = [widgets.IntSlider(value, 1, 12, description=f"rate {n}") for n, value in enumerate((1, 2, 9), 1)]
kernel = widgets.Dropdown(options=(3, 5, 7), description="kernel")


def changed(first, second, third, kernel_size):
    show(f"{first},{second},{third}", kernel_size)


controls = dict(zip(("first", "second", "third", "kernel_size"), (*rates, kernel), strict=True))
display(widgets.VBox([*rates, kernel]), widgets.interactive_output(changed, controls))

# %% [markdown]
# Without a front end, a value that is set does the same:

# %%
rates[2].value = 8
changed(**{name: control.value for name, control in controls.items()})

# %% [markdown]
# ## How large may a rate be?
# After the rates 1 and 2 the layers see 7 pixels in one piece. So the next rate may be 7 at most.

# %%
found = {rate: hdc.DilationSchedule((1, 2, rate)) for rate in range(1, 12)}
pl.DataFrame(
    {
        "third rate": list(found),
        "field": [schedule.receptive_field for schedule in found.values()],
        "gap-free": [schedule.gap_free for schedule in found.values()],
        "G": [schedule.gridding.index for schedule in found.values()],
    }
)

# %% [markdown]
# ## The best schedule for a field
# All sets of four rates without holes that see 31 pixels, each in its best order. Less ripple is better;
# what differs by less than 2.8 dB is a tie.

# %%
best = hdc.search(layers=4, field=31, top=5)
pl.DataFrame(
    {
        "rates": [list(one.rates) for one in best.found],
        "predicted ripple, dB": [one.ripple for one in best.found],
    }
)

# %%
show(",".join(map(str, best.found[0].rates)))

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
# # A model of your own
#
# What does it see, where are its holes, and which rates are better? This takes seconds and no training. Put
# your own model into the first cell; it may also be a function, or a model of Linen, Equinox, Keras, Haiku
# or PyTorch.

# %%
# %matplotlib inline
from flax import nnx

import hdc


class Net(nnx.Module):
    """A stem that halves the image, three layers of rate 4, and a head."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 16, (3, 3), strides=2, rngs=rngs)
        self.blocks = nnx.List(
            [nnx.Conv(16, 16, (3, 3), kernel_dilation=rate, rngs=rngs) for rate in (4, 4, 4)]
        )
        self.head = nnx.Conv(16, 5, (1, 1), rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = nnx.relu(block(x))
        return self.head(x)


model = Net(nnx.Rngs(0))
shape = (1, 64, 64, 3)  # batch, height, width, channels

# %% [markdown]
# ## What it sees
# One line for each layer, and below them what to do about it.

# %%
seen = hdc.analyse(model, shape)
print(seen)

# %%
seen.figure()

# %% [markdown]
# ## Better rates
# At the same field, with weights of the same shapes.

# %%
found = hdc.advise(model, shape)
print(found)

# %%
better = hdc.replace_rates(model, found.change)
print(hdc.compare(model, better, shape))

# %%
hdc.analyse(better, shape).figure()

# %% [markdown]
# ## What it uses
# What a model *can* see is exact. How much of it a model *uses* depends on its weights, and is measured on
# images: the effective receptive field. Here the weights are random, so give the model and the images that
# you have trained on.

# %%
images = nnx.Rngs(1).normal((2, *shape[1:]))
for name, one in (("rates 4, 4, 4", model), ("rates 1, 8, 3", better)):
    erf = hdc.effective_receptive_field(one, images, layer="blocks.2")
    print(f"{name}: ripple {erf.ripple.peak:.1f} dB, half of the weight within {erf.area(0.5):.0f} pixels")

# %%
erf.figure()

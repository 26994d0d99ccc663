"""The exact receptive field, path counts and holes of any Flax NNX model."""

from hdc.receptive.analysis import Analysis, analyse
from hdc.receptive.layers import Layer

__all__ = ["Analysis", "Layer", "analyse"]

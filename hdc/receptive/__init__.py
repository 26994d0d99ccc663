"""The exact receptive field, path counts and holes of any Flax NNX model."""

from hdc.receptive.analysis import Analysis, Layer, analyse

__all__ = ["Analysis", "Layer", "analyse"]

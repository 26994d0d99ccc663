"""The numerical operations that the layers stand on."""

from hdc.ops.convolution import Padding, conv2d

__all__ = ["Padding", "conv2d"]

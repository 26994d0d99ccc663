"""The numerical operations that the layers stand on."""

from hdc.ops.backends import backend
from hdc.ops.convolution import Padding, conv2d

__all__ = ["Padding", "backend", "conv2d"]

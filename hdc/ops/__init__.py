"""Convolution and pooling, each computed by the fastest backend for its shapes and device."""

from hdc.ops.backends import backend, fast_in_loops, winograd
from hdc.ops.convolution import Padding, conv1d, conv2d, separable_conv1d, separable_conv2d
from hdc.ops.normalisation import batch_norm
from hdc.ops.pooling import max_pool

__all__ = [
    "Padding",
    "backend",
    "batch_norm",
    "conv1d",
    "conv2d",
    "fast_in_loops",
    "max_pool",
    "separable_conv1d",
    "separable_conv2d",
    "winograd",
]

"""Cures for gridding: layers in place of a dilated convolution, as `net.layer=NAME`, each after a paper."""

from hdc.cures.fusion import FusedConv
from hdc.cures.interaction import InteractedConv
from hdc.cures.large_kernel import LargeKernelConv
from hdc.cures.mixed_rates import MixedRatesConv
from hdc.cures.shared_kernel import SharedKernelConv
from hdc.cures.smoothed import SmoothedConv
from hdc.cures.spacings import LearnableSpacingsConv

__all__ = [
    "FusedConv",
    "InteractedConv",
    "LargeKernelConv",
    "LearnableSpacingsConv",
    "MixedRatesConv",
    "SharedKernelConv",
    "SmoothedConv",
]

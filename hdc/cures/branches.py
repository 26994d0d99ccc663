"""Convolutions of several rates side by side, whose middle taps read the same pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

from jax import Array

from hdc.errors import InputError, in_range
from hdc.layers import Conv, crop

MAX_BRANCHES = 16
Rate = tuple[int, ...]


@dataclass(frozen=True)
class BranchesOptions:
    """Of layers with several rates.

    Attributes:
        branches: how many rates: that of the schedule, its half, its quarter and so on, down to 1. Where
            these are fewer, there are fewer branches.
    """

    branches: int = 4

    def __post_init__(self) -> None:
        in_range("branches", self.branches, 1, MAX_BRANCHES)


def halved(rate: Rate, branches: int) -> list[Rate]:
    """The rates of the branches, ascending, without repetitions: a rate, its half, its quarter, ...

    >>> halved((8, 8), 4), halved((5,), 4)
    ([(1, 1), (2, 2), (4, 4), (8, 8)], [(1,), (2,), (5,)])
    """
    found = [tuple(max(1, one >> times) for one in rate) for times in reversed(range(branches))]
    return list(dict.fromkeys(found))


def aligned(x: Array, kernel: Sequence[int], rate: Rate, largest: Rate, padding: object) -> Array:
    """What a branch convolves, so that its map lies as that of the branch with the largest rate does.

    Args:
        x: `[b, h, w, c]` or `[b, length, c]`.
        kernel: taps per axis.
        rate: of the branch.
        largest: of all branches.
        padding: SAME, CAUSAL or VALID; without padding, the branch leaves out what the largest one loses.

    Raises:
        InputError: for explicit padding, which is right for one rate alone.
    """
    if padding in ("SAME", "CAUSAL"):
        return x
    if padding != "VALID":
        raise InputError(f"layers of several rates take padding SAME, VALID or CAUSAL, got {padding}")
    axes = zip(x.shape[1:], kernel, rate, largest, strict=False)
    return crop(x, *(side - (taps - 1) * (most - own) for side, taps, own, most in axes))


def branch(conv: Conv, x: Array, largest: Rate, relu: bool = False) -> Array:
    """One of several convolutions of the same input, see `aligned`."""
    return conv(aligned(x, conv.kernel.shape, conv.rate, largest, conv.padding), relu=relu)

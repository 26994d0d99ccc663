"""Images of digits or clothes as signals: one pixel a step, row by row."""

from dataclasses import dataclass, replace

import numpy as np

from hdc import registry
from hdc.errors import InputError, one_of
from hdc.lab.data.dataset import Dataset, Split

SOURCES = ("mnist10k", "mnist", "fashion_mnist")
SIDE = 28
SEED = 784  # of the permutation


@dataclass(frozen=True)
class SequentialOptions:
    """Signals of 784 steps and one channel.

    Attributes:
        of: the images, one of `SOURCES`.
        permuted: whether the steps are in another order, the same for all signals.
        downsample: side of the squares of pixels whose mean is one step.
    """

    of: str = "mnist10k"
    permuted: bool = False
    downsample: int = 1

    def __post_init__(self) -> None:
        one_of("of", self.of, SOURCES)
        if self.downsample < 1 or SIDE % self.downsample:
            raise InputError(f"downsample must divide {SIDE}, got {self.downsample}")


@registry.dataset("sequential", SequentialOptions)
def sequential(options: SequentialOptions) -> Dataset:
    """Signals: the pixels of a digit one after the other (data.of, data.permuted), 10 classes."""
    from hdc.lab.data import idx

    images, side = idx.dataset(options.of), SIDE // options.downsample
    order = np.random.default_rng(SEED).permutation(side**2) if options.permuted else slice(None)

    def signals(split: Split) -> Split:
        found = np.asarray(split.images)
        if options.downsample > 1:
            squares = found.reshape(-1, *(side, options.downsample) * 2, 1)
            found = np.rint(squares.mean((2, 4))).astype(np.uint8)
        return Split(found.reshape(len(found), side**2, 1)[:, order], split.labels)

    splits = {name: signals(split) for name, split in images.splits.items()}
    return replace(images, name="sequential", **splits)

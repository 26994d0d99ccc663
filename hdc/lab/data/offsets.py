"""Black and white noise with the pixel at a given offset as the label: the positive control.

A network whose support does not contain the offset can only guess, and is right half of the time; one whose
support contains it can be right everywhere.
"""

from dataclasses import dataclass

import numpy as np

from hdc import registry
from hdc.errors import InputError, at_least
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import IGNORE, Dataset, Split

ITEMS = {"train": 2000, "validation": 200, "test": 400}
SEED = 2016
MAX_TILE = 256  # pixels per side, since images and labels are held in memory


@dataclass(frozen=True)
class OffsetsOptions:
    """Images of `tile` x `tile` fair coins; the label of pixel (y, x) is the coin at (y, x + `offset`).

    If that is outside the image, the label is `IGNORE`. The images are the same for every offset.

    Attributes:
        tile: pixels per side of an image.
        offset: how many pixels to the right of its pixel a label is taken from.
        flips: none: a mirrored image has another offset.
    """

    tile: int = 32
    offset: int = 1
    flips: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        at_least("tile", self.tile, 8)
        at_least("offset", self.offset, 0)
        if self.tile > MAX_TILE:
            raise InputError(f"tile={self.tile} is too large for offsets, at most {MAX_TILE} is allowed")
        if self.offset >= self.tile:
            raise InputError(
                f"offset={self.offset} must be less than data.tile={self.tile}: no pixel has a label"
            )
        if self.flips:
            raise InputError(
                f"flips must be [] for offsets, got {list(self.flips)}: a mirrored image has another offset"
            )


@registry.dataset("offsets", OffsetsOptions)
def offsets(options: OffsetsOptions) -> Dataset:
    """Noise; the label is the pixel at an offset: the positive control."""
    key = {"name": "offsets", "builder": 1, "tile": options.tile, "offset": options.offset}
    return cached(key | {"items": ITEMS, "seed": SEED}, lambda: _make(options.tile, options.offset))


def _make(tile: int, offset: int) -> Dataset:
    generator = np.random.default_rng(SEED)
    splits = {}
    for split, count in ITEMS.items():
        coins = generator.integers(0, 2, (count, tile, tile), dtype=np.uint8)
        labels = np.full(coins.shape, IGNORE, np.int32)
        labels[:, :, : tile - offset] = coins[:, :, offset:]
        splits[split] = Split(255 * coins[..., None], labels)
    return Dataset("offsets", "dense", ("black", "white"), **splits)

"""Black and white noise with the pixel at a given offset as the label: the positive control.

A network whose support lacks the offset knows nothing about the label and is right half of the time; one
whose support has it can be right everywhere.
"""

import numpy as np

from hdc.errors import InputError
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import IGNORE, Dataset, Split

ITEMS = {"train": 2000, "validation": 200, "test": 400}
SEED = 2016
MAX_TILE = 256  # pixels per side: the images and labels are in memory


def load(tile: int, offset: int, flips: tuple[str, ...]) -> Dataset:
    """Images of `tile` x `tile` fair coins; the label of pixel (y, x) is the coin at (y, x + `offset`).

    Where that is outside the image, the label is `IGNORE`. Every offset has the same images.

    Raises:
        InputError: for a tile that is too large, an offset that leaves no label, or any flips.
    """
    if tile > MAX_TILE:
        raise InputError(f"data.tile={tile} is more than the {MAX_TILE} pixels that offsets can have")
    if offset >= tile:
        raise InputError(f"data.offset={offset} must be less than data.tile={tile}: no pixel has a label")
    if flips:
        raise InputError(
            f"data.flips must be [] for offsets, got {list(flips)}: a mirrored image has another offset"
        )
    key = {"name": "offsets", "builder": 1, "tile": tile, "offset": offset, "items": ITEMS, "seed": SEED}
    return cached(key, lambda: _make(tile, offset))


def _make(tile: int, offset: int) -> Dataset:
    generator = np.random.default_rng(SEED)
    splits = {}
    for split, count in ITEMS.items():
        coins = generator.integers(0, 2, (count, tile, tile), dtype=np.uint8)
        labels = np.full(coins.shape, IGNORE, np.int32)
        labels[:, :, : tile - offset] = coins[:, :, offset:]
        splits[split] = Split(255 * coins[..., None], labels)
    return Dataset("offsets", "dense", ("black", "white"), **splits)

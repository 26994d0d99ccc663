"""Black and white noise with the pixel at a given offset as the label: the positive control.

A network whose support does not contain the offset can only guess, and is right half of the time; one whose
support contains it can be right everywhere.
"""

import numpy as np

from hdc.errors import InputError
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import IGNORE, Dataset, Split

ITEMS = {"train": 2000, "validation": 200, "test": 400}
SEED = 2016
MAX_TILE = 256  # pixels per side, since images and labels are held in memory


def dataset(tile: int, offset: int, flips: tuple[str, ...]) -> Dataset:
    """Images of `tile` x `tile` fair coins; the label of pixel (y, x) is the coin at (y, x + `offset`).

    If that is outside the image, the label is `IGNORE`. The images are the same for every offset.

    Raises:
        InputError: if the tile is too large, the offset leaves no label, or there are flips.
    """
    if tile > MAX_TILE:
        raise InputError(f"data.tile={tile} is too large for offsets, at most {MAX_TILE} is allowed")
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

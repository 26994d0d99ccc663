"""Scenes composed of Fashion-MNIST items at three sizes, with the class of each pixel.

A scene is a black canvas of four quadrants of 32 x 32 pixels. Each holds, at random, one large item, four
medium ones or sixteen small ones, each in a square cell of its own: resized with antialiasing to a random
side of `SIDES` and put at a random place within the cell. A pixel brighter than `THRESHOLD`, a tenth of
white, belongs to the item, any other to the background. The strata are the sizes of the cells; a pixel of
background belongs to the stratum of its cell.
"""

import numpy as np
from PIL import Image

from hdc.errors import InputError
from hdc.lab.data import idx
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split

ITEMS = {"train": 2000, "validation": 300, "test": 600}
SIDE, QUADRANT = 64, 32
SIDES = {"small": (7, 8), "medium": (14, 16), "large": (28, 32)}  # of the items; the larger one is the cell's
THRESHOLD = 25
SEED = 2019


def dataset(tile: int) -> Dataset:
    """2000 scenes to train, 300 to validate, 600 to test, `[n, 64, 64, 1]`; 10 classes after the background.

    Each split is made only of items of the same split of Fashion-MNIST.

    Raises:
        InputError: if `tile` is not 64, or fashion_mnist cannot be loaded.
    """
    if tile != SIDE:
        raise InputError(f"data.tile={tile}: scenes are {SIDE} x {SIDE}, so data.tile must be {SIDE}")
    key = {"name": "scenes", "builder": 1, "items": ITEMS, "sides": SIDES, "threshold": THRESHOLD}
    source = {"fashion_mnist": idx.version("fashion_mnist"), "validation": idx.VALIDATION}
    return cached(key | {"seed": SEED} | source, _make)


def _make() -> Dataset:
    source = idx.dataset("fashion_mnist")
    generator = np.random.default_rng(SEED)
    train, validation, test = (
        _compose(getattr(source, split), count, generator) for split, count in ITEMS.items()
    )
    classes = ("background", *source.classes)
    return Dataset("scenes", "dense", classes, train, validation, test, tuple(SIDES), background=0)


def _compose(source: Split, count: int, generator: np.random.Generator) -> Split:
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    labels = np.zeros(images.shape, np.int32)
    strata = np.zeros(images.shape, np.uint8)
    for image, truth, stratum in zip(images, labels, strata, strict=True):
        for top, left in np.ndindex(SIDE // QUADRANT, SIDE // QUADRANT):
            quadrant = np.s_[top * QUADRANT : (top + 1) * QUADRANT, left * QUADRANT : (left + 1) * QUADRANT]
            size = int(generator.integers(len(SIDES)))
            stratum[quadrant] = size
            _fill(image[quadrant], truth[quadrant], list(SIDES.values())[size], source, generator)
    return Split(images[..., None], labels, strata)


def _fill(
    image: np.ndarray,
    truth: np.ndarray,
    sides: tuple[int, int],
    source: Split,
    generator: np.random.Generator,
) -> None:
    """Put an item of a side from `sides[0]` to `sides[1]` into each cell of a quadrant."""
    smallest, cell = sides
    for row, column in np.ndindex(QUADRANT // cell, QUADRANT // cell):
        chosen = int(generator.integers(len(source)))
        side = int(generator.integers(smallest, cell + 1))
        top, left = cell * np.array([row, column]) + generator.integers(cell - side + 1, size=2)
        item = Image.fromarray(source.images[chosen, :, :, 0])
        # Pillow's bilinear filter averages over all pixels that become one.
        pixels = np.asarray(item.resize((side, side), Image.Resampling.BILINEAR))
        place = np.s_[top : top + side, left : left + side]
        image[place] = pixels
        truth[place] = np.where(pixels > THRESHOLD, 1 + source.labels[chosen], 0)

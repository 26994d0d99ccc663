"""One-pixel points on a black tile; what a label is depends on where they are. Predictions show gridding.

All the evidence for a label is in single pixels, so a hole of the network that falls on one loses it. This is
the worst case for holes and says nothing of natural images.
"""

from dataclasses import dataclass

import numpy as np

from hdc import registry
from hdc.errors import InputError, at_least, one_of
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split

ITEMS = {"train": 2000, "validation": 200, "test": 400}
SEED = 2018
MAX_TILE = 256  # pixels per side, since images and labels are held in memory
LABELS = ("discs", "voronoi")
DISCS, RADIUS = 6, 10  # points of a tile of `discs`, and how far their discs reach, in pixels
CELLS = 24  # points of a tile of `voronoi`
# The classes of `voronoi` with their colours, which are the first ones that figures give to classes.
COLOURS = {
    "blue": (0x00, 0x72, 0xB2),
    "green": (0x00, 0x9E, 0x73),
    "yellow": (0xF0, 0xE4, 0x42),
    "orange": (0xE6, 0x9F, 0x00),
}


@dataclass(frozen=True)
class PointsOptions:
    """Black tiles of `tile` x `tile` pixels with points of one pixel each, at random places.

    Attributes:
        label: `discs`: six white points, and a pixel is inside if one of them is at most 10 pixels away.
            `voronoi`: 24 points of four colours, and a pixel has the colour of the nearest.
        tile: pixels per side of an image.
        flips: axes along which training images are mirrored at random.
    """

    label: str = "discs"
    tile: int = 64
    flips: tuple[str, ...] = ("horizontal", "vertical")

    def __post_init__(self) -> None:
        one_of("label", self.label, LABELS)
        at_least("tile", self.tile, 8)
        if self.tile > MAX_TILE:
            raise InputError(f"tile={self.tile} is too large for points, at most {MAX_TILE} is allowed")


@registry.dataset("points", PointsOptions)
def points(options: PointsOptions) -> Dataset:
    """One-pixel points: the discs around them, or the colour of the nearest (data.label)."""
    key = {"name": "points", "builder": 1, "label": options.label, "tile": options.tile, "items": ITEMS}
    key |= {"seed": SEED, "discs": [DISCS, RADIUS], "cells": CELLS, "colours": list(COLOURS.values())}
    return cached(key, lambda: _make(options.label, options.tile))


def _make(label: str, tile: int) -> Dataset:
    draw, classes = (_discs, ("outside", "inside")) if label == "discs" else (_voronoi, tuple(COLOURS))
    # A generator of its own for each split: the test tiles do not depend on how many are trained on.
    generators = np.random.default_rng(SEED).spawn(len(ITEMS))
    splits = {}
    for (name, count), generator in zip(ITEMS.items(), generators, strict=True):
        images, labels = zip(*(draw(generator, tile) for _ in range(count)), strict=True)
        splits[name] = Split(np.stack(images), np.stack(labels).astype(np.int32))
    return Dataset("points", "dense", classes, **splits)


def _discs(generator: np.random.Generator, tile: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = _places(generator, tile, DISCS)
    image = np.zeros((tile, tile, 1), np.uint8)
    image[rows, columns] = 255
    return image, _squared_distances(rows, columns, tile).min(axis=0) <= RADIUS**2


def _voronoi(generator: np.random.Generator, tile: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = _places(generator, tile, CELLS)
    colours = generator.integers(0, len(COLOURS), CELLS)
    image = np.zeros((tile, tile, 3), np.uint8)
    image[rows, columns] = np.array(list(COLOURS.values()), np.uint8)[colours]
    # Of points equally near, the first in the order in which they were drawn.
    return image, colours[_squared_distances(rows, columns, tile).argmin(axis=0)]


def _places(generator: np.random.Generator, tile: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of `count` different pixels."""
    rows, columns = np.divmod(generator.choice(tile**2, count, replace=False), tile)
    return rows, columns


def _squared_distances(rows: np.ndarray, columns: np.ndarray, tile: int) -> np.ndarray:
    """From each point to every pixel: `[points, tile, tile]`."""
    place = np.arange(tile)
    return (place[:, None] - rows[:, None, None]) ** 2 + (place - columns[:, None, None]) ** 2

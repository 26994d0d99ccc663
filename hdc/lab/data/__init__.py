"""The data sets: one `load` in front of one file each."""

from dataclasses import replace

from hdc.errors import InputError
from hdc.lab.config import DataConfig
from hdc.lab.data.dataset import Dataset, Split, Task

__all__ = ["Dataset", "Split", "Task", "load"]


def load(config: DataConfig) -> Dataset:
    """The data set that `config` names, from the cache where it has been read before.

    Raises:
        InputError: for an unknown name, and for data that has to be prepared and is not.
    """
    match config.name:
        case "terrain" | "terrain_patches" | "coast":
            from hdc.lab.data import earth

            dataset = earth.dataset(config.name, config.tile, config.downsample)
        case "mnist" | "fashion_mnist" | "mnist10k":
            from hdc.lab.data import idx

            dataset = idx.dataset(config.name)
        case "offsets":
            from hdc.lab.data import offsets

            dataset = offsets.dataset(config.tile, config.offset, config.flips)
        case "scenes":
            from hdc.lab.data import scenes

            dataset = scenes.dataset(config.tile)
        case name:
            from hdc.lab.data import tfds

            dataset = tfds.dataset(name)
    return dataset if config.train_size is None else _cut(dataset, config.train_size)


def _cut(dataset: Dataset, size: int) -> Dataset:
    """The first `size` training items; validation and test stay whole."""
    train = dataset.train
    if size > len(train):
        raise InputError(
            f"data.train_size={size} is more than the {len(train)} training items of {dataset.name}"
        )
    strata = None if train.strata is None else train.strata[:size]
    return replace(dataset, train=Split(train.images[:size], train.labels[:size], strata))

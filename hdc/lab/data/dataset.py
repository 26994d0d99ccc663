"""The form of every data set in memory: three splits of images with labels, checked as they are made."""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from hdc.errors import InputError
from hdc.lab.store import digest_of
from hdc.registry import Task

TYPES = ("uint8", "uint16", "float32")  # of images
IGNORE = 255  # the label of a pixel that counts neither in the loss nor in a metric


@dataclass(frozen=True)
class Split:
    """Images `[n, height, width, channels]` of uint8, uint16 or float32, and their labels, int32.

    Labels are `[n]` for classification. For dense prediction they are `[n, height, width]`, with `IGNORE`
    for a pixel without a label. Labels of other integer types are converted. `strata`, `[n, height, width]`
    uint8, has for each pixel the position of its stratum in `Dataset.strata`; None if the data set has no
    strata.

    Raises:
        InputError: for arrays of another type or shape, and for images that are not finite.
    """

    images: np.ndarray
    labels: np.ndarray
    strata: np.ndarray | None = None

    def __post_init__(self) -> None:
        images, strata = self.images, self.strata
        if images.dtype not in TYPES or images.ndim != 4:
            raise InputError(
                f"images must be {', '.join(TYPES)} [n, h, w, c], got {images.dtype} {list(images.shape)}"
            )
        if images.dtype == np.float32 and images.size and not np.isfinite([images.min(), images.max()]).all():
            raise InputError("images must be finite, got NaN or infinity")
        object.__setattr__(self, "labels", labels := _int32(self.labels))
        if labels.dtype != np.int32 or labels.shape not in (images.shape[:1], images.shape[:3]):
            raise InputError(
                f"labels {labels.dtype} {list(labels.shape)} do not fit images {list(images.shape)}"
            )
        if strata is not None and (
            strata.dtype != np.uint8 or strata.shape != labels.shape[:1] + images.shape[1:3]
        ):
            raise InputError(
                f"strata {strata.dtype} {list(strata.shape)} do not fit images {list(images.shape)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def ignores(self) -> bool:
        """Whether there is a pixel without a label."""
        return self.labels.ndim > 1 and bool((self.labels == IGNORE).any())


@dataclass(frozen=True)
class Dataset:
    """A data set in memory. `classes` are the class names, in the order of the label values.

    `strata` names the parts of the maps whose IoU is measured separately, such as those with small things.
    `background` is a label that is left out of the mean over a stratum's classes.

    Raises:
        InputError: for splits that are empty, of different sizes or types, or with other labels than `task`
            and `classes` have.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    strata: tuple[str, ...] = ()
    background: int | None = None

    def __post_init__(self) -> None:
        if self.task == "dense" and len(self.classes) > IGNORE:
            raise InputError(f"{self.name} has {len(self.classes)} classes, at most {IGNORE} are possible")
        for name, split in self.splits.items():
            place = f"the {name} split of {self.name}"
            if not len(split):
                raise InputError(f"{place} is empty")
            if split.images.shape[1:] != self.image_shape or split.images.dtype != self.train.images.dtype:
                raise InputError(
                    f"{place} has images of {_kind(split)}, the train split of {_kind(self.train)}"
                )
            if (self.task == "dense") != (split.labels.ndim == 3):
                raise InputError(f"{place} has labels {list(split.labels.shape)}, not those of {self.task}")
            self._refuse_unknown(place, split.labels)
            if (split.strata is None) != (not self.strata):
                raise InputError(f"{self.name}: the strata {self.strata} need a map in every split")

    def _refuse_unknown(self, place: str, labels: np.ndarray) -> None:
        """InputError for a label that no class has."""
        unsigned, count = labels.view(np.uint32), len(self.classes)  # a negative label is a very large one
        if unsigned.max() < count:
            return
        unknown = labels[(unsigned >= count) & ((labels != IGNORE) | (self.task != "dense"))]
        if unknown.size:
            rest = f", and {IGNORE} stands for none" if self.task == "dense" else ""
            raise InputError(
                f"{place} has the label {unknown[0]}, but the {count} classes are 0 to {count - 1}{rest}"
            )

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def about(self) -> dict[str, Any]:
        """What records say of the images and labels, as JSON values."""
        found = {"task": self.task, "classes": list(self.classes), "image_shape": list(self.image_shape)}
        kind = self.train.images.dtype.name
        return found if kind == "uint8" else {**found, "image_type": kind}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of all images and labels."""
        arrays = {f"{name}.images": split.images for name, split in self.splits.items()}
        for name, split in self.splits.items():
            labels = split.labels
            arrays[f"{name}.labels"] = labels.astype(np.uint8) if self.task == "dense" else labels
        return digest_of(arrays, {})[:16]

    @cached_property
    def repeated(self) -> dict[tuple[str, str], int]:
        """How many images of a split are in an earlier one, too, by (split, earlier); no pair without any."""
        hashes = {name: [hash(one.tobytes()) for one in split.images] for name, split in self.splits.items()}
        there = {name: set(some) for name, some in hashes.items()}
        counts = {
            (later, earlier): sum(one in there[earlier] for one in hashes[later])
            for earlier, later in combinations(hashes, 2)
        }
        return {pair: count for pair, count in counts.items() if count}


def _int32(labels: np.ndarray) -> np.ndarray:
    """Labels of any type of integers as int32, others as they are."""
    if labels.dtype == np.int32 or labels.dtype.kind not in "iu":
        return labels
    if labels.size and not (labels.min() >= -(2**31) and labels.max() < 2**31):
        raise InputError(f"labels are from {labels.min()} to {labels.max()}: they must fit into int32")
    return labels.astype(np.int32)


def _kind(split: Split) -> str:
    return f"{' x '.join(map(str, split.images.shape[1:]))} {split.images.dtype}"

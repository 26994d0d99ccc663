"""The form of every data set: three splits of images or signals with labels, checked as they are made."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from typing import Any

import numpy as np

from hdc.errors import InputError
from hdc.lab.data.stream import Rows, blocks, kept
from hdc.registry import Input, Task

TYPES = ("uint8", "uint16", "float32")  # of images
# Of each task, the metric that says how good a network is; more is better.
QUALITY: dict[Task, str] = {"classification": "accuracy", "dense": "mean_iou", "regression": "psnr"}
# Of each task, how many axes fewer its labels have than the images; those of a classification have one axis.
_FEWER: dict[Task, int] = {"dense": 1, "regression": 0}
IGNORE = 255  # the label of a pixel that counts neither in the loss nor in a metric


@dataclass(frozen=True)
class Split:
    """Images `[n, height, width, channels]` of uint8, uint16 or float32, and their labels, int32.

    Signals `[n, length, channels]` are images of one axis, in place of height and width here and below.

    Labels are `[n]` for classification. For dense prediction they are `[n, height, width]`, with `IGNORE`
    for a pixel without a label. For regression they are the targets, `[n, height, width, outputs]` float32.
    Labels of other integer types are converted. `strata`, `[n, height, width]` uint8, has for each pixel the
    position of its stratum in `Dataset.strata`; None if the data set has no strata.

    Arrays that do not fit into memory are `Rows`, whose `[positions]` are read when they are needed.

    Raises:
        InputError: for arrays of another type or shape, and for images that are not finite.
    """

    images: np.ndarray | Rows
    labels: np.ndarray | Rows
    strata: np.ndarray | Rows | None = None

    def __post_init__(self) -> None:
        images, strata = self.images, self.strata
        if images.dtype not in TYPES or images.ndim not in (3, 4):
            raise InputError(
                f"images must be {', '.join(TYPES)} [n, h, w, c], got {images.dtype} {list(images.shape)}; "
                "signals are [n, length, c]"
            )
        object.__setattr__(self, "labels", labels := _int32(self.labels))
        if labels.ndim == images.ndim:
            fit = labels.dtype == np.float32 and labels.shape[:-1] == images.shape[:-1]
        else:
            fit = labels.dtype == np.int32 and labels.shape in (images.shape[:1], images.shape[:-1])
        if not fit:
            raise InputError(
                f"labels {labels.dtype} {list(labels.shape)} do not fit {self.kind} {list(images.shape)}"
            )
        for what, array in ((self.kind, images), ("targets", labels)):
            if array.dtype == np.float32 and not kept(array, "finite values", partial(are_finite, array)):
                raise InputError(f"{what} must be finite, got NaN or infinity")
        if strata is not None and (
            strata.dtype != np.uint8 or strata.shape != labels.shape[:1] + images.shape[1:-1]
        ):
            raise InputError(
                f"strata {strata.dtype} {list(strata.shape)} do not fit {self.kind} {list(images.shape)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def kind(self) -> Input:
        """What the images are: images, or signals."""
        return "signals" if self.images.ndim == 3 else "images"

    @cached_property
    def ignores(self) -> bool:
        """Whether there is a pixel without a label."""
        labels = self.labels
        return labels.ndim == self.images.ndim - 1 and kept(
            labels, "ignored labels", lambda: any(bool((block == IGNORE).any()) for block in blocks(labels))
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the images, labels and strata in memory."""
        return sum(array.nbytes for array in (self.images, self.labels, self.strata) if array is not None)

    @property
    def in_memory(self) -> "Split":
        """The same split with arrays in place of `Rows`."""
        if not any(isinstance(array, Rows) for array in (self.images, self.labels, self.strata)):
            return self
        strata = None if self.strata is None else np.asarray(self.strata)
        return Split(np.asarray(self.images), np.asarray(self.labels), strata)


@dataclass(frozen=True)
class Dataset:
    """A data set. `classes` are the class names, in the order of the label values; for regression
    the names of the output channels, and `peak` is the range of the targets, from 0 to this.

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
    peak: float = 1.0

    def __post_init__(self) -> None:
        if self.task == "dense" and len(self.classes) > IGNORE:
            raise InputError(f"{self.name} has {len(self.classes)} classes, at most {IGNORE} are possible")
        for name, split in self.splits.items():
            place = f"the {name} split of {self.name}"
            if not len(split):
                raise InputError(f"{place} is empty")
            if split.images.shape[1:] != self.image_shape or split.images.dtype != self.train.images.dtype:
                raise InputError(
                    f"{place} has {split.kind} of {_sized(split)}, the train split of {_sized(self.train)}"
                )
            count, ignored, labels = len(self.classes), self.task == "dense", split.labels
            regression = self.task == "regression"
            axes = split.images.ndim - _FEWER[self.task] if self.task in _FEWER else 1
            if labels.ndim != axes or (regression and labels.shape[-1] != count):
                of = f"{self.task} with {count} outputs" if labels.ndim == split.images.ndim else self.task
                raise InputError(f"{place} has labels {list(labels.shape)}, not those of {of}")
            if not regression:
                found = kept(labels, f"labels from {count}", partial(_first_beyond, labels, count, ignored))
                if found is not None:
                    rest = f", and {IGNORE} is a pixel without one" if ignored else ""
                    raise InputError(f"{place} has the label {found}, but classes are 0 to {count - 1}{rest}")
            if (split.strata is None) != (not self.strata):
                raise InputError(f"{self.name}: the strata {self.strata} need a map in every split")

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def nbytes(self) -> int:
        """Bytes of the three splits in memory."""
        return sum(split.nbytes for split in self.splits.values())

    @cached_property
    def in_memory(self) -> "Dataset":
        """The same data set with arrays in place of `Rows`."""
        splits = {name: split.in_memory for name, split in self.splits.items()}
        same = all(splits[name] is split for name, split in self.splits.items())
        return self if same else replace(self, **splits)

    @property
    def about(self) -> dict[str, Any]:
        """What records say of the images and labels, as JSON values."""
        found = {"task": self.task, "classes": list(self.classes), "image_shape": list(self.image_shape)}
        kind = self.train.images.dtype.name
        return found if kind == "uint8" else {**found, "image_type": kind}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of one image, or length and channels of a signal."""
        return self.train.images.shape[1:]

    @property
    def kind(self) -> Input:
        """What the images are: images, or signals."""
        return self.train.kind

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of all images and labels."""
        whole = hashlib.sha256()
        for name, split in self.splits.items():
            for part, array in (("images", split.images), ("labels", split.labels)):
                narrow = np.dtype("uint8") if self.task == "dense" and part == "labels" else array.dtype
                whole.update(f"{name} {part} {narrow} {array.shape} ".encode())
                whole.update(kept(array, "fingerprint", partial(_sha256, array, narrow)).encode())
        return whole.hexdigest()[:16]

    @cached_property
    def repeated(self) -> dict[tuple[str, str], int]:
        """How many images of a split are in an earlier one, too, by (split, earlier); no pair without any."""
        pairs = list(combinations(self.splits, 2))

        def count() -> list[int]:
            hashes = {name: _hashes(split.images) for name, split in self.splits.items()}
            there = {name: set(some) for name, some in hashes.items()}
            return [sum(one in there[earlier] for one in hashes[later]) for earlier, later in pairs]

        # In memory nothing is kept and the fingerprint is not needed.
        streamed = isinstance(self.test.images, Rows)
        what = f"images repeated in {self.fingerprint}" if streamed else ""
        counts = zip(pairs, kept(self.test.images, what, count), strict=True)
        return {(later, earlier): number for (earlier, later), number in counts if number}


def _int32(labels: np.ndarray | Rows) -> np.ndarray | Rows:
    """Labels of any type of integers as int32, others and those that are not in memory as they are."""
    if labels.dtype == np.int32 or labels.dtype.kind not in "iu" or isinstance(labels, Rows):
        return labels
    if labels.size and not (labels.min() >= -(2**31) and labels.max() < 2**31):
        raise InputError(f"labels are from {labels.min()} to {labels.max()}: they must fit into int32")
    return labels.astype(np.int32)


def _first_beyond(labels: np.ndarray | Rows, count: int, ignored: bool) -> int | None:
    """The first label that is not from 0 to `count` - 1, and not `IGNORE` where that is ignored."""
    for block in blocks(labels):
        unsigned = block.view(np.uint32)  # a negative label is a very large one
        if unsigned.size and unsigned.max() >= count:
            beyond = block[(unsigned >= count) & ((block != IGNORE) | (not ignored))]
            if beyond.size:
                return int(beyond[0])
    return None


def are_finite(images: np.ndarray | Rows) -> bool:
    """Whether there is neither NaN nor infinity in floating-point values."""
    return all(bool(np.isfinite([block.min(), block.max()]).all()) for block in blocks(images) if block.size)


def _sha256(array: np.ndarray | Rows, dtype: np.dtype) -> str:
    hashed = hashlib.sha256()
    for block in blocks(array):
        hashed.update(np.ascontiguousarray(block, dtype).data)
    return hashed.hexdigest()


def _hashes(images: np.ndarray | Rows) -> list[int]:
    return [hash(one.tobytes()) for block in blocks(images) for one in block]


def _sized(split: Split) -> str:
    return f"{' x '.join(map(str, split.images.shape[1:]))} {split.images.dtype}"

"""The form of every data set in memory: three splits of uint8 images with labels."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from hdc.lab.data.stream import Rows, blocks, kept
from hdc.registry import Task

# Of each task, the metric that says how good a network is; more is better.
QUALITY: dict[Task, str] = {"classification": "accuracy", "dense": "mean_iou", "regression": "psnr"}
IGNORE = 255  # the label of a pixel that counts neither in the loss nor in a metric


@dataclass(frozen=True)
class Split:
    """Images `[n, height, width, channels]` uint8 and their labels, int32.

    Labels are `[n]` for classification. For dense prediction they are `[n, height, width]`, with `IGNORE`
    for a pixel without a label. For regression they are the targets, `[n, height, width, outputs]` float32.
    `strata`, `[n, height, width]` uint8, has for each pixel the position of its
    stratum in `Dataset.strata`; None if the data set has no strata.

    Arrays that do not fit into memory are `Rows`, whose `[positions]` are read when they are needed.
    """

    images: np.ndarray | Rows
    labels: np.ndarray | Rows
    strata: np.ndarray | Rows | None = None

    def __post_init__(self) -> None:
        images, labels, strata = self.images, self.labels, self.strata
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 [n, h, w, c], got {images.dtype} {images.shape}")
        if labels.ndim == 4:
            fit = labels.dtype == np.float32 and labels.shape[:3] == images.shape[:3]
        else:
            fit = labels.dtype == np.int32 and labels.shape in (images.shape[:1], images.shape[:3])
        if not fit:
            raise ValueError(f"labels {labels.dtype} {labels.shape} do not fit images {images.shape}")
        if strata is not None and (
            strata.dtype != np.uint8 or strata.shape != labels.shape[:1] + images.shape[1:3]
        ):
            raise ValueError(f"strata {strata.dtype} {strata.shape} do not fit images {images.shape}")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def ignores(self) -> bool:
        """Whether there is a pixel without a label."""
        labels = self.labels
        return labels.ndim == 3 and kept(
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
            raise ValueError(f"{self.name} has {len(self.classes)} classes, at most {IGNORE} are possible")
        for split in self.splits.values():
            if (self.task == "regression") != (split.labels.ndim == 4):
                raise ValueError(f"{self.name}: labels {split.labels.shape} do not fit the task {self.task}")
            if split.labels.ndim == 4 and split.labels.shape[3] != len(self.classes):
                raise ValueError(f"{self.name}: targets {split.labels.shape} do not fit {self.classes}")
            if (split.strata is None) != (not self.strata):
                raise ValueError(f"{self.name}: the strata {self.strata} need a map in every split")

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
        shape = {"image_shape": list(self.image_shape)}
        return {"task": self.task, "classes": list(self.classes), **shape}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

"""What every data set is, once loaded: three splits of uint8 images with integer labels."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Task = Literal["classification", "dense"]


@dataclass(frozen=True)
class Split:
    """Images `[n, height, width, channels]` uint8 and their labels, int32.

    Labels are `[n]` for classification and `[n, height, width]` for dense prediction.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 [n, h, w, c], got {images.dtype} {images.shape}")
        if labels.dtype != np.int32 or labels.shape not in (images.shape[:1], images.shape[:3]):
            raise ValueError(f"labels {labels.dtype} {labels.shape} do not fit images {images.shape}")

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A data set in memory. `classes` are the class names, in the order of the label values."""

    name: str
    task: Task
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

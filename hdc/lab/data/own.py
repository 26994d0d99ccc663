"""What the data sets of one's own share: the place on this machine, splits by name, classes of label maps."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from hdc.errors import InputError, at_least, one_of
from hdc.lab.data.dataset import IGNORE
from hdc.lab.data.stream import Rows, blocks, kept

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}  # by word
HELD_OUT = 0.15  # of the images for test, and as many for validation, where nothing else says which
FITS = ("resize", "crop", "pad")
T = TypeVar("T")
_LIBRARIES = {"s3": "fsspec with s3fs", "gs": "fsspec with gcsfs", "gcs": "fsspec with gcsfs"}
_LIBRARIES |= {"az": "fsspec with adlfs", "abfs": "fsspec with adlfs", "hf": "huggingface_hub"}


@dataclass(frozen=True)
class SizeOptions:
    """Of images of any size, and their masks.

    Attributes:
        size: height and width that images and masks are brought to, `[32]` for both; none where all
            images have one size.
        fit: how: resize, crop (resized without distortion, the middle of it) or pad (their pixels as they
            are; masks go on with `ignore`).
        ignore: the value of a mask that stands for no label; null for none.
    """

    size: tuple[int, ...] = ()
    fit: str = "resize"
    ignore: int | None = 255

    def __post_init__(self) -> None:
        one_of("fit", self.fit, FITS)
        if self.fit != "resize" and not self.size:
            raise InputError(f"fit={self.fit} needs a size to which images are brought: [height,width]")
        if self.fit == "pad" and self.ignore is None:
            raise InputError("fit=pad needs a value of ignore, which masks have beyond the image")
        if len(self.size) > 2:
            raise InputError(f"size must be [height,width], got {list(self.size)}")
        for side in self.size:
            at_least("size", side, 1)


def check_peak(peak: float) -> None:
    """Raise InputError for what cannot be the range of targets."""
    if not 0 < peak < math.inf:
        raise InputError(f"peak must be a number above 0, got {peak}")


def local(path: str, name: str, what: str) -> Path:
    """The place on this machine that `data.path` names.

    Raises:
        InputError: for none, for one that is not there, and for an address, whose line says which libraries
            would read it.
    """
    if not path:
        raise InputError(f"data.path is empty: give data={name} data.path={what}")
    scheme, remote, _ = path.partition("://")
    if remote:
        library = _LIBRARIES.get(scheme, "fsspec")
        raise InputError(
            f"data.path={path} is not on this machine: {library} would read it, which hdc does not use; "
            "copy the data here first"
        )
    if "\0" in path:
        raise InputError(f"data.path={path!r} is not a path")
    found = Path(path).expanduser()
    try:
        found.stat()
    except FileNotFoundError:
        raise InputError(f"data.path={path} is not there") from None
    except OSError as error:
        raise InputError(f"data.path={path} cannot be read: {error.strerror}") from None
    return found


def share(name: str) -> float:
    """A number in [0, 1) that is always the same for a name, to choose its split by."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(splits: Mapping[str, Sequence[T]], name: Callable[[T], str]) -> dict[str, list[T]]:
    """All three splits: one that is missing is taken from training, by the names.

    A split for validation beside training alone is the one for test.

    Args:
        splits: what there is, by split; there must be one to train on.
        name: of an item.
    """
    found = {split: list(items) for split, items in splits.items()}
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    for split, low in (("test", 0.0), ("validation", HELD_OUT)):
        if split not in found:
            out = [low <= share(name(item)) < low + HELD_OUT for item in found["train"]]
            pairs = list(zip(found["train"], out, strict=True))
            found |= {"train": [item for item, held in pairs if not held]}
            found |= {split: [item for item, held in pairs if held]}
    return {split: found[split] for split in ("train", "validation", "test")}


def numbered(
    values: Mapping[str, Sequence[int]], ignore: int | None, names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[int, int]]:
    """The classes of label maps, and which label each value stands for.

    Where the only values are 0 and 255 and none is ignored, 255 is the label 1: a black and white mask.

    Args:
        values: that each map has, by the name of its file.
        ignore: the value without a label.
        names: of the classes; None numbers them.

    Raises:
        InputError: naming the first file with a value that is no class.
    """
    counted = {value for some in values.values() for value in some} - {ignore}
    if counted == {0} and ignore == 255 and any(255 in some for some in values.values()):
        place = next(name for name, some in values.items() if 255 in some)
        raise InputError(
            f"{place} has the value 255, which is data.ignore, and all others are 0: give data.ignore=null "
            "for black and white masks"
        )
    labels = {0: 0, 255: 1} if counted == {0, 255} else {value: value for value in counted}
    most = IGNORE if names is None else len(names)
    for place, some in values.items():
        for value in some:
            if value != ignore and not 0 <= labels[value] < most:
                raise InputError(
                    f"{place} has the value {value}, but classes are 0 to {most - 1}"
                    + (f" ({', '.join(names[:5])}{', ...' if most > 5 else ''})" if names else "")
                    + f" and data.ignore={'null' if ignore is None else ignore}"
                )
    if not labels:
        raise InputError(f"{next(iter(values))} and all others have no value but data.ignore={ignore}")
    classes = names or tuple(map(str, range(max(labels.values()) + 1)))
    return classes, labels | ({} if ignore is None else {ignore: IGNORE})


def relabelled(maps: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """Label maps with every value replaced by its label, int32."""
    new = maps.astype(np.int32)
    for value, label in labels.items():
        if value != label:
            new[maps == value] = label
    return new


class _Relabelled(Rows):
    """Masks with every value replaced by its label."""

    def __init__(self, masks: Rows, labels: Mapping[int, int]):
        super().__init__(masks.shape, np.int32, {"masks": masks.key, "labels": sorted(labels.items())})
        self._masks, self._labels = masks, labels

    def row(self, index: int) -> np.ndarray:
        return relabelled(self._masks.row(index), self._labels)


def label_values(labels: np.ndarray | Rows) -> list[int]:
    """The distinct values of labels."""
    return kept(
        labels, "label values", lambda: sorted({int(v) for one in blocks(labels) for v in np.unique(one)})
    )


def labelled(maps: np.ndarray | Rows, labels: Mapping[int, int]) -> np.ndarray | Rows:
    """As `relabelled`; `Rows` are relabelled as they are read."""
    return _Relabelled(maps, labels) if isinstance(maps, Rows) else relabelled(maps, labels)

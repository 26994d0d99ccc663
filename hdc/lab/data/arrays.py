"""`data=npz`: images or signals, and their labels, in one .npz file of one's own."""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hdc import registry
from hdc.errors import InputError, unknown
from hdc.lab import memory
from hdc.lab.data.dataset import TYPES, Dataset, Split, are_finite
from hdc.lab.data.own import SPLITS, check_peak, held_out, label_values, labelled, local, numbered
from hdc.lab.data.stream import FileRows, Rows, open_npz
from hdc.lab.store import line, npy_header
from hdc.registry import Input, Task

_AXES: dict[Input, int] = {"images": 2, "signals": 1}
_SIDES = {2: "h, w", 1: "length"}
_NAMES = [f"{prefix}_{part}" for part in (*_AXES, "labels") for prefix in SPLITS] + ["classes"]
_MOST = 1 << 16  # classes that are numbered; more must be named, or a label of 10^9 would make as many


@dataclass(frozen=True)
class NpzOptions:
    """Of an .npz file.

    Attributes:
        path: the file.
        ignore: the value of a label map that stands for no label; null for none.
        peak: the targets of a regression are from 0 to this, for the PSNR.
    """

    path: str = ""
    ignore: int | None = 255
    peak: float = 1.0

    def __post_init__(self) -> None:
        check_peak(self.peak)


@registry.dataset("npz", NpzOptions)
def npz(options: NpzOptions) -> Dataset:
    """Your own arrays: data=npz data.path=FILE, with train_images (or train_signals), train_labels, ..."""
    return dataset(local(options.path, "npz", "FILE"), options.ignore, options.peak)


def dataset(path: Path, ignore: int | None = 255, peak: float = 1.0) -> Dataset:
    """The arrays of an .npz file; as `Rows` where it is not compressed, has three splits, and needs more
    than a quarter of the memory.

    Args:
        path: has `train_images` and `train_labels`; `test_...` and `validation_...` (or `val_...`), or what
            is missing is taken from training; and `classes`, the names, or classes are numbered. Images are
            `[n, h, w, c]` or, with one channel, `[n, h, w]`; labels are integers `[n]` or `[n, h, w]`, or for
            regression float32 `[n, h, w, outputs]`. Signals are `train_signals`, ..., `[n, length, c]` or
            `[n, length]`, with labels alike.
        ignore, peak: see `NpzOptions`.

    Raises:
        InputError: naming the file and the array that is missing or does not fit.
    """
    arrays = _arrays(path)
    if arrays.keys() & {*_NAMES}:  # else it is some other file, which one line describes below
        for name in arrays:
            if name not in _NAMES:
                raise InputError(f"{path}: {unknown('array', name, _NAMES)}")
    kind, axes = _kind(path, arrays)
    given: dict[str, tuple[np.ndarray | Rows, np.ndarray | Rows]] = {}
    for prefix, split in SPLITS.items():
        parts = [f"{prefix}_{part}" for part in (kind, "labels")]
        if not arrays.keys() & {*parts}:
            continue
        for one, other in (parts, parts[::-1]):
            if one not in arrays:
                raise InputError(f"{path} has {other} without {one}")
        if split in given:
            raise InputError(f"{path} has two {split} splits: val_ and validation_ are the same")
        items, labels = (arrays[name] for name in parts)
        given[split] = _items(path, parts[0], items, axes), _labels(path, parts[1], labels, axes)
        if len(given[split][0]) != len(given[split][1]):
            raise InputError(
                f"{path} has {len(given[split][0])} {parts[0]}, but {len(given[split][1])} labels"
            )
    if "train" not in given:
        raise InputError(
            f"{path} has no train_images (or train_signals), only: {', '.join(arrays) or 'nothing'}"
        )
    pairs = _three(path, given, kind)
    names, of_labels = _names(path, arrays.get("classes")), given["train"][1].ndim
    task: Task = "classification" if of_labels == 1 else "dense" if of_labels == 1 + axes else "regression"
    try:
        if task == "regression":
            outputs = given["train"][1].shape[-1]
            classes = names or tuple(map(str, range(outputs)))
            train, validation, test = (Split(*pair) for pair in pairs)
            return Dataset("npz", task, classes, train, validation, test, peak=peak)
        values = {f"{path}: {split}_labels": label_values(maps) for split, (_, maps) in given.items()}
        if task == "dense":
            classes, labels = numbered(values, ignore, names)
            pairs = [(images, labelled(maps, labels)) for images, maps in pairs]
        else:
            classes = names or _numbers(values)
        train, validation, test = (Split(*pair) for pair in pairs)
        return Dataset("npz", task, classes, train, validation, test)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


def _numbers(values: Mapping[str, list[int]]) -> tuple[str, ...]:
    """The classes of an .npz file that has no names: 0 to the largest label."""
    place, largest = max(((place, max(some)) for place, some in values.items()), key=lambda one: one[1])
    if largest >= _MOST:
        raise InputError(
            f"{place} has the value {largest}, but labels are the numbers of classes, 0 to {_MOST - 1}: "
            "number them from 0, or name every class in an array classes"
        )
    return tuple(map(str, range(largest + 1)))


def _kind(path: Path, arrays: Mapping[str, Any]) -> tuple[Input, int]:
    """What the file has, and its number of spatial axes."""
    names = {
        kind: [f"{prefix}_{kind}" for prefix in SPLITS if f"{prefix}_{kind}" in arrays] for kind in _AXES
    }
    if all(names.values()):
        both = " and ".join(some[0] for some in names.values())
        raise InputError(f"{path} has {both}: it must have images or signals")
    kind: Input = "signals" if names["signals"] else "images"
    return kind, _AXES[kind]


def _three(
    path: Path, given: dict[str, tuple[np.ndarray | Rows, np.ndarray | Rows]], kind: Input
) -> list[tuple[np.ndarray | Rows, np.ndarray | Rows]]:
    """Images and labels of the three splits: what is missing is taken from training."""
    places = {split: [(split, place) for place in range(len(images))] for split, (images, _) in given.items()}
    found = []
    for split, chosen in held_out(places, lambda one: str(one[1])).items():
        if not chosen:
            raise InputError(f"{path} has no {split}_{kind}, and too few train_{kind} to take some from them")
        images, labels = given[chosen[0][0]]
        rows = slice(None) if len(chosen) == len(images) else np.array([place for _, place in chosen])
        found.append((images[rows], labels[rows]))
    return found


def _items(path: Path, name: str, images: np.ndarray | Rows, axes: int) -> np.ndarray | Rows:
    if images.dtype not in TYPES:
        raise InputError(f"{path}: {name} is {images.dtype}, but must be {', '.join(TYPES)}: convert it")
    if images.ndim not in (1 + axes, 2 + axes) or not images.nbytes:
        sides = _SIDES[axes]
        raise InputError(
            f"{path}: {name} is {list(images.shape)}, but must be [n, {sides}, c] or [n, {sides}]"
        )
    _refuse_not_finite(path, name, images)
    if images.ndim == 2 + axes:
        return images
    return images.with_channel() if isinstance(images, FileRows) else images[..., None]


def _labels(path: Path, name: str, labels: np.ndarray | Rows, axes: int) -> np.ndarray | Rows:
    sides = _SIDES[axes]
    if labels.ndim == 2 + axes and labels.dtype == np.float32 and labels.nbytes:
        _refuse_not_finite(path, name, labels)
        return labels
    if labels.dtype.kind not in "iub":
        raise InputError(
            f"{path}: {name} is {labels.dtype} {list(labels.shape)}, but must be integers, or for regression "
            f"float32 [n, {sides}, outputs]"
        )
    if labels.ndim not in (1, 1 + axes) or not labels.nbytes:
        raise InputError(f"{path}: {name} is {list(labels.shape)}, but must be [n] or [n, {sides}]")
    if labels.dtype.kind == "b" and not isinstance(labels, FileRows):
        return np.asarray(labels, np.int32)
    if labels.dtype.itemsize > 2:
        ends = (labels.min(), labels.max()) if isinstance(labels, np.ndarray) else label_values(labels)
        if not -(2**31) <= (far := max(map(int, ends), key=abs)) < 2**31:
            raise InputError(f"{path}: {name} has the value {far}, which does not fit into int32")
    return labels.converted(np.int32) if isinstance(labels, FileRows) else labels


def _refuse_not_finite(path: Path, name: str, array: np.ndarray | Rows) -> None:
    """Raise InputError for NaN or infinity in an array in memory; `Split` looks through `Rows`."""
    if isinstance(array, np.ndarray) and array.dtype == np.float32 and not are_finite(array):
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InputError(f"{path}: {name} must be finite, but has NaN or infinity, first at {place}")


def _names(path: Path, classes: np.ndarray | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    names = tuple(map(str, classes.ravel()))
    if classes.dtype.kind != "U" or classes.ndim != 1 or not names or len(set(names)) < len(names):
        raise InputError(
            f"{path}: classes must be a list of different names, got {classes.dtype} {list(names)}"
        )
    return names


def _arrays(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file")
        with zipfile.ZipFile(path) as archive:
            size, limit = _size(archive), memory.limit()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            whole = {SPLITS.get(name.partition("_")[0]) for name in archive.namelist()} >= {*SPLITS.values()}
        if size > limit / 4 and stored and whole:
            rows: dict[str, Any] = {**open_npz(path)}
            return rows | {name: np.asarray(rows[name]) for name in rows.keys() & {"classes"}}
        if size > limit:
            raise InputError(
                f"its arrays have {size} bytes, more than the {limit} of memory: it can be read while "
                "training if np.savez writes it, with train_, validation_ and test_ arrays"
            )
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
    except Exception as error:  # zip, zlib and NumPy each raise their own
        raise InputError(f"{path} cannot be read as an .npz file: {line(error)}") from None


def _size(archive: zipfile.ZipFile) -> int:
    """The bytes of all arrays. NumPy allocates what a header claims: it must be what the archive holds."""
    size = 0
    for member in archive.infolist():
        with archive.open(member) as file:
            shape, _, dtype = npy_header(file)
            if dtype.hasobject:
                raise InputError(f"{member.filename} holds Python objects, which are not read: save numbers")
            claimed = math.prod(shape) * dtype.itemsize
            if claimed != member.file_size - file.tell():
                raise InputError(f"{member.filename} is not as long as its header says")
            size += claimed
    return size

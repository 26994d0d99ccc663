"""`data=npz`: images and labels in one .npz file of one's own."""

import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from hdc import registry
from hdc.errors import InputError
from hdc.lab.data.dataset import TYPES, Dataset, Split
from hdc.lab.data.own import SPLITS, held_out, local, numbered, relabelled
from hdc.lab.store import line


@dataclass(frozen=True)
class NpzOptions:
    """Of an .npz file.

    Attributes:
        path: the file.
        ignore: the value of a label map that stands for no label; null for none.
    """

    path: str = ""
    ignore: int | None = 255


@registry.dataset("npz", NpzOptions)
def npz(options: NpzOptions) -> Dataset:
    """Your own arrays: data=npz data.path=FILE, with train_images, train_labels, test_images, ..."""
    return dataset(local(options.path, "npz", "FILE"), options.ignore)


def dataset(path: Path, ignore: int | None = 255) -> Dataset:
    """The arrays of an .npz file.

    Args:
        path: has `train_images` and `train_labels`; `test_...` and `validation_...` (or `val_...`), or what
            is missing is taken from training; and `classes`, the names, or classes are numbered. Images are
            `[n, h, w, c]` or, with one channel, `[n, h, w]`; labels are integers `[n]` or `[n, h, w]`.
        ignore: see `NpzOptions`.

    Raises:
        InputError: naming the file and the array that is missing or does not fit.
    """
    arrays = _arrays(path)
    given: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for prefix, split in SPLITS.items():
        parts = [f"{prefix}_{part}" for part in ("images", "labels")]
        if not arrays.keys() & {*parts}:
            continue
        for one, other in (parts, parts[::-1]):
            if one not in arrays:
                raise InputError(f"{path} has {other} without {one}")
        if split in given:
            raise InputError(f"{path} has two {split} splits: val_ and validation_ are the same")
        given[split] = _images(path, parts[0], arrays[parts[0]]), _labels(path, parts[1], arrays[parts[1]])
        if len(given[split][0]) != len(given[split][1]):
            raise InputError(
                f"{path} has {len(given[split][0])} {parts[0]}, but {len(given[split][1])} labels"
            )
    if "train" not in given:
        raise InputError(f"{path} has no train_images, only: {', '.join(arrays) or 'nothing'}")
    places = {split: [(split, place) for place in range(len(images))] for split, (images, _) in given.items()}
    whole = held_out(places, lambda one: str(one[1]))
    for split, chosen in whole.items():
        if not chosen:
            raise InputError(f"{path} has no {split}_images, and too few train_images to take some from them")
    names, dense = _names(path, arrays.get("classes")), given["train"][1].ndim == 3
    values = {f"{path}: {split}_labels": np.unique(maps).tolist() for split, (_, maps) in given.items()}
    if dense:
        classes, labels = numbered(values, ignore, names)
    else:
        classes, labels = names or tuple(map(str, range(max(map(max, values.values())) + 1))), {}
    try:
        splits = []
        for chosen in whole.values():
            images, maps = given[chosen[0][0]]
            rows = slice(None) if len(chosen) == len(images) else [place for _, place in chosen]
            splits.append(Split(images[rows], relabelled(maps[rows], labels)))
        return Dataset("npz", "dense" if dense else "classification", classes, *splits)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _images(path: Path, name: str, images: np.ndarray) -> np.ndarray:
    if images.dtype not in TYPES:
        raise InputError(f"{path}: {name} is {images.dtype}, but must be {', '.join(TYPES)}: convert it")
    if images.ndim not in (3, 4) or not images.size:
        raise InputError(f"{path}: {name} is {list(images.shape)}, but must be [n, h, w, c] or [n, h, w]")
    return images if images.ndim == 4 else images[..., None]


def _labels(path: Path, name: str, labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "iub":
        raise InputError(f"{path}: {name} is {labels.dtype}, but must be integers")
    if labels.ndim not in (1, 3) or not labels.size:
        raise InputError(f"{path}: {name} is {list(labels.shape)}, but must be [n] or [n, h, w]")
    return labels.astype(np.int32) if labels.dtype.kind == "b" else labels


def _names(path: Path, classes: np.ndarray | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    names = tuple(map(str, classes.ravel()))
    if classes.dtype.kind != "U" or classes.ndim != 1 or not names or len(set(names)) < len(names):
        raise InputError(
            f"{path}: classes must be a list of different names, got {classes.dtype} {list(names)}"
        )
    return names


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file")
        with zipfile.ZipFile(path) as archive:
            _refuse_false_sizes(archive)
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
    except Exception as error:  # zip, zlib and NumPy each raise their own
        raise InputError(f"{path} cannot be read as an .npz file: {line(error)}") from None


def _refuse_false_sizes(archive: zipfile.ZipFile) -> None:
    """NumPy allocates what a header claims: it must be what the archive holds, and fit into the memory."""
    claimed = 0
    for member in archive.infolist():
        with archive.open(member) as file:
            version = npy.read_magic(file)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read_header(file)
            if dtype.hasobject:
                raise InputError(f"{member.filename} holds Python objects, which are not read: save numbers")
            size = math.prod(shape) * dtype.itemsize
            if size != member.file_size - file.tell():
                raise InputError(f"{member.filename} is not as long as its header says")
            claimed += size
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if claimed > memory:
        raise InputError(f"its arrays have {claimed} bytes, more than the {memory} of this machine's memory")

"""`data=folder`: images in a folder of one's own, each with a mask or a target, or in a subfolder per class.

Splits are subfolders, or named in `splits.csv`, or follow from the name of each image: with u in [0, 1), the
first 8 bytes of the name's SHA-256 as a fraction, an image is for test where u < 0.15, for validation where
u < 0.3, else for training. So an image keeps its split when others are added.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

from hdc import registry
from hdc.errors import InputError
from hdc.lab import memory
from hdc.lab.data import pictures
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split, are_finite, some
from hdc.lab.data.own import SPLITS, SizeOptions, check_peak, held_out, labelled, local, numbered
from hdc.lab.data.stream import Rows, blocks, kept
from hdc.lab.store import line, read, sha256
from hdc.registry import Task

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
_OF_WINDOWS = ("thumbs.db", "desktop.ini")  # which it writes into folders, in any case of letters
CLASSES, LISTED = "classes.txt", "splits.csv"
_MAPS: dict[str, Task] = {"masks": "dense", "targets": "regression"}  # by the folder beside images/
_KINDS: dict[Task, str] = {"classification": "classes", "dense": "masks", "regression": "targets"}


@dataclass(frozen=True)
class FolderOptions(SizeOptions):
    """Of a folder of images.

    Attributes:
        path: the folder.
        peak: targets of floating point are from 0 to this, for the PSNR. Those of integers are divided by the
            largest of their type, so that they are from 0 to 1.
    """

    path: str = ""
    peak: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_peak(self.peak)


@registry.dataset("folder", FolderOptions)
def folder(options: FolderOptions) -> Dataset:
    """Your own images: data=folder data.path=DIR, with masks, targets or in a subfolder per class."""
    return dataset(local(options.path, "folder", "DIR"), options)


@dataclass(frozen=True)
class Item:
    """One image of a folder.

    Attributes:
        name: its stem, after the class's folder if there is one; it decides on the split.
        image: its file.
        label: the file of its mask or target, or the name of its class.
        task: which of them.
    """

    name: str
    image: Path
    label: Path | str
    task: Task


def dataset(root: Path, options: FolderOptions = FolderOptions()) -> Dataset:
    """The images of a folder, decoded once and then read from the cache while no file has changed.

    If they need more than a quarter of the memory they are `Rows`, decoded whenever they are read.

    Args:
        root: holds `images/` and `masks/` or `targets/`, or one subfolder per class; or subfolders train,
            validation (or val) and test that hold these; or `images/` and `masks/` with such subfolders.
        options: all but its path.

    Raises:
        InputError: naming the file or folder that is missing, cannot be read or does not fit the others.
    """
    given = _layout(root)
    names = class_names(root / CLASSES)
    items = [item for some in given.values() for item in some]
    task = items[0].task
    if len(kinds := {_KINDS[item.task] for item in items}) > 1:
        raise InputError(f"{root} has {' and '.join(sorted(kinds))} in its splits: keep one of them")
    if task == "regression" and options.fit == "pad":
        raise InputError(f"data.fit=pad is not for the targets of {root}: beyond the image there are none")
    if task == "classification":
        found = sorted({str(item.label) for item in items})
        if names is not None and sorted(names) != found:
            raise InputError(f"{root / CLASSES} names {some(names)}, but the subfolders are {some(found)}")
        names = names or tuple(found)
        if len(found) < 2:
            raise InputError(
                f"{root} has only one subfolder of a class, {found[0]}: classification needs at least two"
            )
    splits = _assigned(root, given)
    try:
        return _read(splits, items, options, names)
    except pictures.Unreadable as error:
        raise InputError(f"{error}{_others(items)}") from None


def _read(
    splits: Mapping[str, Sequence[Item]],
    items: Sequence[Item],
    options: FolderOptions,
    names: tuple[str, ...] | None,
) -> Dataset:
    paths = _paths(items)
    with pictures.careful():
        streamed = _columns(splits, options, {path: _time(path) for path in paths}, timed=True)
        if sum(one.nbytes for some in streamed.values() for one in some) > memory.limit() / 4:
            return _made(splits, streamed, names, options)
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(paths, pool.map(lambda path: sha256(_bytes(path)), paths), strict=True))
    content = {
        split: [[item.name, digests[item.image], digests.get(item.label, item.label)] for item in some]  # type: ignore[arg-type]
        for split, some in splits.items()
    }
    key = {"name": "folder", "reader": 2, "classes": names, **asdict(options), "path": ""}
    key["content"] = sha256(repr(content).encode("utf-8", "surrogateescape"))

    def loaded() -> Dataset:
        with pictures.careful():
            found = _columns(splits, options, digests, timed=False)
            arrays = {split: [one.loaded() for one in some] for split, some in found.items()}
            return _made(splits, arrays, names, options)

    return cached(key, loaded)


def _paths(items: Sequence[Item]) -> list[Path]:
    return [path for item in items for path in (item.image, item.label) if isinstance(path, Path)]


def _others(items: Sequence[Item]) -> str:
    """The files that cannot be read, where there is more than one."""

    def unreadable(path: Path) -> bool:
        try:
            pictures.image(_bytes(path), path)
        except InputError as error:
            return isinstance(error, pictures.Unreadable)
        return False

    paths = _paths(items)
    with pictures.careful(), ThreadPoolExecutor() as pool:
        found = [str(path) for path, bad in zip(paths, pool.map(unreadable, paths), strict=True) if bad]
    return f" ({len(found)} files cannot be read: {some(found)})" if len(found) > 1 else ""


def class_names(path: Path) -> tuple[str, ...] | None:
    """The lines of a file of class names; None where there is no such file.

    Raises:
        InputError: where it cannot be read, is empty, or has a name twice.
    """
    text = _text(path)
    if text is None:
        return None
    names = [name.strip() for name in text.rstrip().splitlines()]
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            raise InputError(f"{path}, line {number}: {name!r} must be a class name that no other line has")
    if not names:
        raise InputError(f"{path} is empty: write one class name a line, or delete it")
    return tuple(names)


def _layout(root: Path) -> dict[str, list[Item]]:
    """The images by split as the folders say; under "" where they do not say it."""
    folders = _folders(root)
    if maps := _maps(root, folders):
        splits = _split_folders(_folders(root / "images"))
        if not splits:
            return {"": _mapped(root / "images", root / maps, maps)}
        return {
            split: _mapped(root / "images" / name, root / maps / name, maps) for split, name in splits.items()
        }
    splits = _split_folders(name for name in folders if name in SPLITS and _folders(root / name))
    if not splits:
        return {"": _classified(root, folders)}
    found = {}
    for split, name in splits.items():
        place, inner = root / name, _folders(root / name)
        maps = _maps(place, inner)
        found[split] = _mapped(place / "images", place / maps, maps) if maps else _classified(place, inner)
    return found


def _maps(root: Path, folders: Sequence[str]) -> str | None:
    """The name of the folder with a map for each image; None where each class has a subfolder."""
    found = [name for name in _MAPS if name in folders]
    if len(found) > 1:
        raise InputError(f"{root} has both masks/ and targets/: keep one of them")
    return found[0] if found else "masks" if "images" in folders else None


def _split_folders(names: Iterator[str] | list[str]) -> dict[str, str]:
    """Split to folder name; InputError for two folders of one split."""
    found: dict[str, str] = {}
    for name in names:
        if name in SPLITS and found.setdefault(SPLITS[name], name) != name:
            raise InputError(f"{name} and {found[SPLITS[name]]} are both folders of the {SPLITS[name]} split")
    return found


def _mapped(images: Path, maps: Path, kind: str) -> list[Item]:
    pictures, found = _files(images), _files(maps)
    what = kind.removesuffix("s")
    for stem, path in pictures.items():
        if stem not in found:
            raise InputError(f"{path} has no {what}: {maps} must have a file of the same name, {stem}.png")
    for stem, path in found.items():
        if stem not in pictures:
            raise InputError(f"{path} is a {what} without an image: {images} has no file named {stem}")
        if what == "mask" and path.suffix.lower() in (".jpg", ".jpeg"):
            raise InputError(f"{path} is a JPEG, which changes values: masks must be PNG, TIFF or WebP")
    return [Item(stem, path, found[stem], _MAPS[kind]) for stem, path in pictures.items()]


def _classified(root: Path, classes: list[str]) -> list[Item]:
    if not classes:
        raise InputError(f"{root} has neither images/ with masks/ or targets/ nor a subfolder for each class")
    for path in _entries(root):
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            raise InputError(f"{path} lies beside the subfolders of the classes: put it into one of them")
    return [
        Item(f"{name}/{stem}", path, name, "classification")
        for name in classes
        for stem, path in _files(root / name).items()
    ]


def _folders(root: Path) -> list[str]:
    return [path.name for path in _entries(root) if path.is_dir()]


def _files(folder: Path) -> dict[str, Path]:
    """The images of a folder by stem."""
    found: dict[str, Path] = {}
    for path in _entries(folder):
        if path.is_dir():
            raise InputError(f"{path} is a folder, but {folder} must hold images only")
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path} is not an image that is read here: {', '.join(SUFFIXES)}")
        if path.stem in found:
            raise InputError(f"{path} and {found[path.stem].name} have the same name: keep one of them")
        found[path.stem] = path
    if not found:
        raise InputError(f"{folder} is empty: there must be images in it")
    return found


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in order of its names, but for hidden files and those of Windows."""
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if not path.name.startswith(".") and path.name.lower() not in _OF_WINDOWS
        )
    except FileNotFoundError:
        raise InputError(f"{folder} is not there") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None


def _text(path: Path) -> str | None:
    try:
        return read(path).decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {line(error)}") from None


def _assigned(root: Path, given: Mapping[str, list[Item]]) -> dict[str, list[Item]]:
    """The three splits, of what the folders say, `splits.csv`, or the names."""
    listed = _text(root / LISTED)
    if listed is not None:
        if [*given] != [""]:
            raise InputError(f"{root} has subfolders of splits and {LISTED}: keep one of them")
        found = _as_listed(root / LISTED, listed, given[""])
    else:
        found = dict(given)
    if "" in found:  # nothing says which are which
        found = {"train": found[""]}
    if "train" not in found:
        raise InputError(f"{root} has no training split, only {some(list(found))}")
    splits = held_out(found, lambda item: item.name)
    for split, items in splits.items():
        if not items:
            raise InputError(
                f"the {split} split of {root} is empty: make subfolders train, validation and test, or a "
                f"file {LISTED}"
            )
    return splits


def _as_listed(path: Path, text: str, items: Sequence[Item]) -> dict[str, list[Item]]:
    """The splits that a file gives to the images, one NAME,SPLIT a line."""
    named = {item.name: item for item in items}
    found: dict[str, list[Item]] = {}
    for number, row in enumerate(text.splitlines(), 1):
        name, _, split = (part.strip() for part in row.rpartition(","))
        if not row.strip() or (number == 1 and row.replace(" ", "") == "name,split"):
            continue
        if split not in SPLITS:
            raise InputError(f"{path}, line {number}: {split!r} is not one of {', '.join(SPLITS)}")
        if name not in named:
            if any(name == item.name for item in items):
                raise InputError(f"{path}, line {number}: {name!r} is there twice")
            raise InputError(f"{path}, line {number}: {name!r} is not an image, such as {items[0].name!r}")
        found.setdefault(SPLITS[split], []).append(named.pop(name))
    if named:
        raise InputError(f"{path} does not list {next(iter(named.values())).image}: add a line for it")
    return found


def _bytes(path: Path) -> bytes:
    try:
        return read(path)
    except OSError as error:
        raise pictures.Unreadable(f"{path} cannot be read: {error.strerror or line(error)}") from None


def _time(path: Path) -> str:
    """What changes with a file, without reading it."""
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return f"{found.st_size} {found.st_mtime_ns}"


class _Files(Rows):
    """The images of a split, or their masks or targets, decoded when they are read.

    Args:
        items: of the split.
        maps: whether the rows are masks or targets.
        options: of the folder.
        first: the data set's first item, which all must be like.
        like: its row.
        versions: of each file, when it was listed: its SHA-256, or for `timed` what `_time` says.
        timed: see `versions`.
    """

    def __init__(
        self,
        items: Sequence[Item],
        maps: bool,
        options: FolderOptions,
        first: Item,
        like: np.ndarray,
        versions: Mapping[Path, str],
        timed: bool,
    ):
        self._items, self._maps, self._options, self._timed = items, maps, options, timed
        self._first = _file(first, maps)
        self._versions = [versions[_file(item, maps)] for item in items]
        content = [[item.name, version] for item, version in zip(items, self._versions, strict=True)]
        key = {"folder": sha256(repr(content).encode("utf-8", "surrogateescape")), "maps": maps}
        key |= {"size": list(options.size), "fit": options.fit, "ignore": options.ignore}
        super().__init__((len(items), *like.shape), like.dtype, key)

    def row(self, index: int) -> np.ndarray:
        item = self._items[index]
        content = _bytes(path := _file(item, self._maps))
        if self._versions[index] != (_time(path) if self._timed else sha256(content)):
            raise InputError(f"{path} has changed since it was listed")
        found = _decoded(item, self._maps, content, self._options)
        if found.ndim == 3 and (found.dtype, found.shape[2]) != (self.dtype, self.shape[3]):
            kind, other = (
                f"{channels} {dtype} channel{'s' * (channels > 1)}"
                for channels, dtype in ((found.shape[2], found.dtype), (self.shape[3], self.dtype))
            )
            how, in_pages = "", {path.suffix.lower(), self._first.suffix.lower()} & {".tif", ".tiff"}
            if (
                found.dtype == self.dtype == np.uint8
                and max(found.shape[2], self.shape[3]) <= 4
                and not in_pages
            ):
                how = '; PIL.Image.open(FILE).convert("RGB").save(FILE) gives a file 3 channels'
            raise InputError(f"{path} has {kind}, but {self._first} has {other}: all must be alike{how}")
        if found.shape != self.shape[1:]:
            raise InputError(
                f"{path} is {_by(found.shape)} pixels, but {self._first} is {_by(self.shape[1:])}: give "
                "data.size=[HEIGHT,WIDTH], to which all are brought"
            )
        return found

    def loaded(self) -> np.ndarray:
        """All rows, decoded side by side."""
        whole = np.empty(self.shape, self.dtype)
        with ThreadPoolExecutor() as pool:
            for place, found in enumerate(pool.map(self.row, range(len(self)))):
                whole[place] = found
        return whole


def _file(item: Item, map_: bool) -> Path:
    return cast(Path, item.label) if map_ else item.image


def _decoded(item: Item, map_: bool, content: bytes, options: FolderOptions) -> np.ndarray:
    """The image of an item, or its mask or target, in the size that is asked for."""
    path = _file(item, map_)
    decode = pictures.mask if map_ and item.task == "dense" else pictures.image
    found = decode(content, path)
    if found.dtype == np.float32 and not are_finite(found):
        what = "targets" if map_ else "images"
        raise InputError(f"{path} has NaN or infinity: {what} must be finite")
    if map_ and found.shape[:2] != (sides := pictures.sides(item.image)):
        raise InputError(
            f"{path} is {_by(found.shape)} pixels, but {item.image} is {_by(sides)}: both must be alike"
        )
    if map_ and item.task == "regression" and found.dtype != np.float32:
        found = found.astype(np.float32) / np.float32(np.iinfo(found.dtype).max)
    try:
        return pictures.fitted(found, options.size, options.fit, options.ignore or 0)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _columns(
    splits: Mapping[str, Sequence[Item]], options: FolderOptions, versions: Mapping[Path, str], timed: bool
) -> dict[str, list[_Files]]:
    """The images of each split and, if they have some, their masks or targets."""
    first = splits["train"][0]
    kinds = (False,) if first.task == "classification" else (False, True)
    likes = [(maps, _decoded(first, maps, _bytes(_file(first, maps)), options)) for maps in kinds]
    return {
        split: [_Files(items, maps, options, first, like, versions, timed) for maps, like in likes]
        for split, items in splits.items()
    }


def _made(
    splits: Mapping[str, Sequence[Item]],
    columns: Mapping[str, Sequence[np.ndarray | Rows]],
    names: tuple[str, ...] | None,
    options: FolderOptions,
) -> Dataset:
    task, labels = splits["train"][0].task, {split: some[-1] for split, some in columns.items()}
    if task == "dense":
        values = {path: some for split in splits for path, some in _values(splits[split], labels[split])}
        names, table = numbered(values, options.ignore, names)
        labels = {split: labelled(maps, table) for split, maps in labels.items()}
    elif task == "regression":
        names = names or tuple(map(str, range(labels["train"].shape[-1])))
    else:
        assert names is not None
        places = {name: np.int32(place) for place, name in enumerate(names)}
        labels = {split: np.array([places[str(item.label)] for item in splits[split]]) for split in splits}
    train, validation, test = (Split(columns[split][0], labels[split]) for split in splits)
    peak = options.peak if task == "regression" else 1.0
    return Dataset("folder", task, names, train, validation, test, peak=peak)


def _values(items: Sequence[Item], masks: np.ndarray | Rows) -> list[tuple[str, list[int]]]:
    """The values of masks, each with the first file that has it."""

    def scan() -> list[tuple[int, list[int]]]:
        found, known = [], set()
        rows = (row for block in blocks(masks) for row in block)
        for place, row in enumerate(rows):
            if new := set(np.unique(row).tolist()) - known:
                known |= new
                found.append((place, sorted(new)))
        return found

    return [(str(items[place].label), some) for place, some in kept(masks, "values of masks", scan)]


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"

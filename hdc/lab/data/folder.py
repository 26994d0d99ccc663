"""`data=folder`: images in a folder of one's own, with a mask for each, or in one subfolder per class.

Splits are subfolders, or named in `splits.csv`, or follow from the name of each image: with u in [0, 1), the
first 8 bytes of the name's SHA-256 as a fraction, an image is for test where u < 0.15, for validation where
u < 0.3, else for training. So an image keeps its split when others are added.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdc import registry
from hdc.errors import InputError
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.data.own import SPLITS, SizeOptions, held_out, local, numbered, relabelled
from hdc.lab.store import line, read, sha256

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
CLASSES, LISTED = "classes.txt", "splits.csv"


@dataclass(frozen=True)
class FolderOptions(SizeOptions):
    """Of a folder of images.

    Attributes:
        path: the folder.
    """

    path: str = ""


@registry.dataset("folder", FolderOptions)
def folder(options: FolderOptions) -> Dataset:
    """Your own images: data=folder data.path=DIR, with masks or in a subfolder per class."""
    return dataset(local(options.path, "folder", "DIR"), options.size, options.ignore)


@dataclass(frozen=True)
class Item:
    """One image of a folder.

    Attributes:
        name: its stem, after the class's folder if there is one; it decides on the split.
        image: its file.
        label: the file of its mask, or the name of its class.
    """

    name: str
    image: Path
    label: Path | str


def dataset(root: Path, size: Sequence[int] = (), ignore: int | None = 255) -> Dataset:
    """The images of a folder, decoded once and then read from the cache while no file has changed.

    Args:
        root: holds `images/` and `masks/`, or one subfolder per class; or subfolders train, validation (or
            val) and test that hold these; or `images/` and `masks/` with such subfolders.
        size, ignore: see `FolderOptions`.

    Raises:
        InputError: naming the file or folder that is missing, cannot be read or does not fit the others.
    """
    given = _layout(root)
    names = class_names(root / CLASSES)
    dense = all(isinstance(item.label, Path) for items in given.values() for item in items)
    if not dense:
        found = sorted({str(item.label) for items in given.values() for item in items})
        if names is not None and sorted(names) != found:
            raise InputError(f"{root / CLASSES} names {_some(names)}, but the subfolders are {_some(found)}")
        names = names or tuple(found)
    splits = _assigned(root, given)
    digests = _digests(splits)
    content = {
        split: [[item.name, digests[item.image], digests.get(item.label, item.label)] for item in items]  # type: ignore[arg-type]
        for split, items in splits.items()
    }
    key = {"name": "folder", "reader": 1, "size": list(size), "ignore": ignore, "classes": names}
    key["content"] = sha256(repr(content).encode("utf-8", "surrogateescape"))
    return cached(key, lambda: _make(splits, digests, size, ignore, names))


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
    if "images" in folders or "masks" in folders:
        images, masks = root / "images", root / "masks"
        splits = _split_folders(_folders(images))
        if not splits:
            return {"": _masked(images, masks)}
        return {split: _masked(images / name, masks / name) for split, name in splits.items()}
    splits = _split_folders(name for name in folders if name in SPLITS and _folders(root / name))
    if not splits:
        return {"": _classified(root, folders)}
    found = {}
    for split, name in splits.items():
        inner = _folders(root / name)
        dense = "images" in inner or "masks" in inner
        place = root / name
        found[split] = _masked(place / "images", place / "masks") if dense else _classified(place, inner)
    kinds = {isinstance(item.label, Path) for items in found.values() for item in items}
    if len(kinds) > 1:
        raise InputError(f"{root} has images/ and masks/ in some splits and classes in others")
    return found


def _split_folders(names: Iterator[str] | list[str]) -> dict[str, str]:
    """Split to folder name; InputError for two folders of one split."""
    found: dict[str, str] = {}
    for name in names:
        if name in SPLITS and found.setdefault(SPLITS[name], name) != name:
            raise InputError(f"{name} and {found[SPLITS[name]]} are both folders of the {SPLITS[name]} split")
    return found


def _masked(images: Path, masks: Path) -> list[Item]:
    pictures, maps = _files(images), _files(masks)
    for stem, path in pictures.items():
        if stem not in maps:
            raise InputError(f"{path} has no mask: {masks} must have a file of the same name, {stem}.png")
    for stem, path in maps.items():
        if stem not in pictures:
            raise InputError(f"{path} is a mask without an image: {images} has no file named {stem}")
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise InputError(f"{path} is a JPEG, which changes values: masks must be PNG, TIFF or WebP")
    return [Item(stem, path, maps[stem]) for stem, path in pictures.items()]


def _classified(root: Path, classes: list[str]) -> list[Item]:
    if not classes:
        raise InputError(f"{root} has neither images/ and masks/ nor a subfolder for each class")
    for path in _entries(root):
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            raise InputError(f"{path} lies beside the subfolders of the classes: put it into one of them")
    return [
        Item(f"{name}/{stem}", path, name) for name in classes for stem, path in _files(root / name).items()
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
    """What is in a folder, in order of its names, but for hidden files."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
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
        raise InputError(f"{root} has no training split, only {_some(list(found))}")
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


def _digests(splits: Mapping[str, Sequence[Item]]) -> dict[Path, str]:
    """The SHA-256 of every file."""
    paths = [path for items in splits.values() for item in items for path in _paths(item)]
    with ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(lambda path: sha256(_bytes(path)), paths), strict=True))


def _paths(item: Item) -> list[Path]:
    return [item.image, item.label] if isinstance(item.label, Path) else [item.image]


def _bytes(path: Path) -> bytes:
    try:
        return read(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or line(error)}") from None


def _make(
    splits: Mapping[str, Sequence[Item]],
    digests: Mapping[Path, str],
    size: Sequence[int],
    ignore: int | None,
    names: tuple[str, ...] | None,
) -> Dataset:
    from hdc.lab.data import pictures

    def content(path: Path) -> bytes:
        found = _bytes(path)
        if sha256(found) != digests[path]:
            raise InputError(f"{path} has changed while it was read")
        return found

    def decoded(item: Item) -> tuple[np.ndarray, np.ndarray | None]:
        image = pictures.image(content(item.image), item.image)
        if not isinstance(item.label, Path):
            return pictures.resized(image, size), None
        mask = pictures.mask(content(item.label), item.label)
        if mask.shape != image.shape[:2]:
            raise InputError(
                f"{item.label} is {_by(mask)} pixels, but {item.image} is {_by(image)}: both must be alike"
            )
        return pictures.resized(image, size), pictures.resized(mask, size)

    images: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    values: dict[str, list[int]] = {}
    first: Item | None = None
    like = np.empty(0)
    with pictures.careful(), ThreadPoolExecutor() as pool:
        for split, items in splits.items():
            for place, (item, (image, mask)) in enumerate(zip(items, pool.map(decoded, items), strict=True)):
                if first is None:
                    first, like = item, image
                _refuse_unlike(item, image, first, like)
                if place == 0:
                    images[split] = np.empty((len(items), *image.shape), image.dtype)
                images[split][place] = image
                if mask is not None:
                    if place == 0:
                        masks[split] = np.empty((len(items), *mask.shape), np.int32)
                    masks[split][place] = mask
                    values[str(item.label)] = np.unique(mask).tolist()
    if not masks:
        assert names is not None
        places = {name: place for place, name in enumerate(names)}
        train, validation, test = (
            Split(images[split], np.array([places[str(item.label)] for item in items], np.int32))
            for split, items in splits.items()
        )
        return Dataset("folder", "classification", names, train, validation, test)
    classes, labels = numbered(values, ignore, names)
    train, validation, test = (Split(images[one], relabelled(masks[one], labels)) for one in splits)
    return Dataset("folder", "dense", classes, train, validation, test)


def _refuse_unlike(item: Item, image: np.ndarray, first: Item, like: np.ndarray) -> None:
    kind, other = (f"{one.shape[2]} {one.dtype} channel{'s' * (one.shape[2] > 1)}" for one in (image, like))
    if kind != other:
        raise InputError(f"{item.image} has {kind}, but {first.image} has {other}: all images must be alike")
    if image.shape != like.shape:
        raise InputError(
            f"{item.image} is {_by(image)} pixels, but {first.image} is {_by(like)}: give "
            "data.size=[HEIGHT,WIDTH], to which all are resized"
        )


def _by(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _some(names: Sequence[str]) -> str:
    """Names in a message, the first few of many."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

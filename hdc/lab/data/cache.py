"""Data sets kept as files, so that decoding or composing one happens once per machine."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hdc.errors import InputError
from hdc.folders import cache_dir
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.locks import only_maker
from hdc.lab.store import Unwritable, read_safetensors, write_safetensors

log = logging.getLogger("hdc")

SPLITS = ("train", "validation", "test")


def cached(key: Mapping[str, object], make: Callable[[], Dataset]) -> Dataset:
    """The data set that `make` returns, read from the cache if it is there.

    While one process makes it, others wait. A damaged file is made again, and a cache that cannot be written
    is not used; each logs one warning.

    Args:
        key: all that the content depends on, as JSON values: `name` (the data set), the version of its
            builder and all parameters.
        make: builds the data set.
    """
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)
    name, values = str(key["name"]), json.loads(text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = cache_dir() / "data" / (re.sub(r"[^\w.-]+", "-", name) + f"-{digest}.safetensors")
    with suppress(OSError, InputError):  # reported below, if no other process repairs it
        return _read(path, values)
    with only_maker(path, name):
        return _read_or_made(path, values, make)


def _read_or_made(path: Path, key: dict[str, Any], make: Callable[[], Dataset]) -> Dataset:
    try:
        return _read(path, key)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except InputError as error:
        log.warning("%s: the data set is made again", error)
    except OSError as error:  # the disk or this process is in trouble, the file may be whole
        log.warning("%s cannot be read (%s): the data set is made again and not kept", path, error)
        return make()
    dataset = make()
    try:
        _write(path, key, dataset)
    except Unwritable as error:
        log.warning("%s: the data set is not cached", error)
    return dataset


def _write(path: Path, key: dict[str, Any], dataset: Dataset) -> None:
    arrays: dict[str, np.ndarray] = {}
    for name, split in dataset.splits.items():
        labels = np.asarray(split.labels)
        if labels.dtype == np.int32:
            narrow = labels.astype(np.uint8)  # a quarter of the bytes, to read and to hash
            labels = narrow if np.array_equal(narrow, labels) else labels
        arrays |= {f"{name}.images": np.asarray(split.images), f"{name}.labels": labels}
        if split.strata is not None:
            arrays[f"{name}.strata"] = np.asarray(split.strata)
    about = {"key": key, "name": dataset.name, "task": dataset.task, "classes": dataset.classes}
    about |= {"strata": dataset.strata, "background": dataset.background, "peak": dataset.peak}
    write_safetensors(path, arrays, about)


def _read(path: Path, key: dict[str, Any]) -> Dataset:
    arrays, about = read_safetensors(path)
    made_from = about.pop("key")
    if made_from != key:
        raise InputError(f"{path} was made from {made_from}")
    for name in SPLITS:
        labels = arrays[f"{name}.labels"]
        if labels.dtype != np.float32:  # of regression
            labels = labels.astype(np.int32, copy=False)
        about[name] = Split(arrays[f"{name}.images"], labels, arrays.get(f"{name}.strata"))
    about |= {name: tuple(about[name]) for name in ("classes", "strata")}
    return Dataset(**about)

"""Data sets kept as `.npy` files, so that decoding or composing one happens once per machine."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.lib import format

from hdc.folders import cache_dir
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.data.lock import PART, only_maker

log = logging.getLogger("hdc")

SPLITS = ("train", "validation", "test")


def cached(key: Mapping[str, object], make: Callable[[], Dataset]) -> Dataset:
    """The data set that `make` returns, read from the cache when it is there.

    `key` is everything that the content depends on, as JSON values: `name` (the data set), the
    builder's version and all its parameters. While one process makes it, the others wait for it. A
    cached folder that cannot be read as it was written is made again, and a cache that cannot be
    written is not used; both log one warning.
    """
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)
    name = re.sub(r"[^\w.-]+", "-", str(key["name"]))
    folder = cache_dir() / "data" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    with contextlib.suppress(Exception):  # what is wrong is said below, where no other process mends it
        return _read(folder, json.loads(text))
    with only_maker(folder, str(key["name"])):
        return _read_or_made(folder, json.loads(text), make)


def _read_or_made(folder: Path, key: dict[str, Any], make: Callable[[], Dataset]) -> Dataset:
    if folder.exists():
        try:
            return _read(folder, key)
        except FileNotFoundError as error:
            log.warning("%s is not whole (%s): the data set is made again", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            # The disk or this process is in trouble, not what was written.
            log.warning("%s cannot be read (%s): the data set is made again and not kept", folder, error)
            return make()
        except Exception as error:  # NumPy's reading of a damaged header raises nearly anything
            reason = " ".join(str(error).split())
            log.warning("%s is damaged (%s): the data set is made again", folder, reason)
            shutil.rmtree(folder, ignore_errors=True)
    dataset = make()
    try:
        _write(folder, key, dataset)
    except OSError as error:
        log.warning("%s cannot be written (%s): the data set is not cached", folder, error)
    return dataset


def _write(folder: Path, key: dict[str, Any], dataset: Dataset) -> None:
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}{PART}")
    try:
        temporary.mkdir(parents=True)
        arrays = {}
        for split in SPLITS:
            for part in ("images", "labels", "strata"):
                array = getattr(getattr(dataset, split), part)
                if array is None:
                    continue
                array = np.ascontiguousarray(array)
                with (temporary / f"{split}_{part}.npy").open("wb") as file:
                    # As np.save, which does not say what an error in writing was.
                    format.write_array_header_1_0(file, format.header_data_from_array_1_0(array))
                    file.write(array.data)
                    _flush(file)
                arrays[f"{split}_{part}"] = _fingerprint(array)
        about = {"key": key, "name": dataset.name, "task": dataset.task, "classes": dataset.classes}
        about |= {"strata": dataset.strata, "background": dataset.background, "arrays": arrays}
        with (temporary / "dataset.json").open("w", encoding="utf-8") as file:
            json.dump(about | {"crc32": _crc32(about)}, file, indent=1)
            _flush(file)
        try:
            temporary.rename(folder)
        except OSError:
            # Where the folder exists another process was first, and made the same from the same key.
            if not (folder / "dataset.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(folder: Path, key: dict[str, Any]) -> Dataset:
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    if about.pop("crc32", None) != _crc32(about):
        raise ValueError("dataset.json is not as it was written")
    if about["key"] != key:
        raise ValueError(f"it was made from {about['key']}")

    def array(name: str) -> np.ndarray:
        loaded = np.load(folder / f"{name}.npy", allow_pickle=False)
        if _fingerprint(loaded) != about["arrays"][name]:
            raise ValueError(f"{name}.npy is not as it was written")
        return loaded

    strata = tuple(about["strata"])
    parts = ("images", "labels", "strata") if strata else ("images", "labels")
    splits = {split: Split(*(array(f"{split}_{part}") for part in parts)) for split in SPLITS}
    return Dataset(
        name=about["name"],
        task=about["task"],
        classes=tuple(about["classes"]),
        strata=strata,
        background=about["background"],
        **splits,
    )


def _fingerprint(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype), "crc32": zlib.crc32(array.data)}


def _crc32(about: Mapping[str, object]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())

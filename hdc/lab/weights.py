"""Trained weights in a file of their own: safetensors, with what they belong to in the header."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from hdc.errors import InputError, printable


def digest(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values and of arrays with their names, types and shapes."""
    hashed = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        hashed.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def to_bytes(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """A safetensors file of arrays, with `about` (JSON values) under `hdc` in its header."""
    header = json.dumps({**about, "sha256": digest(arrays, about)}, sort_keys=True, allow_nan=False)
    return safetensors.numpy.save(dict(arrays), {"hdc": header})


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of such a file, and its `about`.

    Raises:
        InputError: where it cannot be read, is damaged, or was not written by `to_bytes`.
    """
    if not path.is_file():
        raise InputError(f"{path} cannot be read: there is no such file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("hdc")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # for a type that NumPy does not have, it raises NumPy's own
        raise InputError(f"{path} cannot be read: {printable(str(error))}") from None
    if header is None:
        raise InputError(f"{path} does not say which network it is of: its header has no 'hdc'")
    try:
        about = json.loads(header)
        whole = about.pop("sha256") == digest(arrays, about)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(f"{path} is damaged: its content is not what was written")
    return arrays, about

"""Files written whole or not at all, and read with a word on what is wrong.

JSON objects carry the SHA-256 of their own content, so that one that was changed is refused; older ones
without it are read as they are.
"""

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import numpy as np
from numpy.lib import format as npy

from hdc.errors import InputError

MAX_BYTES = 2**30  # of an archive's arrays
MAX_DEPTH = 32  # of JSON

_DIGEST = "sha256"


class Unwritable(OSError):
    """A file cannot be written: no room or no right on its disk, or the disk is broken."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


def write(path: Path, content: bytes) -> None:
    """Write a whole file or nothing; raises as `write_all`."""
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write whole files, or none of them where one cannot be: temporary names, to disk, then renamed.

    Raises:
        Unwritable: which names the file that cannot be written, and why.
        InputError: for a path that can only be a folder.
    """
    for path in contents:
        if not path.name:
            raise InputError(f"{path} is a folder, not a file to write")
    temporary = {path: path.with_name(f".{path.name}.{uuid4().hex[:8]}") for path in contents}
    try:
        for path, content in contents.items():
            with naming(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with temporary[path].open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
        for path in contents:
            with naming(path):
                temporary[path].replace(path)
    finally:
        for left in temporary.values():
            with suppress(OSError):
                left.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an `Unwritable` that names `path`."""
    try:
        yield
    except OSError as error:
        raise Unwritable(error.errno, error.strerror or line(error), str(path)) from None


def read(path: Path) -> bytes:
    """A whole file; OSError where it cannot be read, InputError where it is none, such as a pipe."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path} is no regular file")
    return path.read_bytes()


def sha256(content: bytes) -> str:
    """The digest of a content, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError where it cannot be read, was changed or is something else."""
    try:
        values = json.loads(read(path), parse_constant=_not_finite)
        digest = values.pop(_DIGEST, None) if isinstance(values, dict) else None
        found = sha256(_canonical(values))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {line(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: it holds no JSON object")
    if digest not in (None, found):
        raise InputError(f"{path} is damaged: it is not as it was written, by its {_DIGEST}")
    return values


def to_json(values: Mapping[str, Any]) -> bytes:
    """An object as indented JSON, its digest last; ValueError for a number that is not finite."""
    digest = sha256(_canonical(json.loads(json.dumps(values))))
    return (json.dumps({**values, _DIGEST: digest}, indent=2, allow_nan=False) + "\n").encode()


def read_arrays(content: bytes, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive by name, all or these.

    Raises:
        Exception: zip, zlib and NumPy each raise their own for an archive that is damaged; ValueError for
            objects, and for arrays of together more than `MAX_BYTES`, of which none is made then.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = max(sum(member.file_size for member in archive.infolist()), _claimed(archive))
    if size > MAX_BYTES:
        raise ValueError(f"its arrays have {size} bytes, at most {MAX_BYTES} are read")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (arrays.files if names is None else names)}


def _claimed(archive: zipfile.ZipFile) -> int:
    """The bytes of the arrays by their headers, from which NumPy takes what it makes room for."""
    size = 0
    for member in archive.infolist():
        with archive.open(member) as file:
            one = npy.read_magic(file) == (1, 0)
            read_header = npy.read_array_header_1_0 if one else npy.read_array_header_2_0
            shape, _, dtype = read_header(file)
        size += math.prod(shape) * dtype.itemsize
    return size


def _canonical(values: Any) -> bytes:
    """The same bytes for the same values; ValueError for what JSON and UTF-8 cannot hold, or too deep."""
    if not _is_within(values, MAX_DEPTH):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _is_within(values: Any, depth: int) -> bool:
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return depth > 0 and all(_is_within(value, depth - 1) for value in inner)


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def line(error: BaseException) -> str:
    """An error's message as one line."""
    return " ".join(str(error).split()) or type(error).__name__

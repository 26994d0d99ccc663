"""Files written whole or not at all, and JSON that is read with a word on what is wrong."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from hdc.errors import InputError


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


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError where it cannot be read or holds something else."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {line(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: it holds no JSON object")
    return values


def to_json(values: Mapping[str, Any]) -> bytes:
    """An object as indented JSON; ValueError for a number that is not finite."""
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def line(error: BaseException) -> str:
    """An error's message as one line."""
    return " ".join(str(error).split()) or type(error).__name__

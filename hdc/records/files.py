"""Files written whole or not at all, and JSON that is read with a word on what is wrong."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hdc.errors import InputError


def write(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: a temporary name, to disk, then renamed."""
    if not path.name:
        raise InputError(f"{path} is a folder, not a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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

"""Checkpoints of a run in training: the newest two, written in the background, verified when read.

A checkpoint is a file of `hdc.lab.store`: named arrays, JSON about them, and their SHA-256. Orbax is not
used: its strength, states that are sharded over many hosts, is not needed for a run on one machine; it does
not notice a changed bit in an array, and on a full disk several of its threads end with a traceback each.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hdc.errors import InputError
from hdc.lab.store import PART, Unwritable, line, naming, read_safetensors, write_safetensors

KEPT = 2

T = TypeVar("T")


class Checkpoints:
    """A folder of numbered checkpoints: arrays by name, and JSON values about them."""

    def __init__(self, folder: Path):
        """Open the folder, which is created if needed; the rest of an interrupted write is removed.

        Raises:
            Unwritable: if the folder cannot be created.
        """
        self._folder = folder.absolute()
        with naming(self._folder):
            self._folder.mkdir(exist_ok=True)
        for left in self._folder.glob(f".*{PART}"):
            with suppress(OSError):
                left.unlink()
        self._last = max(self._numbers(), default=0)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def _numbers(self) -> list[int]:
        found = (re.fullmatch(r"(\d+)\.safetensors", path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"

    def save(
        self,
        arrays: Mapping[str, np.ndarray],
        about: Mapping[str, Any],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to write a checkpoint once the one before is on disk; the arrays may change afterwards.

        `then` is called, in another thread, when it is on disk.

        Raises:
            Unwritable: if the one before could not be written; this one is started nevertheless.
        """
        failed = None
        try:
            self.wait()
        except Unwritable as error:
            failed = error
        self._last += 1
        copies = {name: np.array(array) for name, array in arrays.items()}
        self._writing = self._pool.submit(self._write, self._last, copies, about, then)
        if failed is not None:
            raise failed

    def _write(
        self,
        number: int,
        arrays: Mapping[str, np.ndarray],
        about: Mapping[str, Any],
        then: Callable[[], None],
    ) -> None:
        write_safetensors(self._path(number), arrays, about)
        then()
        for old in self._numbers()[:-KEPT]:
            with suppress(OSError):
                self._path(old).unlink()

    def wait(self) -> None:
        """Return when the checkpoint that was started is on disk.

        Raises:
            Unwritable: if it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def restore(
        self, use: Callable[[dict[str, np.ndarray], dict[str, Any]], T], warn: Callable[[str], None]
    ) -> T | None:
        """What `use` makes of the newest checkpoint that is whole; None if there is none.

        Args:
            use: called with the arrays and the values about them; raises KeyError, TypeError or ValueError
                if they do not fit.
            warn: called with a line for each checkpoint that is damaged or does not fit, which is renamed.
        """
        for number in reversed(self._numbers()):
            path = self._path(number)
            try:
                arrays, about = read_safetensors(path)
            except (InputError, OSError) as error:
                problem = line(error)
            else:
                try:
                    return use(arrays, about)
                except (KeyError, TypeError, ValueError) as error:
                    problem = f"{path} does not fit ({line(error)})"
            warn(f"checkpoint {problem}: it is moved aside")
            with naming(path):
                path.replace(path.with_name(f"unusable-{path.name}"))
        return None

    def close(self, *, clear: bool) -> None:
        """Wait for the work in the background; with `clear`, delete the folder."""
        self._pool.shutdown()
        if clear:
            shutil.rmtree(self._folder, ignore_errors=True)

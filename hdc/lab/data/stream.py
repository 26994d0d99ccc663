"""Arrays larger than memory: read row by row, and by grain ahead of their use."""

import hashlib
import json
import logging
import math
import os
import weakref
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from hdc.errors import InputError
from hdc.folders import cache_dir
from hdc.lab.store import Unwritable, line, npy_header, read_json, to_json, write

log = logging.getLogger("hdc")

_AHEAD = 32 << 20  # bytes that are read ahead of their use
_PIECE = 4 << 20  # bytes at most, and 32 rows, that one thread reads at a time
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_THREADS = min(16, 2 * _CORES)  # half of them wait for the disk


class Rows(ABC):
    """An array that is not in memory: `rows[positions]` reads rows, `rows[:100]` cuts without reading.

    A subclass says how to read one row. `np.asarray(rows)` reads all of them.

    Attributes:
        shape: of the whole array, `[n, ...]`.
        dtype: of what is read.
        key: JSON values that differ where the content differs, such as a file's path, size and time. What was
            computed from all rows is kept under it for later processes. None keeps nothing.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, key: Mapping[str, Any] | None = None):
        self.shape, self.dtype, self.key = tuple(shape), np.dtype(dtype), key

    @abstractmethod
    def row(self, index: int) -> np.ndarray:
        """Read one row; several threads call this at a time.

        Raises:
            InputError: if it cannot be read; names the file.
        """

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: Any) -> Any:
        """Rows `[k, ...]` for an array of k positions, one row for an integer, `Rows` for a slice."""
        if isinstance(chosen, slice):
            return _Cut(self, range(len(self))[chosen])
        if isinstance(chosen, int | np.integer):
            return self.row(range(len(self))[chosen])
        positions = np.asarray(chosen)
        rows = np.empty((len(positions), *self.shape[1:]), self.dtype)
        for place, index in enumerate(positions.tolist()):
            rows[place] = self.row(range(len(self))[index])
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole, start = np.empty(self.shape, dtype or self.dtype), 0
        for block in blocks(self):
            whole[start : start + len(block)] = block
            start += len(block)
        return whole


class _Cut(Rows):
    """The rows of a slice."""

    def __init__(self, rows: Rows, chosen: range):
        key = (
            None if rows.key is None else {"rows": rows.key, "cut": [chosen.start, chosen.stop, chosen.step]}
        )
        super().__init__((len(chosen), *rows.shape[1:]), rows.dtype, key)
        self._rows, self._chosen = rows, chosen

    def row(self, index: int) -> np.ndarray:
        return self._rows.row(self._chosen[index])


class FileRows(Rows):
    """An array as a file has it, C-contiguous from `offset` on, converted to `dtype` when it is read.

    The file is read, not mapped: rows that were read do not stay in this process's memory, and a file that
    becomes shorter is an error, not a crash.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], stored: np.dtype, dtype: Any = None):
        found = path.stat()
        key = {"path": str(path.absolute()), "size": found.st_size, "time": found.st_mtime_ns, "at": offset}
        super().__init__(shape, stored if dtype is None else dtype, {**key, "dtype": str(dtype or stored)})
        self._path, self._offset, self._stored = path.absolute(), offset, stored
        self._bytes = math.prod(shape[1:]) * stored.itemsize

    def converted(self, dtype: Any) -> "FileRows":
        """The same rows, converted to another type when they are read."""
        return FileRows(self._path, self._offset, self.shape, self._stored, dtype)

    def with_channel(self) -> "FileRows":
        """The same rows with an axis of one channel behind the others."""
        return FileRows(self._path, self._offset, (*self.shape, 1), self._stored, self.dtype)

    @cached_property
    def _file(self) -> int:
        file = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, file)
        return file

    def row(self, index: int) -> np.ndarray:
        try:
            content = os.pread(self._file, self._bytes, self._offset + index * self._bytes)
        except OSError as error:
            raise InputError(f"{self._path} cannot be read: {line(error)}") from None
        if len(content) < self._bytes:
            raise InputError(f"{self._path} ends within row {index}: it has changed since it was opened")
        return np.frombuffer(content, self._stored).reshape(self.shape[1:]).astype(self.dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:  # a process that reads opens the file itself
        return {name: value for name, value in vars(self).items() if name != "_file"}


def open_npy(path: Path, dtype: Any = None) -> FileRows:
    """The array of a `.npy` file, without reading it.

    Args:
        path: of the file.
        dtype: what its rows are converted to; None keeps that of the file.

    Raises:
        InputError: if it is no such file, or is incomplete.
    """
    try:
        with path.open("rb") as file:
            return _array_in(path, file, 0, path.stat().st_size, dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {line(error)}") from None


def open_npz(path: Path) -> dict[str, FileRows]:
    """The arrays of a `.npz` file that `np.savez` wrote, by name, without reading them.

    Raises:
        InputError: if it is no such file, is incomplete, or is compressed (`np.savez_compressed`).
    """
    found = {}
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("it is compressed: write it with np.savez")
                file.seek(entry.header_offset + 26)  # the lengths of the name and of what follows it
                name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
                start = entry.header_offset + 30 + name + extra
                array = _array_in(path, file, start, start + entry.file_size, None)
                found[entry.filename.removesuffix(".npy")] = array
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {line(error)}") from None
    return found


def _array_in(path: Path, file: IO[bytes], start: int, end: int, dtype: Any) -> FileRows:
    """The array whose header is at `start` of a file and whose last byte is before `end`."""
    file.seek(start)
    shape, in_columns, stored = npy_header(file)
    if stored.hasobject or not shape or (in_columns and len(shape) > 1):
        raise ValueError(f"{stored} {shape} is not an array of numbers in C order")
    if file.tell() + math.prod(shape) * stored.itemsize > end:
        raise ValueError("it is incomplete")
    return FileRows(path, file.tell(), shape, stored, dtype)


def blocks(array: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """The rows in order: those of an array in memory at once, others in blocks."""
    if isinstance(array, np.ndarray):
        yield array
        return
    rows = at_a_time([array])
    starts = range(0, len(array), rows)
    groups = _Made(len(starts), lambda n: np.arange(starts[n], min(starts[n] + rows, len(array))))
    for (block,) in read_ahead([array], groups):
        yield block


def kept(array: np.ndarray | Rows, what: str, compute: Callable[[], Any]) -> Any:
    """What `compute` finds in all rows, as JSON values; of `Rows` with a key it is kept for later processes.

    Args:
        array: the array that it is about.
        what: a few words for it, which are part of the key.
        compute: reads the array.
    """
    if isinstance(array, np.ndarray) or array.key is None:
        return compute()
    key = json.loads(json.dumps({"what": what, "rows": array.key}))
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    path = cache_dir() / "data" / f"{what.replace(' ', '-')}-{digest}.json"
    with suppress(OSError, InputError):
        found = read_json(path)
        if found.get("key") == key:
            return found["found"]
    log.info("reading %d items once, for their %s", len(array), what)
    found = compute()
    with suppress(Unwritable):
        write(path, to_json({"key": key, "found": found}))
    return found


def at_a_time(arrays: Sequence[np.ndarray | Rows]) -> int:
    """How many rows of all these arrays one thread should read at a time."""
    return max(1, min(32, _PIECE // max(1, _row_bytes(arrays))))


def _row_bytes(arrays: Sequence[np.ndarray | Rows]) -> int:
    return sum(math.prod(array.shape[1:]) * array.dtype.itemsize for array in arrays)


def read_ahead(
    arrays: Sequence[np.ndarray | Rows], groups: Sequence[np.ndarray], processes: int = 0
) -> Generator[tuple[np.ndarray, ...], None, None]:
    """The rows of each group of positions, in order; other threads or processes read them before that.

    Args:
        arrays: whose rows are read.
        groups: positions, a few dozen at a time.
        processes: that read; 0 reads with threads of this one.

    Raises:
        InputError: of the row that could not be read.
    """
    if not len(groups):
        return
    import grain

    ahead = max(2, _AHEAD // max(1, _row_bytes(arrays) * len(groups[0])))
    found = grain.MapDataset.source(cast(Any, _Read(arrays, groups))).to_iter_dataset(
        grain.ReadOptions(num_threads=min(_THREADS, ahead), prefetch_buffer_size=ahead)
    )
    if processes:
        from absl import flags

        if (
            not flags.FLAGS.is_parsed()
        ):  # grain asks for its own, and a program that has others may parse them
            flags.FLAGS.mark_as_parsed()
        buffered = max(1, ahead // processes)
        found = found.mp_prefetch(grain.MultiprocessingOptions(processes, per_worker_buffer_size=buffered))
    with closing(cast(Any, iter(found))) as iterator:
        yield from iterator


def rows_of(
    arrays: Sequence[np.ndarray | Rows], groups: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, ...]]:
    """The rows of each group of positions, in order; those that are not in memory are read ahead."""
    if any(isinstance(array, Rows) for array in arrays):
        return read_ahead(arrays, groups)
    return (tuple(array[group] for array in arrays) for group in groups)


class _Read:
    """Groups of rows by their number, as grain asks for them."""

    def __init__(self, arrays: Sequence[np.ndarray | Rows], groups: Sequence[np.ndarray]):
        self._arrays, self._groups = arrays, groups

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        return tuple(array[self._groups[number]] for array in self._arrays)


class _Made(Sequence[np.ndarray]):
    def __init__(self, count: int, make: Callable[[int], np.ndarray]):
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        return self._make(number)

"""Files that are written whole or not at all, and read back only as they were written.

Everything that the lab keeps goes through here:

- JSON objects (`run.json`, `done.json`, manifests, locks). They carry the SHA-256 of their own content, so
  a changed one is refused; older ones without it are read as they are.
- Named arrays with JSON values about them and a SHA-256 of both (weights, checkpoints, cached data sets), in
  the safetensors format: it cannot hold code, and other programs read it.
- .npz archives, which NumPy writes and `read_arrays` reads with care.

The safetensors format is a JSON header and the arrays' bytes. It is written and read here because the
package `safetensors` copies every array, takes twice as long to read a large file, and hides the cause of an
I/O error.
"""

import errno
import hashlib
import io
import json
import math
import os
import stat
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn
from uuid import uuid4

import numpy as np
from numpy.lib import format as npy

from hdc.errors import InputError

MAX_BYTES = 2**30  # of an archive's arrays
MAX_DEPTH = 32  # of JSON
PART = ".part"  # how the name of a file ends that is still being written

_DIGEST = "sha256"
_ABOUT = "hdc"  # in the header of a safetensors file
_PIECE = 2**24  # bytes of an array that one thread reads or hashes at a time

# NumPy's name of a type, and that of safetensors.
_TYPES = {f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_TYPES |= {"bool": "BOOL", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
_NUMPY_TYPES = {theirs: ours for ours, theirs in _TYPES.items()}


class Unwritable(OSError):
    """A file cannot be written: no space, no permission, or a broken disk."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be written: {self.strerror}"


def write(path: Path, content: bytes) -> None:
    """Write a file of ours atomically, in place of whatever has its name; raises as `write_all`."""
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files atomically: if one cannot be written, all stay as they were.

    Raises:
        Unwritable: naming the file that cannot be written, and why.
        InputError: for a path that can only be a folder.
    """
    with _replacing(*contents) as temporary:
        for aside, (path, content) in zip(temporary, contents.items(), strict=True):
            with naming(path):
                aside.write_bytes(content)


def write_out(path: Path, content: bytes) -> None:
    """Write to a place that the user has named.

    A file is written atomically, and a link to one is kept. A pipe or a character device is written to,
    never replaced.

    Raises:
        Unwritable, InputError: as `write_all`.
    """
    with naming(path):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            with path.open("wb") as file:
                file.write(content)
            return
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "it is not a file, a pipe or a character device")
        target = path.resolve() if path.is_symlink() else path
    write(target, content)


@contextmanager
def _replacing(*paths: Path) -> Iterator[list[Path]]:
    """Temporary files beside `paths`; at the end of the block they are synced to disk and renamed."""
    for path in paths:
        if not path.name:
            raise InputError(f"{path} is a folder, not a file to write")
    temporary = [path.with_name(f".{path.name}.{uuid4().hex[:8]}{PART}") for path in paths]
    try:
        for path in paths:
            with naming(path):
                path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for path, aside in zip(paths, temporary, strict=True):
            with naming(path), aside.open("rb") as file:
                os.fsync(file.fileno())
        for path, aside in zip(paths, temporary, strict=True):
            with naming(path):
                aside.replace(path)
    finally:
        for left in temporary:
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
    """The content of a file.

    Raises:
        OSError: if it cannot be read.
        InputError: if it is not a regular file, such as a pipe.
    """
    _check_regular(path)
    return path.read_bytes()


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path} is not a regular file")


def sha256(content: bytes) -> str:
    """The SHA-256 of a content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def parse_json(text: str | bytes) -> Any:
    """JSON values; ValueError for a number that is not finite or does not fit into 64 bits."""
    return json.loads(text, parse_constant=_no_number, parse_int=_integer, parse_float=_real)


def _integer(digits: str) -> int:
    # Python refuses to convert thousands of digits, with an error that does not say where they are.
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"{digits[:20]}... is an integer of more than 64 bits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_number(digits[:20])


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError if it cannot be read, was changed or is something else."""
    try:
        values = parse_json(read(path))
        digest = values.pop(_DIGEST, None) if isinstance(values, dict) else None
        found = sha256(_canonical(values))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {line(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: it does not hold a JSON object")
    if digest not in (None, found):
        raise InputError(f"{path} is damaged: it is not as it was written, by its {_DIGEST}")
    return values


def to_json(values: Mapping[str, Any]) -> bytes:
    """An object as indented JSON, its digest last; ValueError for a number that is not finite."""
    digest = sha256(_canonical(json.loads(json.dumps(values))))
    return (json.dumps({**values, _DIGEST: digest}, indent=2, allow_nan=False) + "\n").encode()


def to_safetensors(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """A safetensors file of arrays, with `about` (JSON values) under `hdc` in its header."""
    return b"".join(_chunks(arrays, about))


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write the same atomically, without a copy of the arrays; raises `Unwritable`."""
    with _replacing(path) as (aside,), naming(path), aside.open("wb") as file:
        file.writelines(_chunks(arrays, about))


def _chunks(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Iterator[bytes | memoryview]:
    noted = json.dumps({**about, _DIGEST: _digest(arrays, about)}, sort_keys=True, allow_nan=False)
    header: dict[str, Any] = {"__metadata__": {_ABOUT: noted}}
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that all are aligned
    end = 0
    for name in names:
        array, start = arrays[name], end
        end += array.nbytes
        dtype, shape = _TYPES[array.dtype.name], list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield _bytes_of(arrays[name]).data


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file that was written here, and its `about`.

    Raises:
        OSError: if it cannot be read.
        InputError: if it is damaged, or was not written here.
    """
    arrays, metadata = read_tensors(path)
    noted = metadata.get(_ABOUT)
    if noted is None:
        raise InputError(f"{path} was not written by hdc: its header has no {_ABOUT!r}")
    try:
        about = parse_json(noted)
        digest = about.pop(_DIGEST)
        # Older weights have a digest over each array in one piece.
        whole = digest == _digest(arrays, about) or digest == _digest(arrays, about, sys.maxsize)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(f"{path} is damaged: its content is not what was written")
    return arrays, about


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    """The arrays of any safetensors file, and the metadata of its header.

    Raises:
        OSError: if it cannot be read.
        InputError: if it is not such a file, or its header does not fit its content.
    """
    _check_regular(path)
    with path.open("rb") as file, ThreadPoolExecutor() as pool:
        length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        try:
            if length > size - 8:
                raise ValueError("it has no header of safetensors, or ends within it")
            header = parse_json(file.read(length))
            metadata = header.pop("__metadata__", {})
            content = np.empty(size - 8 - length, np.uint8)

            def fill(start: int) -> int:
                return os.preadv(file.fileno(), [content[start : start + _PIECE].data], 8 + length + start)

            if sum(pool.map(fill, range(0, content.size, _PIECE))) != content.size:
                raise ValueError("it ends too early")
            arrays = {name: _array(content, tensor) for name, tensor in header.items()}
            if sum(array.nbytes for array in arrays.values()) != content.size:
                raise ValueError("its arrays are not all that it holds")
            metadata.get(_ABOUT)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} cannot be read: {line(error)}") from None
    return arrays, metadata


def _array(content: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    start, end = tensor["data_offsets"]
    if not 0 <= start <= end or min(tensor["shape"], default=0) < 0:
        raise ValueError(f"offsets {start} to {end} and shape {tensor['shape']} must not be negative")
    return content[start:end].view(_NUMPY_TYPES[tensor["dtype"]]).reshape(tensor["shape"])


def _digest(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], piece: int = _PIECE) -> str:
    """SHA-256 of JSON values and of arrays with their names, types and shapes.

    An array longer than `piece` bytes enters as the digests of its pieces, computed on several threads.
    """
    hashed = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    with ThreadPoolExecutor() as pool:
        for name in sorted(arrays):
            array = arrays[name]
            hashed.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            content = _bytes_of(array)
            if content.size <= piece:
                hashed.update(content.data)
                continue
            pieces = (content[start : start + piece] for start in range(0, content.size, piece))
            for part in pool.map(lambda one: hashlib.sha256(one.data).digest(), pieces):
                hashed.update(part)
    return hashed.hexdigest()


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """The bytes of an array, in C order; not a copy if they lie so in memory."""
    return np.ascontiguousarray(array.reshape(-1)).view(np.uint8)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type of the array that begins where a file stands.

    Raises:
        ValueError: if none does.
    """
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format is not known")


def read_arrays(content: bytes, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive by name, all or these.

    Raises:
        Exception: zip, zlib and NumPy each raise their own for an archive that is damaged; ValueError for
            objects, and for arrays of more than `MAX_BYTES` together, before any of them is made.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = max(sum(member.file_size for member in archive.infolist()), _claimed(archive))
    if size > MAX_BYTES:
        raise ValueError(f"its arrays have {size} bytes, at most {MAX_BYTES} are read")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (arrays.files if names is None else names)}


def _claimed(archive: zipfile.ZipFile) -> int:
    """The size of the arrays in bytes by their headers, for which NumPy allocates memory."""
    size = 0
    for member in archive.infolist():
        with archive.open(member) as file:
            shape, _, dtype = npy_header(file)
        size += math.prod(shape) * dtype.itemsize
    return size


def _canonical(values: Any) -> bytes:
    """The same bytes for the same values; ValueError for values nested too deep, or not Unicode."""
    if not _is_within(values, MAX_DEPTH):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _is_within(values: Any, depth: int) -> bool:
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return depth > 0 and all(_is_within(value, depth - 1) for value in inner)


def line(error: BaseException) -> str:
    """An error's message as one line."""
    return " ".join(str(error).split()) or type(error).__name__

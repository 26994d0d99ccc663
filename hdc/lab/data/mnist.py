"""MNIST and Fashion-MNIST: prepared for tensorflow-datasets, and read back, without TensorFlow.

The stock builders of tensorflow-datasets need TensorFlow to unpack, read and encode. The ones here write
the same folder, which the stock `tfds.data_source` then reads.
"""

import gzip
import hashlib
import io
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
from hdc.lab.data.lock import PART, only_maker
from hdc.lab.data.tfds import data_dir, is_complete, preparing, read_split

log = logging.getLogger("hdc")

EXAMPLES = {"train": 60_000, "test": 10_000}
VALIDATION = 5_000  # the last ones of tensorflow-datasets' train split, which is written shuffled

# sha256 of the idx files without gzip: repackaged copies differ from the original in the gzip header alone.
# MNIST's are those that public copies state next to the sha256 of the original .gz files, which
# tensorflow-datasets has too; Fashion-MNIST's were computed from Debian's package dataset-fashion-mnist.
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
}


class _WithoutTensorFlow:
    """What replaces the parts of a stock MNIST builder that need TensorFlow."""

    name: str
    URL: str
    files: dict[str, Path] | None = None  # the four idx files; None downloads them

    def _split_generators(self, dl_manager: Any) -> Any:
        expected = PAYLOADS[self.name]
        # One after the other: of several at once, the rest would go on writing after one has failed.
        files = self.files or {stem: dl_manager.download(self.url(stem)) for stem in expected}
        payloads = {stem: _payload(Path(files[stem]), expected[stem]) for stem in expected}
        return {
            split: _examples(payloads[f"{part}-images-idx3-ubyte"], payloads[f"{part}-labels-idx1-ubyte"])
            for split, part in (("train", "train"), ("test", "t10k"))
        }

    @classmethod
    def url(cls, stem: str) -> str:
        return urljoin(cls.URL, f"{stem}.gz")


# Not registered: the stock builders keep their names, and find what these wrote.
with registered.skip_registration():

    class Mnist(_WithoutTensorFlow, stock.MNIST):
        name = "mnist"

    class FashionMnist(_WithoutTensorFlow, stock.FashionMNIST):
        name = "fashion_mnist"


_BUILDERS = {"mnist": Mnist, "fashion_mnist": FashionMnist}


def load(name: str) -> Dataset:
    """`mnist` or `fashion_mnist`, 28x28x1; prepared first, by a download, where that was not done.

    55,000 images to train, 5,000 to validate, 10,000 to test.

    Raises:
        InputError: it is not prepared and cannot be downloaded, or the prepared files are damaged.
    """
    key = {"name": name, "version": str(_BUILDERS[name].VERSION), "validation": VALIDATION}
    return cached(key, lambda: _read(name))


def prepare(name: str, source: Path | None = None) -> Path:
    """Writes `mnist` or `fashion_mnist` for tensorflow-datasets; returns its folder.

    `source` is a folder with the four idx or idx.gz files; None downloads them. Either way the content
    is compared with the known sha256 sums. A data set that is prepared already is left alone.

    Raises:
        InputError: a file is missing, damaged or another one, the download failed, or the folder of
            prepared data sets cannot be written.
    """
    folder = _folder(name)
    if not is_prepared(name):
        files = None if source is None else {stem: _find(source, stem) for stem in PAYLOADS[name]}
        with only_maker(folder, name):
            if not is_prepared(name):
                _prepare(name, folder, files)
    return folder


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


def is_prepared(name: str) -> bool:
    """Whether `mnist` or `fashion_mnist` is among the prepared data sets."""
    return is_complete(_folder(name))


def _read(name: str) -> Dataset:
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
    builder = _BUILDERS[name](data_dir=data_dir())
    splits = {split: read_split(builder, split, "image", "label") for split in EXAMPLES}
    for split, count in EXAMPLES.items():
        if len(splits[split]) != count:
            raise InputError(
                f"{_folder(name)} has {len(splits[split])} instead of {count} images in split '{split}':"
                " delete it and prepare it again"
            )
    train, features = splits["train"], builder.info.features
    assert features is not None
    return Dataset(
        name=name,
        task="classification",
        classes=tuple(features["label"].names),
        train=Split(train.images[:-VALIDATION], train.labels[:-VALIDATION]),
        validation=Split(train.images[-VALIDATION:], train.labels[-VALIDATION:]),
        test=splits["test"],
    )


def _folder(name: str) -> Path:
    return data_dir() / name / str(_BUILDERS[name].VERSION)


def _find(folder: Path, stem: str) -> Path:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{folder} has neither {stem} nor {stem}.gz")


def _payload(path: Path, sha256: str) -> bytes:
    """The content of an idx or idx.gz file, with its header, once it is known to be the right one."""
    payload = path.read_bytes()
    if payload.startswith(b"\x1f\x8b"):
        try:
            payload = gzip.decompress(payload)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{path} is a damaged gzip file: {error}") from error
    found = hashlib.sha256(payload).hexdigest()
    if found != sha256:
        raise InputError(f"{path} is not the original file: its sha256 without gzip is {found}, not {sha256}")
    return payload


def _examples(images: bytes, labels: bytes) -> Iterator[tuple[int, dict[str, object]]]:
    """Keyed examples with PNG images, from two idx payloads: 4 bytes and 4 per dimension, then the data."""
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    for index, (image, label) in enumerate(zip(pixels, labels[8:], strict=True)):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        yield index, {"image": png.getvalue(), "label": label}


def _check_reachable(name: str) -> None:
    # tensorflow-datasets downloads without a time limit: without this a silent network would block it.
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

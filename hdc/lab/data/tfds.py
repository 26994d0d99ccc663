"""Image-classification data sets of tensorflow-datasets, read without importing TensorFlow."""

import contextlib
import difflib
import io
import logging
import os
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import FileFormat
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from hdc.errors import InputError
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.locks import only_maker

_CHUNK = 1024  # examples per read, far faster than one by one
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's name for an image of n channels


def data_dir() -> Path:
    """The folder of prepared data sets: `TFDS_DATA_DIR`, else tensorflow-datasets' own default.

    It is always passed to tensorflow-datasets, which reads the variable only once, when it is imported.
    """
    if configured := os.environ.get("TFDS_DATA_DIR"):
        return Path(configured).expanduser()
    return Path.home() / "tensorflow_datasets"


def dataset(name: str) -> Dataset:
    """A prepared data set by its tensorflow-datasets name, such as `cifar10` or `cifar10:3.0.2`.

    The test split is `test`, else `validation`. The validation split is `validation` if that is not the test
    split, else the last tenth of `train` as written (at least one image).

    Raises:
        InputError: if the name is unknown, the data set is not prepared or is damaged, or it does not have
            images of one size, one class label each, and the splits above.
    """
    builder = _builder(name)
    image, label = _keys(name, builder.info)
    folder = Path(builder.data_dir)
    if not is_complete(folder):
        raise InputError(
            f"{name} is not prepared in {data_dir()}: run 'hdc data prepare {name}'"
            " (if that needs TensorFlow: pip install 'hdc-jax[prepare]')"
        )
    info = (folder / "dataset_info.json").read_bytes()  # its sizes, shards and features
    key = {"name": builder.info.full_name, "reader": 1, "dataset_info": zlib.crc32(info)}
    return cached(key, lambda: read(name, builder, image, label))


def prepare(name: str) -> Path:
    """Download a data set and write it as ArrayRecord files; returns its folder.

    Every file is compared with its checksum in tensorflow-datasets, and refused if there is none.

    Raises:
        InputError: if the name is unknown, TensorFlow is needed and not installed, or the download fails.
    """
    builder = _builder(name)
    folder = Path(builder.data_dir)
    if not is_complete(folder):
        checked = tfds.download.DownloadConfig(force_checksums_validation=True)
        # tensorflow-datasets leaves alone what another process has prepared in the meantime.
        with only_maker(folder, name), preparing(name, folder):
            builder.download_and_prepare(file_format="array_record", download_config=checked)
    return folder


def is_complete(folder: Path) -> bool:
    """Whether a folder is a prepared data set: tensorflow-datasets puts it in place all at once."""
    return (folder / "dataset_info.json").exists()


@contextlib.contextmanager
def preparing(name: str, folder: Path) -> Iterator[None]:
    """Run `download_and_prepare` into `folder` with one-line errors, soon, and nothing on standard output."""
    if folder.exists() and not is_complete(folder):  # tensorflow-datasets would take it for the data set
        raise InputError(f"{folder} exists and is not complete: delete it and prepare {name} again")
    urllib3 = logging.getLogger("urllib3")
    retries, level = downloader.MAX_RETRIES, urllib3.level
    downloader.MAX_RETRIES = 2  # its 10 retries, each later than the last, take minutes without a network
    urllib3.setLevel(logging.ERROR)  # one warning per retry
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except ImportError as error:
        raise InputError(
            f"preparing {name} needs the extra 'prepare': pip install 'hdc-jax[prepare]'"
        ) from error
    except (
        NonMatchingChecksumError,
        tfds.download.DownloadError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        # The writer of ArrayRecord files raises RuntimeError on a full disk.
        if isinstance(error, ValueError) and not str(error).startswith("Missing checksums"):
            raise
        raise InputError(f"{name} cannot be prepared: {_first_line(error)}") from error
    finally:
        downloader.MAX_RETRIES = retries
        urllib3.setLevel(level)


def read_split(builder: Any, split: str, image: str, label: str) -> Split:
    """One split of a prepared builder, in the order in which it was written.

    Images are decoded with Pillow; tensorflow-datasets would use OpenCV if that happens to be installed.

    Args:
        builder: of a prepared data set.
        split: its name.
        image, label: the names of the features.

    Raises:
        InputError: if the files cannot be read, or an example has no label.
    """
    features = builder.info.features
    skipped = {key: tfds.decode.SkipDecoding() for key in features if _is_image(features[key])}
    try:
        source = builder.as_data_source(split, decoders=skipped)
        if (written := _written(builder, split)) not in (len(source), None):
            raise ValueError(f"{written} examples in split '{split}', {len(source)} in dataset_info.json")
        images = np.empty((len(source), *features[image].shape), np.uint8)
        labels = np.empty(len(source), np.int32)
        for start in range(0, len(source), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(source)))
            for index, example in zip(chunk, source.__getitems__(list(chunk)), strict=True):
                images[index] = _decode(example[image], features[image].shape)
                labels[index] = example[label]
    except NotImplementedError as error:
        raise InputError(
            f"{builder.data_dir} is in a format that only TensorFlow reads: delete it and run"
            f" 'hdc data prepare {builder.name}', or set TFDS_DATA_DIR to another folder first"
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"{builder.data_dir} is damaged ({_first_line(error)}): delete it and prepare it again"
        ) from error
    if (labels < 0).any():
        raise InputError(f"split '{split}' of {builder.name} has examples without a label")
    if (labels >= len(features[label].names)).any():
        raise InputError(
            f"{builder.data_dir} is damaged (split '{split}' has labels beyond the"
            f" {len(features[label].names)} classes): delete it and prepare it again"
        )
    return Split(images, labels)


def _written(builder: Any, split: str) -> int | None:
    """The number of examples in the files of a split, None if unknown; `dataset_info.json` may differ."""
    if builder.info.file_format != FileFormat.ARRAY_RECORD:
        return None
    # Only Linux has it.
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return len(ArrayRecordDataSource([str(path) for path in builder.info.splits[split].filepaths]))


def read(name: str, builder: Any, image: str, label: str, held_out: int | None = None) -> Dataset:
    """The three splits of a prepared builder, see `dataset`.

    Args:
        name: of the data set.
        builder, image, label: as `read_split` has them.
        held_out: number of training examples to validate with; a tenth if it is None.

    Raises:
        InputError: as `read_split`, or where a split is missing.
    """
    splits = set(builder.info.splits)
    test = next((split for split in ("test", "validation") if split in splits), None)
    if "train" not in splits or test is None:
        raise InputError(
            f"{name} needs the splits 'train' and 'test' or 'validation', it has {sorted(splits)}"
        )
    train = read_split(builder, "train", image, label)
    if test == "test" and "validation" in splits:
        validation = read_split(builder, "validation", image, label)
    else:
        kept = len(train) - (held_out or max(1, len(train) // 10))
        validation = Split(train.images[kept:], train.labels[kept:])
        train = Split(train.images[:kept], train.labels[:kept])
    classes = tuple(builder.info.features[label].names)
    return Dataset(
        name, "classification", classes, train, validation, read_split(builder, test, image, label)
    )


def _builder(name: str) -> Any:
    # A name with a namespace, such as huggingface:x, would download code and run it.
    if not re.fullmatch(r"\w+(/[\w.-]+)?(:\d+\.\d+\.\d+)?", name, re.ASCII):
        raise InputError(
            f"{name!r} is not the name of a data set: write NAME, NAME/CONFIG or NAME:1.2.3 ('hdc data list')"
        )
    try:
        return tfds.builder(name, data_dir=data_dir())
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name.split("/")[0].split(":")[0], known)
        raise InputError(
            f"tensorflow-datasets has no data set '{name}'"
            + (f", did you mean {', '.join(close)}?" if close else "")
            + " ('hdc data list' shows others)"
        ) from error
    except ImportError as error:
        missing = _first_line(error.__cause__ or error)
        raise InputError(
            f"the data set '{name}' needs more ({missing}): pip install 'hdc-jax[prepare]'"
        ) from error
    except Exception as error:  # a wrong version and a wrong configuration raise several types
        reason = _first_line(error).rpartition('}": ')[2]  # without the arguments of the builder
        raise InputError(f"in {data_dir()}, the data set '{name}' cannot be used: {reason}") from error


def _keys(name: str, info: tfds.core.DatasetInfo) -> tuple[str, str]:
    """The names of the image and of the label among the features."""
    features: Any = info.features
    supervised = info.supervised_keys
    keys = [key for key in features if supervised is None or key in supervised]
    images = [key for key in keys if _is_image(features[key])]
    labels = [key for key in keys if isinstance(features[key], tfds.features.ClassLabel)]
    if len(images) == len(labels) == 1:
        image, label = features[images[0]], features[labels[0]]
        fixed = None not in image.shape and image.shape[-1] in _MODES and image.np_dtype == np.uint8
        if fixed and label.num_classes:
            return images[0], labels[0]
    found = ", ".join(f"{key}: {type(features[key]).__name__}{features[key].shape}" for key in features)
    raise InputError(f"{name} does not have one uint8 image of a fixed size and one class label, but {found}")


def _is_image(feature: object) -> bool:
    return isinstance(feature, tfds.features.Image)


def _decode(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        if image.size != (shape[1], shape[0]):
            raise ValueError(f"an image of {image.size} pixels, but its features say {shape}")
        return np.asarray(image.convert(_MODES[shape[2]])).reshape(shape)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(":. ")

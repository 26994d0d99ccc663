"""Image data sets of tensorflow-datasets, for one label each or one per pixel, read without TensorFlow."""

import contextlib
import difflib
import io
import logging
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import FileFormat
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from hdc.errors import InputError, printable
from hdc.lab import memory
from hdc.lab.data import pictures
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.data.own import label_values, labelled, numbered
from hdc.lab.data.stream import Rows
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


def dataset(
    name: str,
    image: str = "",
    label: str = "",
    size: Sequence[int] = (),
    ignore: int | None = 255,
    fit: str = "resize",
) -> Dataset:
    """A prepared data set by its tensorflow-datasets name, such as `cifar10` or `cifar10:3.0.2`.

    The test split is `test`, else `validation`. The validation split is `validation` if that is not the test
    split, else the last tenth of `train` as written (at least one image). One that needs more than a quarter
    of the memory is not loaded: its splits are `Rows`.

    Args:
        name: of the data set.
        image, label: the names of the features; empty for the only ones, or those that the data set declares.
            A label is a class label, or an image of one channel whose values are labels.
        size, fit, ignore: see `SizeOptions`.

    Raises:
        InputError: if the name is unknown, the data set is not prepared or is damaged, or it does not have
            such features, images of one size, and the splits above.
    """
    builder = _builder(name)
    image, label = _keys(name, builder.info, image, label)
    folder = Path(builder.data_dir)
    if not is_complete(folder):
        raise InputError(
            f"{name} is not prepared in {data_dir()}: run 'hdc data prepare {name}'"
            " (if that needs TensorFlow: pip install 'hdc-jax[prepare]')"
        )
    info = (folder / "dataset_info.json").read_bytes()  # its sizes, shards and features
    key = {"name": builder.info.full_name, "reader": 1, "dataset_info": zlib.crc32(info)}
    features = builder.info.features
    dense, fixed = _is_image(features[label]), None not in features[image].shape
    if dense or size or not fixed:
        key |= {"image": image, "label": label, "size": list(size), "ignore": ignore if dense else None}
    if size and fit != "resize":
        key["fit"] = fit
    make = partial(read, name, builder, image, label, size=size, ignore=ignore, fit=fit)
    height, width = (size[0], size[-1]) if size else features[image].shape[:2] if fixed else (0, 0)
    item = height * width * (features[image].shape[-1] + 4 * dense)
    if item * sum(split.num_examples for split in builder.info.splits.values()) > memory.limit() / 4:
        return make(key=key)
    return cached(key, make)


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
    except AssertionError as error:  # how a data set asks for files that are downloaded by hand
        raise InputError(f"{name} cannot be prepared: {printable(str(error))}") from error
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


def read_split(
    builder: Any,
    split: str,
    image: str,
    label: str,
    fitted: Callable[[np.ndarray], np.ndarray],
    key: object = None,
) -> Split:
    """One split of a prepared builder, in the order in which it was written. Masks keep their values.

    Images are decoded with Pillow; tensorflow-datasets would use OpenCV if that happens to be installed.

    Args:
        builder: of a prepared data set.
        split: its name.
        image, label: the names of the features.
        fitted: brings images and masks to the size that is asked for.
        key: with one, the split is not loaded, and this is the key of its `Rows`.

    Raises:
        InputError: if the files cannot be read, an example has no label, or images differ in size.
    """
    features = builder.info.features
    skipped = {name: tfds.decode.SkipDecoding() for name in features if _is_image(features[name])}
    with _reading(builder):
        source = builder.as_data_source(split, decoders=skipped)
        if (written := _written(builder, split)) not in (len(source), None):
            raise ValueError(f"{written} examples in split '{split}', {len(source)} in dataset_info.json")
        if not len(source):
            raise InputError(f"split '{split}' of {builder.name} is empty")
        pictures_of, labels_of = (
            _Column(builder, source, split, name, _decoder(features[name], name == label, fitted), key)
            for name in (image, label)
        )
        if key is not None:
            return Split(pictures_of, labels_of)
        images, labels = (np.empty(column.shape, column.dtype) for column in (pictures_of, labels_of))
        for start in range(0, len(source), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(source)))
            for index, example in zip(chunk, source.__getitems__(list(chunk)), strict=True):
                images[index] = pictures_of.of(example, index)
                labels[index] = labels_of.of(example, index)
    if labels.ndim == 1:
        if (labels < 0).any():
            raise InputError(f"split '{split}' of {builder.name} has examples without a label")
        if (labels >= len(features[label].names)).any():
            raise InputError(
                f"{builder.data_dir} is damaged (split '{split}' has labels beyond the"
                f" {len(features[label].names)} classes): delete it and prepare it again"
            )
    return Split(images, labels)


@contextlib.contextmanager
def _reading(builder: Any) -> Iterator[None]:
    """Name the folder in the errors of the block."""
    try:
        yield
    except InputError:
        raise
    except NotImplementedError as error:
        raise InputError(
            f"{builder.data_dir} is in a format that only TensorFlow reads: delete it and run"
            f" 'hdc data prepare {builder.name}', or set TFDS_DATA_DIR to another folder first"
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"{builder.data_dir} is damaged ({_first_line(error)}): delete it and prepare it again"
        ) from error


class _Column(Rows):
    """One feature of all examples of a split, decoded when it is read."""

    def __init__(
        self,
        builder: Any,
        source: Any,
        split: str,
        name: str,
        decode: Callable[[Any], np.ndarray],
        key: object,
    ):
        self._builder, self._source, self._name, self._decode = builder, source, name, decode
        self._place = f"of split '{split}' of {builder.name}"
        first = self._decoded(source[0], 0)
        super().__init__(
            (len(source), *first.shape), first.dtype, {"tfds": key, "split": split, "feature": name}
        )

    def row(self, index: int) -> np.ndarray:
        with _reading(self._builder):
            return self.of(self._source[index], index)

    def of(self, example: Mapping[str, Any], index: int) -> np.ndarray:
        """The feature of an example that was read."""
        found = self._decoded(example, index)
        if found.shape != self.shape[1:]:
            sides, first = ("{} x {}".format(*shape[:2]) for shape in (found.shape, self.shape[1:]))
            raise InputError(
                f"{self._name} {index} {self._place} is {sides}, the first {first}: "
                "give data.size=[HEIGHT,WIDTH]"
            )
        return found

    def _decoded(self, example: Mapping[str, Any], index: int) -> np.ndarray:
        try:
            return self._decode(example[self._name])
        except InputError as error:
            raise InputError(f"{error} (example {index} {self._place})") from None


def _written(builder: Any, split: str) -> int | None:
    """The number of examples in the files of a split, None if unknown; `dataset_info.json` may differ."""
    if builder.info.file_format != FileFormat.ARRAY_RECORD:
        return None
    # Only Linux has it.
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return len(ArrayRecordDataSource([str(path) for path in builder.info.splits[split].filepaths]))


def read(
    name: str,
    builder: Any,
    image: str,
    label: str,
    held_out: int | None = None,
    size: Sequence[int] = (),
    ignore: int | None = None,
    key: object = None,
    fit: str = "resize",
) -> Dataset:
    """The three splits of a prepared builder, see `dataset`.

    Args:
        name: of the data set.
        builder, image, label, key: as `read_split` has them.
        held_out: number of training examples to validate with; a tenth if it is None.
        size, ignore, fit: see `dataset`.

    Raises:
        InputError: as `read_split`, or where a split is missing.
    """
    splits = set(builder.info.splits)
    test = next((split for split in ("test", "validation") if split in splits), None)
    if "train" not in splits or test is None:
        raise InputError(
            f"{name} needs the splits 'train' and 'test' or 'validation', it has {sorted(splits)}"
        )
    own = ["train", "validation"] if test == "test" and "validation" in splits else ["train"]
    fitted = partial(pictures.fitted, size=tuple(size), how=fit, beyond=ignore or 0)
    found = {split: read_split(builder, split, image, label, fitted, key) for split in (*own, test)}
    feature = builder.info.features[label]
    task, classes = "classification", tuple(getattr(feature, "names", None) or ())
    if _is_image(feature):
        values = {f"split '{split}' of {name}": label_values(one.labels) for split, one in found.items()}
        task, (classes, labels) = "dense", numbered(values, ignore, classes or None)
        found = {split: Split(one.images, labelled(one.labels, labels)) for split, one in found.items()}
    train = found["train"]
    if own == ["train"]:
        kept_back = len(train) - (held_out or max(1, len(train) // 10))
        validation = Split(train.images[kept_back:], train.labels[kept_back:])
        train = Split(train.images[:kept_back], train.labels[:kept_back])
    else:
        validation = found["validation"]
    return Dataset(name, task, classes, train, validation, found[test])


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


def _keys(name: str, info: tfds.core.DatasetInfo, image: str = "", label: str = "") -> tuple[str, str]:
    """The names of the image and of the label among the features, those that were given among them."""
    features: Any = info.features
    for option, key in (("image", image), ("label", label)):
        if key and key not in features:
            raise InputError(f"data.{option}={key} is not a feature of {name}, which has {_shown(features)}")
    declared: Any = info.supervised_keys or ()
    if len(declared) == 2 and all(isinstance(key, str) for key in declared):
        image, label = image or declared[0], label or declared[1]
    maps = [key for key in features if _is_label_map(features[key])]
    images = [image] if image else [key for key in features if _is_image(features[key]) and key not in maps]
    images = [key for key in images if key in features and key != label]
    labels = [label] if label else maps + [key for key in features if _is_class(features[key])]
    labels = [key for key in labels if key in features and key != image]
    if len(images) == len(labels) == 1:
        chosen, target = features[images[0]], features[labels[0]]
        is_image = _is_image(chosen) and chosen.shape[-1] in _MODES and chosen.np_dtype == np.uint8
        if is_image and (_is_image(target) or (_is_class(target) and target.num_classes)):
            return images[0], labels[0]
    raise InputError(
        f"{name} does not have one uint8 image and one mask or class label, but {_shown(features)}: "
        "choose with data.image=KEY data.label=KEY"
    )


def _shown(features: Any) -> str:
    return ", ".join(
        f"{key}: {type(features[key]).__name__}{features[key].shape}" for key in sorted(features)
    )


def _is_image(feature: object) -> bool:
    return isinstance(feature, tfds.features.Image)


def _is_class(feature: object) -> bool:
    return isinstance(feature, tfds.features.ClassLabel)


def _is_label_map(feature: Any) -> bool:
    """Whether the values of an image are declared to be labels."""
    return _is_image(feature) and (
        isinstance(feature, tfds.features.LabeledImage) or bool(feature.use_colormap)
    )


def _decoder(
    feature: Any, is_label: bool, fitted: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Any], np.ndarray]:
    if not _is_image(feature):
        return partial(np.asarray, dtype=np.int32)
    if is_label:
        return partial(_decode_mask, fitted=fitted)
    return partial(_decode, shape=feature.shape, fitted=fitted)


def _decode_mask(encoded: bytes, fitted: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return fitted(pictures.mask(encoded, Path("the mask")))


def _decode(
    encoded: bytes, shape: tuple[int | None, ...], fitted: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        if None not in shape and image.size != (shape[1], shape[0]):
            raise ValueError(f"an image of {image.size} pixels, but its features say {shape}")
        array = np.asarray(image.convert(_MODES[shape[2] or 3]))
    return fitted(array if array.ndim == 3 else array[..., None])


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(":. ")

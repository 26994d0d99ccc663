"""Data sets of tensorflow-datasets: small ones, defined here and written without TensorFlow."""

import io
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered
from tensorflow_datasets.core.download.checksums import UrlInfo

from hdc.errors import InputError
from hdc.lab import memory
from hdc.lab.data import tfds as tfds_source
from hdc.lab.data.dataset import Split
from hdc.lab.data.stream import Rows

SHAPE = (6, 5, 3)
FEATURES = {"image": tfds.features.Image(shape=SHAPE), "label": tfds.features.ClassLabel(names=["no", "yes"])}


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "tfds"


def pixels(split: str, index: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng([len(split), index]).integers(0, 256, shape, dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def example(split: str, index: int) -> dict[str, Any]:
    return {"image": png(pixels(split, index)), "label": index % 2}


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the data sets below have in common: how many examples, and what is in one."""

    VERSION = tfds.core.Version("1.2.0")
    name = "hdc_tiny"
    splits: Mapping[str, int] = {"train": 30, "test": 4}
    features: Mapping[str, Any] = FEATURES
    keys: tuple[str, str] | None = ("image", "label")
    make = staticmethod(example)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="for a test",
            features=tfds.features.FeaturesDict(dict(self.features)),
            supervised_keys=self.keys,
        )

    def _split_generators(self, dl_manager: object) -> Any:
        return {split: self._generate_examples(split) for split in self.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:  # type: ignore[override]
        for index in range(self.splits[split]):
            yield index, self.make(split, index)


def write(data_dir: Path, file_format: str = "array_record", **attributes: Any) -> Path:
    """Prepares a variant of Tiny; tensorflow-datasets then finds it by its files, not by its code."""
    with registered.skip_registration():
        variant = type("Variant", (Tiny,), {"name": "hdc_tiny"} | attributes)
    builder = variant(data_dir=data_dir)
    builder.download_and_prepare(file_format=file_format)
    return Path(builder.data_dir)


def origin(split: Split, name: str, count: int) -> list[int]:
    """For every image of a split, its index among those generated for `name`."""
    known = {pixels(name, index).tobytes(): index for index in range(count)}
    indices = [known[image.tobytes()] for image in split.images]
    assert [index % 2 for index in indices] == split.labels.tolist()
    return indices


def test_train_gives_up_its_tail_where_there_is_no_validation(data_dir: Path) -> None:
    write(data_dir)
    dataset = tfds_source.dataset("hdc_tiny")
    assert (dataset.name, dataset.task, dataset.classes) == ("hdc_tiny", "classification", ("no", "yes"))
    assert dataset.image_shape == SHAPE
    stock = tfds.data_source("hdc_tiny", split="train", data_dir=data_dir)
    for index, written in enumerate(stock):
        split, at = (dataset.train, index) if index < 27 else (dataset.validation, index - 27)
        np.testing.assert_array_equal(split.images[at], written["image"], strict=True)
    train, validation = origin(dataset.train, "train", 30), origin(dataset.validation, "train", 30)
    assert sorted(train + validation) == list(range(30))
    assert sorted(origin(dataset.test, "test", 4)) == list(range(4))


def test_its_own_validation_split_is_used(data_dir: Path) -> None:
    write(data_dir, splits={"train": 8, "validation": 3, "test": 4, "extra": 2})
    dataset = tfds_source.dataset("hdc_tiny:1.2.0")
    assert sorted(origin(dataset.train, "train", 8)) == list(range(8))
    assert sorted(origin(dataset.validation, "validation", 3)) == list(range(3))
    assert sorted(origin(dataset.test, "test", 4)) == list(range(4))


def test_validation_stands_in_for_test(data_dir: Path) -> None:
    write(data_dir, splits={"train": 8, "validation": 3})
    dataset = tfds_source.dataset("hdc_tiny")
    assert sorted(origin(dataset.test, "validation", 3)) == list(range(3))
    assert len(dataset.train) == 7
    assert sorted(origin(dataset.train, "train", 8) + origin(dataset.validation, "train", 8)) == list(
        range(8)
    )


@pytest.mark.parametrize("splits", [{"train": 8}, {"test": 8}, {"train": 8, "holdout": 3}])
def test_missing_splits_are_named(data_dir: Path, splits: dict[str, int]) -> None:
    write(data_dir, splits=splits)
    with pytest.raises(InputError, match="needs the splits") as caught:
        tfds_source.dataset("hdc_tiny")
    assert all(f"'{split}'" in str(caught.value) for split in splits)


def test_more_examples_than_one_read_takes(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfds_source, "_CHUNK", 7)
    write(data_dir)
    dataset = tfds_source.dataset("hdc_tiny")
    assert len(origin(dataset.train, "train", 30)) == 27
    assert len(dataset.test) == 4


def test_the_cache_notices_a_data_set_prepared_anew(data_dir: Path) -> None:
    folder = write(data_dir)
    assert len(tfds_source.dataset("hdc_tiny").test) == 4
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    write(data_dir, splits={"train": 30, "test": 9})
    assert len(tfds_source.dataset("hdc_tiny").test) == 9


def test_the_supervised_keys_choose_among_several_features(data_dir: Path) -> None:
    def two(split: str, index: int) -> dict[str, Any]:
        return example(split, index) | {"other": png(pixels(split, index, (3, 3, 1))), "kind": 1 - index % 2}

    other = {"other": tfds.features.Image(shape=(3, 3, 1)), "kind": tfds.features.ClassLabel(num_classes=2)}
    write(data_dir, make=staticmethod(two), features=FEATURES | other)
    assert sorted(origin(tfds_source.dataset("hdc_tiny").test, "test", 4)) == list(range(4))


def test_a_palette_image_becomes_the_colours_it_shows(data_dir: Path) -> None:
    def palette(split: str, index: int) -> dict[str, Any]:
        image = Image.new("P", (5, 6), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return {"image": buffer.getvalue(), "label": 0}

    write(data_dir, make=staticmethod(palette))
    images = tfds_source.dataset("hdc_tiny").test.images
    assert images.shape == (4, *SHAPE)
    assert np.unique(images.reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


@pytest.mark.parametrize(
    ("features", "keys", "found"),
    [
        ({"image": tfds.features.Image(shape=SHAPE, dtype=np.uint16)}, None, r"image: Image\(6, 5, 3\)"),
        (
            {"image": tfds.features.Image(shape=SHAPE), "label": tfds.features.Scalar(np.int64)},
            None,
            "label: Sc",
        ),
        ({"more": tfds.features.ClassLabel(num_classes=2)}, None, r"label: ClassLabel\(\), more: ClassLabel"),
        ({"extra": tfds.features.Image(shape=SHAPE)}, None, r"extra: Image\(6, 5, 3\)"),
    ],
    ids=["16 bits", "no class", "two labels", "two images"],
)
def test_other_features_are_refused_by_name(data_dir: Path, features, keys, found: str) -> None:
    write(data_dir, splits={}, features=FEATURES | features, keys=keys)
    with pytest.raises(InputError, match=f"hdc_tiny does not have one uint8 image .*{found}") as caught:
        tfds_source.dataset("hdc_tiny")
    assert "\n" not in str(caught.value)


PETS = {  # as tensorflow-datasets describes oxford_iiit_pet
    "image": tfds.features.Image(encoding_format="jpeg"),
    "label": tfds.features.ClassLabel(names=["Abyssinian", "beagle"]),
    "species": tfds.features.ClassLabel(names=["Cat", "Dog"]),
    "file_name": tfds.features.Text(),
    "segmentation_mask": tfds.features.Image(shape=(None, None, 1), use_colormap=True),
    "head_bbox": tfds.features.BBoxFeature(),
}


def pet(split: str, index: int) -> dict[str, Any]:
    """A picture of a size of its own; the mask has 1 in a rectangle, 3 around it, 2 elsewhere."""
    height, width = 20 + index % 3, 30 - index % 4
    image = np.random.default_rng([len(split), index]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.full((height, width), 2, np.uint8)
    mask[4:14, 5:20], mask[6:12, 7:18] = 3, 1
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, "JPEG", quality=95)
    return {
        "image": jpeg.getvalue(), "label": index % 2, "species": index % 2, "file_name": f"pet_{index}.jpg",
        "segmentation_mask": png(mask), "head_bbox": tfds.features.BBox(0.1, 0.2, 0.5, 0.6),
    }  # fmt: skip


def write_pets(data_dir: Path, **attributes: Any) -> Path:
    return write(data_dir, make=staticmethod(pet), features=PETS, **attributes)


def reference(split: str, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of a pet, each in another size."""
    made = pet(split, index)
    both = [Image.open(io.BytesIO(made[key])) for key in ("image", "segmentation_mask")]
    kinds = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
    image, mask = (one.resize(size[::-1], kind) for one, kind in zip(both, kinds, strict=True))
    return np.asarray(image), np.asarray(mask)


@pytest.mark.parametrize("limit", [10**12, 1000], ids=["in memory", "streamed"])
def test_masks_of_images_of_any_size(data_dir, monkeypatch, limit):
    monkeypatch.setattr(memory, "limit", lambda: limit)
    write_pets(data_dir, splits={"train": 11, "validation": 3, "test": 4})
    found = tfds_source.dataset("hdc_tiny", label="segmentation_mask", size=(12, 16))
    assert (found.task, found.classes, found.image_shape) == ("dense", ("0", "1", "2", "3"), (12, 16, 3))
    assert isinstance(found.train.images, Rows) == isinstance(found.train.labels, Rows) == (limit == 1000)
    for name, count in (("train", 11), ("validation", 3), ("test", 4)):
        split = found.in_memory.splits[name]
        known = {
            image.tobytes(): mask for image, mask in (reference(name, n, (12, 16)) for n in range(count))
        }
        assert len(split) == len(known) == count
        for image, mask in zip(split.images, split.labels, strict=True):
            np.testing.assert_array_equal(mask, known[image.tobytes()])


def test_a_value_without_a_label_and_a_tail_to_validate_with(data_dir, monkeypatch):
    write_pets(data_dir)
    given = {"label": "segmentation_mask", "size": (10,), "ignore": 2}
    loaded = tfds_source.dataset("hdc_tiny", **given)
    assert set(np.unique(loaded.train.labels)) == {1, 3, 255}
    monkeypatch.setattr(memory, "limit", lambda: 1)
    streamed = tfds_source.dataset("hdc_tiny", **given)
    for name, count in (("train", 27), ("validation", 3), ("test", 4)):
        one, other = loaded.splits[name], streamed.splits[name]
        assert isinstance(other.labels, Rows) and len(one) == len(other) == count
        np.testing.assert_array_equal(one.images, np.asarray(other.images))
        np.testing.assert_array_equal(one.labels, np.asarray(other.labels))
    copy = pickle.loads(cloudpickle.dumps(streamed.train.images))  # as a process that reads gets it
    np.testing.assert_array_equal(copy[np.array([3])], loaded.train.images[3:4])


def test_a_streamed_set_of_class_labels_is_the_one_in_memory(data_dir, monkeypatch):
    write(data_dir)
    loaded = tfds_source.dataset("hdc_tiny")
    monkeypatch.setattr(memory, "limit", lambda: 1)
    streamed = tfds_source.dataset("hdc_tiny")
    assert isinstance(streamed.train.images, Rows)
    np.testing.assert_array_equal(np.asarray(streamed.train.images), loaded.train.images)
    np.testing.assert_array_equal(np.asarray(streamed.train.labels), loaded.train.labels)
    assert streamed.fingerprint == loaded.fingerprint


def test_images_of_different_sizes_ask_for_one(data_dir):
    write_pets(data_dir)
    with pytest.raises(
        InputError, match=r"image \d+ of split 'train' of hdc_tiny is 2. x .., the first"
    ) as caught:
        tfds_source.dataset("hdc_tiny")
    assert str(caught.value).endswith("give data.size=[HEIGHT,WIDTH]")
    assert tfds_source.dataset("hdc_tiny", size=(8,)).classes == ("Abyssinian", "beagle")
    assert tfds_source.dataset("hdc_tiny", label="species", size=(8,)).classes == ("Cat", "Dog")


def test_a_mask_with_colours_is_named(data_dir):
    def coloured(split: str, index: int) -> dict[str, Any]:
        return pet(split, index) | {"segmentation_mask": png(pixels(split, index))}

    write(data_dir, make=staticmethod(coloured), features=PETS)
    with pytest.raises(
        InputError, match=r"the mask has colours .*\(example 0 of split 'train' of hdc_tiny\)"
    ):
        tfds_source.dataset("hdc_tiny", label="segmentation_mask", size=(8,))


def test_a_labeled_image_names_its_classes(data_dir):
    def named(split: str, index: int) -> dict[str, Any]:
        mask = np.zeros(SHAPE[:2], np.uint8)
        mask[index % 6], mask[0, 0] = 1, 255
        return {"image": png(pixels(split, index)), "mask": png(mask)}

    features = {"image": FEATURES["image"], "mask": tfds.features.LabeledImage(labels=["sea", "land", "ice"])}
    write(data_dir, make=staticmethod(named), features=features, keys=("image", "mask"))
    found = tfds_source.dataset("hdc_tiny")
    assert (found.task, found.classes) == ("dense", ("sea", "land", "ice"))
    assert set(np.unique(found.test.labels)) == {0, 1, 255}
    with pytest.raises(
        InputError, match="split 'train' of hdc_tiny has the value 255, but classes are 0 to 2"
    ):
        tfds_source.dataset("hdc_tiny", ignore=None)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("oxford_iiit_pet", {}, ("image", "label")),
        ("oxford_iiit_pet", {"label": "segmentation_mask"}, ("image", "segmentation_mask")),
        ("oxford_iiit_pet", {"label": "species"}, ("image", "species")),
        ("scene_parse150", {}, ("image", "annotation")),
        ("cityscapes/semantic_segmentation", {}, ("image_left", "segmentation_label")),
        (
            "cityscapes/stereo_disparity",
            {"image": "image_right", "label": "disparity_map"},
            ("image_right", "disparity_map"),
        ),
        ("caltech_birds2010", {"label": "segmentation_mask"}, ("image", "segmentation_mask")),
        ("cifar10", {}, ("image", "label")),
        ("cityscapes/stereo_disparity", {}, "image_left: Image.*: choose with data.image=KEY data.label=KEY"),
        (
            "cityscapes/semantic_segmentation",
            {"label": "mask"},
            "data.label=mask is not a feature of cityscapes",
        ),
        (
            "oxford_iiit_pet",
            {"image": "file_name"},
            "does not have one uint8 image and one mask or class label",
        ),
        (
            "oxford_iiit_pet",
            {"label": "head_bbox"},
            "does not have one uint8 image and one mask or class label",
        ),
        ("voc/2012", {}, "does not have one uint8 image and one mask or class label, but .*objects: "),
    ],
)
def test_the_features_of_known_sets_are_chosen(name, given, expected):
    """From their descriptions in tensorflow-datasets; nothing is downloaded."""
    info = tfds_source._builder(name).info
    if isinstance(expected, tuple):
        assert tfds_source._keys(name, info, **given) == expected
    else:
        with pytest.raises(InputError, match=expected) as caught:
            tfds_source._keys(name, info, **given)
        assert "\n" not in str(caught.value)


def test_the_builder_in_the_documentation_prepares_what_is_read(data_dir, tmp_path):
    text = "\n".join(path.read_text() for path in (Path(__file__).parents[1] / "docs").rglob("*.md"))
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "GeneratorBased" in one)
    for split, count in (("train", 5), ("test", 2)):
        (tmp_path / "roofs" / split).mkdir(parents=True)
        for index in range(count):
            made = pet(split, index)
            (tmp_path / "roofs" / split / f"{index}.jpg").write_bytes(made["image"])
            mask = np.asarray(Image.open(io.BytesIO(made["segmentation_mask"]))) == 1
            (tmp_path / "roofs" / split / f"{index}.png").write_bytes(png(mask.astype(np.uint8)))
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = tfds_source.dataset("roofs", size=(12, 16))
    assert (found.task, found.classes, len(found.train), len(found.test)) == (
        "dense",
        ("ground", "roof"),
        4,
        2,
    )
    assert set(np.unique(found.test.labels)) == {0, 1}


def test_files_that_are_downloaded_by_hand_are_asked_for_in_one_line(data_dir):
    with pytest.raises(
        InputError, match=r"cityscapes cannot be prepared: Manual directory .*manual"
    ) as caught:
        tfds_source.prepare("cityscapes")
    assert "\n" not in str(caught.value) and "leftImg8bit" in str(caught.value)


def test_an_image_of_another_size_than_declared(data_dir: Path) -> None:
    def turned(split: str, index: int) -> dict[str, Any]:
        return {"image": png(pixels(split, index, (5, 6, 3))), "label": 0}

    folder = write(data_dir, make=staticmethod(turned))
    with pytest.raises(InputError, match=f"{folder.name} is damaged .*an image of .6, 5. pixels"):
        tfds_source.dataset("hdc_tiny")


def test_examples_without_a_label(data_dir: Path) -> None:
    write(data_dir, make=staticmethod(lambda split, index: example(split, index) | {"label": -1}))
    with pytest.raises(InputError, match="'train' of hdc_tiny has examples without a label"):
        tfds_source.dataset("hdc_tiny")


def test_a_truncated_shard(data_dir: Path) -> None:
    folder = write(data_dir)
    (shard,) = folder.glob("*test*")
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(InputError, match=r"1\.2\.0 is damaged .*delete it and prepare it again") as caught:
        tfds_source.dataset("hdc_tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "dataset_info.json",
            '"30"',
            '"20"',
            r"damaged \(30 examples in split 'train', 20 in dataset_info.json",
        ),
        ("dataset_info.json", '"label"', '"laben"', r"does not have one uint8 image .* label: ClassLabel"),
        ("dataset_info.json", '"splits"', '"splitt"', "cannot be used: "),
        ("features.json", '"label"', '"laben"', r"class label, but .*laben: ClassLabel"),
        ("label.labels.txt", "yes\n", "", r"damaged \(split 'train' has labels beyond the 1 classes"),
    ],
)
def test_damage_to_the_description_is_found(data_dir: Path, file, old, new, message: str) -> None:
    folder = write(data_dir)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        tfds_source.dataset("hdc_tiny")
    assert "\n" not in str(caught.value)
    assert "hdc_tiny" in str(caught.value)


def test_a_format_that_only_tensorflow_reads(data_dir: Path) -> None:
    folder = write(data_dir)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError, match="in a format that only TensorFlow reads"):
        tfds_source.dataset("hdc_tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar1", "no data set 'cifar1', did you mean .*cifar10.*hdc data list"),
        ("zzzzzz", r"no data set 'zzzzzz' \('hdc data list'"),
        (
            "cifar10",
            "cifar10 is not prepared in .*: run 'hdc data prepare cifar10'.*pip install 'hdc-jax.prepare.'",
        ),
        ("cifar10:9.9.9", "cannot be used: Dataset cifar10 cannot be loaded at version 9.9.9"),
        ("cifar10/nothing", "cannot be used: BuilderConfig nothing not found"),
        ("../cifar10", "'../cifar10' is not the name of a data set"),
        ("huggingface:mnist", "'huggingface:mnist' is not the name of a data set: write NAME, NAME/CONFIG"),
        ("oxford_iiit_pet", "oxford_iiit_pet is not prepared in .*: run 'hdc data prepare oxford_iiit_pet'"),
        ("voc", r"voc does not have one uint8 image and one mask or class label, but image: Image\(None"),
    ],
)
def test_a_name_that_cannot_be_loaded(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tfds_source.dataset(name)
    assert "\n" not in str(caught.value)


def test_a_data_set_that_needs_another_package_to_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: object, **_: object) -> None:
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(HdcRegistered, "__init__", missing)
    with pytest.raises(
        InputError, match=r"'hdc_registered' needs more \(No module named 'tensorflow'\): pip"
    ):
        tfds_source.dataset("hdc_registered")


class HdcRegistered(Tiny):
    """Known to tensorflow-datasets by its name, as `prepare` needs it."""

    name = "hdc_registered"


def test_prepare_writes_what_load_reads(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tfds_source.prepare("hdc_registered")
    assert folder == data_dir / "hdc_registered" / "1.2.0"
    assert folder == tfds_source.prepare("hdc_registered")
    assert len(tfds_source.dataset("hdc_registered").test) == 4
    assert capsys.readouterr().out == ""


def test_an_incomplete_folder_is_not_taken_for_the_data_set(data_dir: Path) -> None:
    (data_dir / "hdc_registered" / "1.2.0").mkdir(parents=True)
    with pytest.raises(InputError, match="hdc_registered is not prepared"):
        tfds_source.dataset("hdc_registered")
    with pytest.raises(InputError, match=r"1\.2\.0 exists and is not complete: delete it"):
        tfds_source.prepare("hdc_registered")


def test_preparing_what_needs_tensorflow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it fails, also where it is installed
    arrays = staticmethod(lambda split, index: {"image": pixels(split, index), "label": 0})
    monkeypatch.setattr(HdcRegistered, "make", arrays)
    with pytest.raises(InputError, match=r"hdc_registered needs .* pip install 'hdc-jax\[prepare\]'"):
        tfds_source.prepare("hdc_registered")


def test_preparing_on_a_full_disk_says_so(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    def full(*_: object) -> None:  # as the writer of ArrayRecord files does
        raise RuntimeError("write() failed: No space left on device; writing somewhere")

    monkeypatch.setattr(HdcRegistered, "_split_generators", full)
    with pytest.raises(InputError, match=r"hdc_registered cannot be prepared: .*No space left") as caught:
        tfds_source.prepare("hdc_registered")
    assert "\n" not in str(caught.value)


def test_preparing_without_a_network_fails_soon(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:  # bound and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        known = UrlInfo(size=1, checksum="0" * 64, filename="file")
        monkeypatch.setattr(HdcRegistered, "url_infos", {url: known})
        monkeypatch.setattr(HdcRegistered, "_split_generators", lambda _, manager: manager.download(url))
        start = time.monotonic()
        with pytest.raises(InputError, match=r"hdc_registered cannot be prepared: .*127\.0\.0\.1") as caught:
            tfds_source.prepare("hdc_registered")
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    assert not (data_dir / "hdc_registered" / "1.2.0").exists()


def test_a_download_without_a_known_checksum_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/file"
    monkeypatch.setattr(HdcRegistered, "_split_generators", lambda _, manager: manager.download(url))
    with pytest.raises(InputError, match=f"hdc_registered cannot be prepared: Missing checksums url: {url}"):
        tfds_source.prepare("hdc_registered")


def test_loading_does_not_import_tensorflow(data_dir: Path, tmp_path: Path) -> None:
    write(data_dir)
    stub = tmp_path / "stub" / "tensorflow"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    program = f"""
import sys
from hdc.lab.data import tfds as tfds_source
assert len(tfds_source.dataset("hdc_tiny").test) == 4
assert "tensorflow" not in sys.modules
import tensorflow
assert tensorflow.__file__.startswith({str(tmp_path)!r})
"""
    environment = os.environ | {"PYTHONPATH": f"{stub.parent}{os.pathsep}{Path(__file__).parents[1]}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_data_dir_follows_the_variable(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    assert tfds_source.data_dir() == data_dir
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds_source.data_dir() == Path.home() / "tensorflow_datasets"

"""Data sets of tensorflow-datasets: small ones, defined here and written without TensorFlow."""

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered
from tensorflow_datasets.core.download.checksums import UrlInfo

from hdc.errors import InputError
from hdc.lab.data import tfds as tfds_source
from hdc.lab.data.dataset import Split

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
        ({"image": tfds.features.Image(shape=(None, None, 3))}, None, r"image: Image\(None, None, 3\)"),
        ({"image": tfds.features.Image(shape=SHAPE, dtype=np.uint16)}, None, r"image: Image\(6, 5, 3\)"),
        (
            {"image": tfds.features.Image(shape=SHAPE), "label": tfds.features.Scalar(np.int64)},
            None,
            "label: Sc",
        ),
        ({"label": tfds.features.Image(shape=(6, 5, 1))}, ("image", "label"), r"label: Image\(6, 5, 1\)"),
        ({"extra": tfds.features.Image(shape=SHAPE)}, None, r"extra: Image\(6, 5, 3\)"),
    ],
    ids=["any size", "16 bits", "no class", "a mask", "two images"],
)
def test_other_features_are_refused_by_name(data_dir: Path, features, keys, found: str) -> None:
    write(data_dir, splits={}, features=FEATURES | features, keys=keys)
    with pytest.raises(InputError, match=f"hdc_tiny does not have one uint8 image .*{found}") as caught:
        tfds_source.dataset("hdc_tiny")
    assert "\n" not in str(caught.value)


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
        ("oxford_iiit_pet", r"oxford_iiit_pet does not have one uint8 image .*image: Image\(None, None, 3\)"),
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

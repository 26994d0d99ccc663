"""The `.npy` cache: what is read back is what was written, or it is made again."""

import contextlib
import dataclasses
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from hdc.folders import cache_dir
from hdc.lab.data import cache
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import Dataset, Split

KEY = {"name": "tiny/one", "version": 1, "rates": [1, 2]}


class Maker:
    """Makes a small data set and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Dataset:
        self.calls += 1
        rng = np.random.default_rng(0)

        def split(n: int) -> Split:
            images = rng.integers(0, 256, (n, 4, 5, 3), dtype=np.uint8)
            return Split(images, rng.integers(0, 2, (n, 4, 5)).astype(np.int32))

        return Dataset("tiny", "dense", ("sea", "land"), split(6), split(2), split(3))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path))
    return tmp_path


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "data").iterdir() if path.suffix != ".lock")


def assert_equal(one: Dataset, other: Dataset) -> None:
    assert (one.name, one.task, one.classes) == (other.name, other.task, other.classes)
    assert (one.strata, one.background) == (other.strata, other.background)
    for split in cache.SPLITS:
        for part in ("images", "labels") + (("strata",) if one.strata else ()):
            np.testing.assert_array_equal(
                getattr(getattr(one, split), part), getattr(getattr(other, split), part), strict=True
            )


def test_a_cached_data_set_is_read_back_whole_and_made_once(folder: Path) -> None:
    make = Maker()
    first = cached(KEY, make)
    again = cached(dict(reversed(KEY.items())), make)  # the order of the keys does not matter
    assert make.calls == 1
    assert_equal(first, again)
    (entry,) = entries(folder)
    assert entry.name.startswith("tiny-one-")
    assert len(list(entry.iterdir())) == 7


def test_strata_are_read_back_and_damage_to_them_is_found(folder: Path) -> None:
    calls = []

    def make() -> Dataset:
        calls.append(None)
        plain = Maker()()
        rng = np.random.default_rng(1)
        splits = {}
        for name in cache.SPLITS:
            split = getattr(plain, name)
            strata = rng.integers(0, 2, split.labels.shape).astype(np.uint8)
            splits[name] = Split(split.images, split.labels, strata)
        return dataclasses.replace(plain, strata=("near", "far"), background=1, **splits)

    first = cached(KEY, make)
    assert_equal(cached(KEY, make), first)
    assert len(calls) == 1
    (entry,) = entries(folder)
    content = bytearray((entry / "test_strata.npy").read_bytes())
    content[-1] ^= 1
    (entry / "test_strata.npy").write_bytes(content)
    assert_equal(cached(KEY, make), first)
    assert len(calls) == 2


def test_every_part_of_the_key_counts(folder: Path) -> None:
    make = Maker()
    for changed in ({}, {"version": 2}, {"rates": [2, 1]}, {"name": "other"}):
        cached(KEY | changed, make)
    assert make.calls == 4
    assert len(entries(folder)) == 4


def flip_a_pixel(entry: Path) -> None:
    content = bytearray((entry / "train_images.npy").read_bytes())
    content[-1] ^= 1
    (entry / "train_images.npy").write_bytes(content)


def truncate(entry: Path) -> None:
    os.truncate(entry / "test_labels.npy", 150)


def reshape(entry: Path) -> None:
    np.save(entry / "test_images.npy", np.load(entry / "test_images.npy").reshape(3, 5, 4, 3))


def store_objects(entry: Path) -> None:
    np.save(entry / "test_images.npy", np.array([{}], dtype=object), allow_pickle=True)


def lose_a_file(entry: Path) -> None:
    (entry / "validation_labels.npy").unlink()


def break_the_description(entry: Path) -> None:
    os.truncate(entry / "dataset.json", 20)


def replace_the_description(entry: Path) -> None:
    (entry / "dataset.json").write_text("[]")


def change_the_key(entry: Path) -> None:
    text = (entry / "dataset.json").read_text()
    (entry / "dataset.json").write_text(text.replace('"version": 1', '"version": 7'))


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_pixel,
        truncate,
        reshape,
        store_objects,
        lose_a_file,
        break_the_description,
        replace_the_description,
        change_the_key,
    ],
)
def test_a_damaged_entry_is_made_again_with_one_warning(folder: Path, damage, caplog) -> None:
    make = Maker()
    first = cached(KEY, make)
    (entry,) = entries(folder)
    damage(entry)
    with caplog.at_level(logging.WARNING, "hdc"):
        again = cached(KEY, make)
    assert make.calls == 2
    assert_equal(first, again)
    (warning,) = caplog.messages
    assert str(entry) in warning
    assert "\n" not in warning
    assert_equal(cached(KEY, make), first)  # and the new entry is a good one
    assert make.calls == 2


def test_no_flipped_bit_is_read_for_what_was_written(folder: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(cache, "_flush", lambda _: None)
    make = Maker()
    first = cached(KEY, make)
    (entry,) = entries(folder)
    tried = 0
    for path in sorted(entry.iterdir()):
        content = path.read_bytes()
        for position in range(tried % 23, len(content), 23):
            damaged = bytearray(content)
            damaged[position] ^= 1 << tried % 8
            path.write_bytes(damaged)
            assert_equal(cached(KEY, make), first)
            assert path.read_bytes() == content or make.calls - 1 == len(caplog.messages)
            path.write_bytes(content)
            tried += 1
    assert tried > 100
    assert tried - 10 < make.calls - 1 == len(caplog.messages)  # a blank more in JSON changes nothing
    assert all(str(entry) in message and "\n" not in message for message in caplog.messages)


def test_a_whole_entry_survives_trouble_in_reading_it(folder: Path, monkeypatch, caplog) -> None:
    make = Maker()
    first = cached(KEY, make)
    (entry,) = entries(folder)

    def fail(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "hdc"):
        patched.setattr(np, "load", fail)
        assert_equal(cached(KEY, make), first)
    assert "Too many open files" in caplog.messages[0]
    assert make.calls == 2
    assert_equal(cached(KEY, make), first)
    assert make.calls == 2
    assert entry.exists()


def test_a_cache_that_cannot_be_written_is_left_out(folder: Path, caplog) -> None:
    (folder / "data").write_text("a file where the folder should be")
    make = Maker()
    with caplog.at_level(logging.WARNING, "hdc"):
        dataset = cached(KEY, make)
    assert_equal(dataset, Maker()())
    assert len(caplog.messages) == 1
    assert "cannot be written" in caplog.text


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch, caplog) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_flush", full)
    with caplog.at_level(logging.WARNING, "hdc"):
        assert_equal(cached(KEY, Maker()), Maker()())
    assert "No space left" in caplog.text
    assert entries(folder) == []


def test_an_interrupted_write_leaves_no_entry(folder: Path, monkeypatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cache, "_flush", interrupt)
        cached(KEY, Maker())
    assert entries(folder) == []


def test_the_process_that_comes_second_keeps_the_first_ones_entry(folder: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(cache, "only_maker", lambda *_: contextlib.nullcontext())  # where there are no locks
    make = Maker()

    def slower() -> Dataset:  # while it works, another process finishes
        cached(KEY, make)
        (entry,) = entries(folder)
        (entry / "mark").touch()
        return make()

    with caplog.at_level(logging.WARNING, "hdc"):
        assert_equal(cached(KEY, slower), Maker()())
    (entry,) = entries(folder)  # no temporary folder is left
    assert (entry / "mark").exists()
    assert caplog.messages == []


def test_cache_dir_falls_back_to_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path
    monkeypatch.delenv("HDC_CACHE_DIR")
    assert cache_dir() != tmp_path
    assert cache_dir().name == "hdc"

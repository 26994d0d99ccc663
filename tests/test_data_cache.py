"""The cache of data sets: what is read back is what was written, or it is made again."""

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hdc.folders import cache_dir
from hdc.lab import store
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
    return sorted((folder / "data").iterdir())


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
    assert entry.suffix == ".safetensors"
    assert {split.labels.dtype for split in (again.train, again.test)} == {np.dtype(np.int32)}


@pytest.mark.parametrize("value", [0, 254, 255, 256, 70_000])
def test_labels_come_back_whether_or_not_a_byte_holds_them(folder: Path, value: int) -> None:
    def make() -> Dataset:
        train, validation, test = (
            Split(split.images, np.full(len(split), label, np.int32))
            for split, label in zip(Maker()().splits.values(), (0, 1, value), strict=True)
        )
        names = tuple(map(str, range(70_001)))
        return Dataset("tiny", "classification", names, train, validation, test)

    assert_equal(cached(KEY, make), make())
    assert_equal(cached(KEY, pytest.fail), make())


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
    damage(entry, first.test.strata.tobytes())
    assert_equal(cached(KEY, make), first)
    assert len(calls) == 2


def test_every_part_of_the_key_counts(folder: Path) -> None:
    make = Maker()
    for changed in ({}, {"version": 2}, {"rates": [2, 1]}, {"name": "other"}):
        cached(KEY | changed, make)
    assert make.calls == 4
    assert len(entries(folder)) == 4


def damage(entry: Path, part: bytes) -> None:
    """Flip a bit of one array."""
    content = bytearray(entry.read_bytes())
    content[content.index(part) + len(part) - 1] ^= 1
    entry.write_bytes(content)


def flip_a_pixel(entry: Path) -> None:
    damage(entry, Maker()().train.images.tobytes())


def truncate(entry: Path) -> None:
    os.truncate(entry, entry.stat().st_size - 7)


def truncate_the_header(entry: Path) -> None:
    os.truncate(entry, 20)


def empty(entry: Path) -> None:
    os.truncate(entry, 0)


def append(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes() + b"x")


def replace(old: bytes, new: bytes, entry: Path) -> None:
    content = entry.read_bytes()
    assert len(old) == len(new)
    assert old in content
    entry.write_bytes(content.replace(old, new, 1))


def save_again(entry: Path, **changes: object) -> None:
    """As another program would that knows the format."""
    arrays, about = store.read_safetensors(entry)
    store.write_safetensors(entry, arrays, about | changes)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_pixel,
        truncate,
        truncate_the_header,
        empty,
        append,
        functools.partial(replace, b"[6,4,5,3]", b"[6,5,4,3]"),  # the shape
        functools.partial(replace, b'"U8"', b'"I8"'),
        functools.partial(replace, b"test.labels", b"next.labels"),
        functools.partial(replace, b'\\"version\\": 1', b'\\"version\\": 7'),
        functools.partial(replace, b'"hdc"', b'"hdd"'),
        functools.partial(save_again, key={"name": "another"}),
    ],
    ids=range(11),
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
    monkeypatch.setattr(os, "fsync", lambda _: None)
    make = Maker()
    first = cached(KEY, make)
    (entry,) = entries(folder)
    content = entry.read_bytes()
    places = [*range(0, content.index(b"}}") + 10, 5), *range(0, len(content), 23)]
    for tried, position in enumerate(places):
        damaged = bytearray(content)
        damaged[position] ^= 1 << tried % 8
        entry.write_bytes(damaged)
        assert_equal(cached(KEY, make), first)
        assert make.calls - 1 == len(caplog.messages) == tried + 1
        assert entry.read_bytes() == content
    assert len(places) > 200
    assert all(str(entry) in message and "\n" not in message for message in caplog.messages)


def test_a_whole_entry_survives_trouble_in_reading_it(folder: Path, monkeypatch, caplog) -> None:
    make = Maker()
    first = cached(KEY, make)
    (entry,) = entries(folder)

    def fail(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "hdc"):
        patched.setattr(os, "preadv", fail)
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


def at_sync(patch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something just before the data set, not its lock, is synced to disk."""
    real = os.fsync

    def sync(file: int) -> None:
        if ".lock" not in str(Path(f"/proc/self/fd/{file}").readlink()):
            act()
        real(file)

    patch.setattr(os, "fsync", sync)


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch, caplog) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    at_sync(monkeypatch, full)
    with caplog.at_level(logging.WARNING, "hdc"):
        assert_equal(cached(KEY, Maker()), Maker()())
    assert "No space left" in caplog.text
    assert entries(folder) == []


def test_an_interrupted_write_leaves_no_entry(folder: Path, monkeypatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        at_sync(patch, interrupt)
        cached(KEY, Maker())
    assert entries(folder) == []


def test_of_two_processes_without_a_lock_both_have_it(folder: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(cache, "only_maker", lambda *_: contextlib.nullcontext())
    make = Maker()

    def slower() -> Dataset:  # while it works, another process finishes
        cached(KEY, make)
        return make()

    with caplog.at_level(logging.WARNING, "hdc"):
        assert_equal(cached(KEY, slower), Maker()())
    assert_equal(cached(KEY, pytest.fail), Maker()())
    assert len(entries(folder)) == 1
    assert caplog.messages == []


def test_cache_dir_falls_back_to_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path
    monkeypatch.delenv("HDC_CACHE_DIR")
    assert cache_dir() != tmp_path
    assert cache_dir().name == "hdc"

"""Data larger than memory: the same bits as in memory, whatever interrupts it; each item is read once."""

import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_devices import same_bits
from test_training import config, dense_dataset

from hdc.errors import InputError
from hdc.lab import feed, memory, metrics
from hdc.lab.config import Config, from_dict
from hdc.lab.data import stream
from hdc.lab.data.dataset import IGNORE, Dataset, Split
from hdc.lab.data.stream import FileRows, Rows
from hdc.lab.devices import Layout
from hdc.lab.training import Snapshot, Trainer

STEP = 4 * 16 * 16 * 7  # bytes of a batch of four: three channels, and a label of four bytes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stream, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "data"


def streaming(chosen: Config, **keys: object) -> Config:
    return dataclasses.replace(chosen, train=dataclasses.replace(chosen.train, stream=True, **keys))


def on_disk(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with its arrays in files, labels as bytes."""
    splits = {}
    for name, split in dataset.splits.items():
        np.savez(folder / f"{name}.npz", images=split.images)
        np.save(folder / f"{name}.npy", np.asarray(split.labels).astype(np.uint8))
        images = stream.open_npz(folder / f"{name}.npz")["images"]
        splits[name] = Split(images, stream.open_npy(folder / f"{name}.npy", np.int32))
    return dataclasses.replace(dataset, **splits)


@pytest.mark.parametrize("readers", [0, 1])
def test_a_stream_has_the_bits_of_the_data_in_memory(readers, tmp_path, monkeypatch):
    dataset = dense_dataset(train=61)
    chosen = config(train={"batch_size": 4}, net={"norm": "batch"})
    monkeypatch.setattr(feed, "_WINDOW", 4 * STEP)  # of fifteen
    stored = on_disk(dataset, tmp_path)
    in_memory, streamed = Trainer(chosen, stored), Trainer(streaming(chosen, readers=readers), stored)
    assert in_memory.streamed is None and streamed.streamed is not None
    assert isinstance(in_memory.dataset.train.images, np.ndarray)
    same_bits(list(streamed.fit([3])), list(in_memory.fit([3])))
    for thread in threading.enumerate():
        if thread.name.startswith("grain"):  # of the last epoch: ending, not waiting for more to read
            thread.join(10)
            assert not thread.is_alive()


def test_interrupted_anywhere_it_resumes_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "_WINDOW", 4 * STEP)
    chosen = dataclasses.replace(config(train={"batch_size": 4}, net={"norm": "batch"}), seeds=(3,))
    dataset = on_disk(dense_dataset(train=61), tmp_path)
    whole = list(Trainer(chosen, dataset).fit([3]))

    class Killed(Exception):
        pass

    def watch(snapshot: Snapshot) -> None:
        places.append(snapshot.step)
        kept[:] = [snapshot.about(), snapshot.arrays()]
        raise Killed

    trainer, kept, places, epochs = Trainer(streaming(chosen), dataset), [], [], []
    while len(epochs) < 2:
        resume = trainer.snapshot(*kept) if kept else None
        epochs = []
        try:
            for epoch in trainer.fit([3], resume=resume, watch=watch):
                epochs.append(epoch)
                assert epoch.after is not None
                if len(epochs) + epoch.number < 3:  # of the first epoch nothing comes again
                    kept[:] = [epoch.after.about(), epoch.after.arrays()]
                    first, epochs = epoch, []
                elif epoch.number == 2:
                    epochs = [first, epoch]
        except Killed:
            pass
    assert len(places) == 28 and set(places) == set(range(1, 15))
    same_bits(epochs, whole)


def test_seeds_side_by_side_stream_their_own_items(monkeypatch):
    monkeypatch.setattr(feed, "_WINDOW", 4 * STEP)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    chosen = config(train={"batch_size": 4}, net={"norm": "batch"})
    dataset = dense_dataset(train=61)
    same_bits(*(list(Trainer(one, dataset).fit([3, 8])) for one in (chosen, streaming(chosen))))


@given(st.data())
def test_every_process_reads_its_own_part_of_what_the_steps_gather(data):
    """Two devices for each of the processes, which share the items of a window and bring all of it."""
    seeds, processes = data.draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (4, 2), (4, 1)]))
    batch, steps, per_window = 4 * data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7)), 2
    first, size = data.draw(st.integers(0, (steps - 1) // per_window)), data.draw(st.integers(1, 40))
    order = np.stack([np.random.default_rng(n).permutation(steps * batch + 3) for n in range(seeds)])
    used, items = order[:, : steps * batch], per_window * batch
    layout = Layout(seeds, 1, 1)
    owners = np.array([SimpleNamespace(process_index=n // 2) for n in range(2 * processes)])
    layout.__dict__["mesh"] = SimpleNamespace(devices=owners, size=len(owners))
    windows = -(-steps // per_window) - first
    read = []
    for process in range(processes):
        pieces = feed.Pieces(used, items, layout.part_of(process, seeds * items), size, first)
        assert max(map(len, pieces)) <= size
        assert len(pieces) == windows * pieces.per_window
        each = [list(pieces)[n * pieces.per_window : (n + 1) * pieces.per_window] for n in range(windows)]
        read.append([np.concatenate(own) for own in each])
    for window in range(windows):
        rows = np.concatenate([own[window] for own in read])
        assert len(rows) == seeds * items and len({len(own[window]) for own in read}) == 1
        for step in range((first + window) * per_window, min((first + window + 1) * per_window, steps)):
            for seed in range(seeds):
                places = seed * items + np.arange(step * batch, (step + 1) * batch) % items
                np.testing.assert_array_equal(rows[places], order[seed, step * batch : (step + 1) * batch])


@pytest.mark.parametrize(("row", "rows"), [(1, 32), (100_000, 32), (1 << 20, 4), (50 << 20, 1)])
def test_rows_that_are_large_are_read_few_at_a_time(row, rows):
    images = np.broadcast_to(np.uint8(0), (9, row // 2))
    assert stream.at_a_time([images, images]) == rows


class Told(Rows):
    """Rows of a number each that count how often they are read."""

    def __init__(self, values: np.ndarray, key: dict[str, Any] | None = None):
        super().__init__(values.shape, values.dtype, key)
        self.values, self.read = values, np.zeros(len(values), int)

    def row(self, index: int) -> np.ndarray:
        self.read[index] += 1
        return self.values[index]


@given(st.integers(1, 300), st.integers(0, 400), st.integers(0, 400), st.integers(1, 3))
def test_rows_are_cut_and_read_as_arrays_are(length, start, stop, by):
    values = np.random.default_rng(length).integers(0, 256, (length, 2, 3), dtype=np.uint8)
    rows = Told(values)
    cut, expected = rows[start:stop:by], values[start:stop:by]
    assert (len(cut), cut.shape, cut.dtype, cut.ndim) == (len(expected), expected.shape, np.uint8, 3)
    assert cut.nbytes == expected.nbytes
    assert not rows.read.any()
    if len(expected):
        chosen = np.arange(len(expected))[::-2]
        np.testing.assert_array_equal(cut[chosen], expected[chosen], strict=True)
        np.testing.assert_array_equal(cut[len(expected) - 1], expected[-1])
    with pytest.raises(IndexError):
        cut[np.array([len(expected)])]


def test_all_rows_are_read_once_and_in_order():
    values = np.random.default_rng(0).integers(0, 256, (1000, 4), dtype=np.uint8)
    rows = Told(values)
    np.testing.assert_array_equal(np.asarray(rows), values)
    assert (rows.read == 1).all()
    groups = [np.array([5, 1]), np.array([7]), np.array([999, 0, 5])]
    for one in (stream.read_ahead([rows, values], groups), stream.rows_of([rows, values], groups)):
        for group, (a, b) in zip(groups, one, strict=True):
            np.testing.assert_array_equal(a, values[group])
            np.testing.assert_array_equal(b, values[group])
    assert list(stream.read_ahead([rows], [])) == []


@pytest.mark.parametrize("kind", ["<u2", ">f4", "|u1", "<i8"])
def test_files_of_numpy_are_read_row_by_row(kind, tmp_path):
    values = (np.random.default_rng(0).random((7, 3, 2)) * 100).astype(kind)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", first=values, second=values[:2] + 1)
    rows = stream.open_npy(tmp_path / "a.npy")
    assert isinstance(rows, FileRows) and rows.dtype == values.dtype
    np.testing.assert_array_equal(np.asarray(rows), values)
    np.testing.assert_array_equal(
        np.asarray(stream.open_npy(tmp_path / "a.npy", np.float64)), values, strict=False
    )
    both = stream.open_npz(tmp_path / "b.npz")
    assert both.keys() == {"first", "second"}
    np.testing.assert_array_equal(np.asarray(both["first"]), values)
    np.testing.assert_array_equal(both["second"][1], values[1] + 1)


def damaged(folder: Path) -> Iterator[tuple[Path, str]]:
    values = np.arange(60.0).reshape(20, 3)
    np.savez_compressed(folder / "compressed.npz", a=values)
    yield folder / "compressed.npz", "it is compressed: write it with np.savez"
    np.savez(folder / "objects.npz", a=np.array([{}, None]))
    yield folder / "objects.npz", "is not an array of numbers in C order"
    np.save(folder / "columns.npy", np.asfortranarray(values))
    yield folder / "columns.npy", "is not an array of numbers in C order"
    np.save(folder / "number.npy", np.array(3.0))
    yield folder / "number.npy", "is not an array of numbers in C order"
    np.save(folder / "short.npy", values)
    os.truncate(folder / "short.npy", 500)
    yield folder / "short.npy", "it is incomplete"
    (folder / "empty.npy").touch()
    yield folder / "empty.npy", "cannot be read"
    (folder / "empty.npz").touch()
    yield folder / "empty.npz", "not a zip file"
    yield folder / "nowhere.npy", "No such file"
    (folder / "folder.npz").mkdir()
    yield folder / "folder.npz", "Is a directory"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, message in damaged(tmp_path):
        read = stream.open_npz if path.suffix == ".npz" else stream.open_npy
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_shrinks_while_it_is_read_is_an_error_that_names_it(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((500, 8)))
    rows = stream.open_npy(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 300 * 64)
    assert rows[250].shape == (8,)
    with pytest.raises(InputError, match=r"a\.npy ends within row 298: it has changed since"):
        np.asarray(rows)


def test_what_was_found_in_all_rows_is_kept_until_they_change(tmp_path, cache, monkeypatch, caplog):
    caplog.set_level("INFO", "hdc")
    dataset = dense_dataset(train=40)
    stored = on_disk(dataset, tmp_path)
    expected = Trainer(config(), dataset).normalise
    for _ in range(2):
        found = Trainer(streaming(config()), stored).normalise
        np.testing.assert_array_equal(found.offset, expected.offset)
        np.testing.assert_array_equal(found.scale, expected.scale)
    said = [line for line in caplog.messages if "items once, for their" in line]
    assert "reading 40 items once, for their pixel values" in said
    assert len(said) == len(set(said))
    before = len(list(cache.iterdir()))
    np.savez(tmp_path / "train.npz", images=255 - dataset.train.images)
    changed = Trainer(streaming(config()), on_disk(dataset, tmp_path)).normalise
    assert before and (changed.offset == expected.offset).all()  # written anew with the same content
    assert len(list(cache.iterdir())) > before
    for path in cache.iterdir():
        path.write_bytes(b"{")
    assert (Trainer(streaming(config()), stored).normalise.offset == expected.offset).all()
    uncounted = Told(np.zeros((3, 2), np.uint8))
    assert stream.kept(uncounted, "sum", lambda: 7) == 7 != stream.kept(uncounted, "sum", lambda: 8)


def test_labels_that_are_ignored_are_found_without_reading_all_at_once(tmp_path):
    dataset = dense_dataset(train=200)
    labels = np.asarray(dataset.train.labels)
    labels[150, 3, 4] = IGNORE
    stored = on_disk(dataset, tmp_path)
    assert stored.train.ignores and not stored.validation.ignores
    assert stored.in_memory is not stored and dataset.in_memory is dataset
    assert (
        stored.nbytes
        == dataset.nbytes
        == sum(split.images.nbytes * 7 // 3 for split in dataset.splits.values())
    )


def test_evaluation_reads_what_it_needs_and_keeps_the_samples_alone(tmp_path):
    dataset = dense_dataset(train=16)
    trainer = Trainer(config(), dataset)
    evaluate = metrics.evaluator_of(trainer.graph, trainer.normalise, dataset)
    state, stored = trainer.start(0), on_disk(dataset, tmp_path)
    for name in ("train", "test"):  # more and fewer than a batch of evaluation
        split = dataset.splits[name]
        whole, some = evaluate(state, split), evaluate(state, stored.splits[name], np.array([0, 2, 5]))
        assert whole.summary() == some.summary()
        np.testing.assert_array_equal(whole.predictions[[0, 2, 5]], some.predictions)
        assert evaluate(state, split, np.arange(0)).summary() == whole.summary()


def test_the_rule_is_a_quarter_of_the_memory(monkeypatch):
    dataset = dense_dataset()
    monkeypatch.setattr(memory, "limit", lambda: 4 * dataset.nbytes)
    assert feed.why_streamed("auto", dataset) is None
    monkeypatch.setattr(memory, "limit", lambda: 4 * dataset.nbytes - 1)
    line = feed.why_streamed("auto", dataset) or ""
    assert (
        "streaming 24 training items: the data set needs 0.0 GB, more than a quarter of the 0.0 GB of" in line
    )
    assert feed.why_streamed(False, dataset) is None
    monkeypatch.setattr(memory, "limit", lambda: 10**12)
    assert "as train.stream=true asks" in (feed.why_streamed(True, dataset) or "")
    small = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 3 * dataset.nbytes})
    monkeypatch.setattr(jax, "local_devices", lambda: [small])
    assert "on the device" in (feed.why_streamed("auto", dataset) or "")


def test_the_limit_of_a_cgroup_counts(monkeypatch):
    whole = memory.limit()
    assert 2**28 < whole <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    files = {
        "/proc/self/cgroup": "4:cpu:/a\n5:memory:/job/step\n0::/slice/unit\n",
        "/sys/fs/cgroup/memory/job/memory.limit_in_bytes": "90000000",
        "/sys/fs/cgroup/slice/unit/memory.max": "max",
        "/sys/fs/cgroup/slice/memory.max": "70000000",
        "/sys/fs/memory.max": "1",  # not a cgroup
    }

    def read(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert memory.limit() == 70_000_000
    del files["/sys/fs/cgroup/slice/memory.max"]
    assert memory.limit() == 90_000_000


def test_how_data_is_read_is_not_part_of_the_run():
    usual = from_dict({})
    for keys in ({"stream": True}, {"stream": False, "readers": 4}):
        other = from_dict({"train": keys})
        assert other.run_id == usual.run_id and other.to_dict() == usual.to_dict()
        assert other.train.stream is keys["stream"]
    for keys, message in (
        ({"stream": "yes"}, "train.stream must be auto, true or false, got 'yes'"),
        ({"readers": -1}, "train.readers must be between 0 and 256, got -1"),
    ):
        with pytest.raises(InputError, match=message):
            from_dict({"train": keys})

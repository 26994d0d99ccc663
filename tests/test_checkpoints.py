"""Checkpoints: whole or not used; training goes on from one to the same bits."""

import dataclasses
import errno
import os
import random
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from test_training import config, dense_dataset, parameters

from hdc.lab import experiment, records, training
from hdc.lab.checkpoints import KEPT, Checkpoints
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.store import Unwritable
from hdc.lab.training import Trainer


def arrays(number: int) -> dict[str, np.ndarray]:
    return {
        "['a'].b/c": np.arange(12.0, dtype=np.float32).reshape(3, 4) + number,
        "count": np.array(number, np.int32),
        "key": np.arange(2, dtype=np.uint32),
    }


def filled(folder, count: int = 3) -> None:
    checkpoints = Checkpoints(folder)
    for number in range(count):
        checkpoints.save(arrays(number), {"number": number})
    checkpoints.close(clear=False)


def restored(folder) -> tuple[int | None, list[str]]:
    said: list[str] = []
    checkpoints = Checkpoints(folder)

    def use(found, about):
        for name, array in arrays(about["number"]).items():
            np.testing.assert_array_equal(found[name], array, strict=True)
        return about["number"]

    number = checkpoints.restore(use, said.append)
    checkpoints.close(clear=False)
    return number, said


def test_the_newest_comes_back_and_few_are_kept(tmp_path):
    filled(tmp_path / "c", 5)
    assert restored(tmp_path / "c") == (4, [])
    assert len(list((tmp_path / "c").iterdir())) == KEPT
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(arrays(7), {"number": 7})
    checkpoints.close(clear=False)
    assert restored(tmp_path / "c") == (7, [])
    Checkpoints(tmp_path / "c").close(clear=True)
    assert not (tmp_path / "c").exists()
    assert restored(tmp_path / "none") == (None, [])


def newest(folder: Path) -> Path:
    return max((folder).glob("[0-9]*"), key=lambda path: int(path.stem))


def test_any_damage_is_found_and_the_one_before_serves(tmp_path):
    """The newest cut at many places, emptied, longer, another file, and with any of many bits changed."""
    filled(tmp_path)
    path, aside = newest(tmp_path), tmp_path / "unusable-3.safetensors"
    content, chance = path.read_bytes(), random.Random(0)
    damaged = [content[:length] for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1)]
    damaged += [content + b"x", b"x" * 50, bytes(50), (tmp_path / "2.safetensors").read_bytes()[:-1] + b"x"]
    for place in [*range(0, len(content), 2), *range(len(content) - 40, len(content))]:
        changed = bytearray(content)
        changed[place] ^= 1 << chance.randrange(8)
        damaged.append(bytes(changed))
    for other in damaged:
        path.write_bytes(other)
        found, said = restored(tmp_path)  # `use` compares every array that is accepted
        assert (found, len(said)) == (1, 1)
        assert str(path) in said[0]
        assert said[0].endswith(": it is moved aside")
        assert "\n" not in said[0]
        assert aside.read_bytes() == other
        assert not path.exists()
    assert len(damaged) > 200


def test_where_all_are_damaged_nothing_is_restored(tmp_path):
    filled(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"x")
    number, said = restored(tmp_path)
    assert number is None
    assert len(said) == KEPT
    filled(tmp_path)
    assert restored(tmp_path) == (2, [])


def test_what_cannot_be_read_is_moved_aside(tmp_path):
    filled(tmp_path)
    newest(tmp_path).unlink()
    os.mkfifo(tmp_path / "3.safetensors")
    number, (said,) = restored(tmp_path)
    assert number == 1
    assert "3.safetensors is not a regular file" in said


def test_the_folders_of_an_older_version_are_no_checkpoints(tmp_path):
    for path in (tmp_path / "12" / "state", tmp_path / "13"):
        path.mkdir(parents=True)
    assert restored(tmp_path) == (None, [])
    filled(tmp_path)
    assert restored(tmp_path) == (2, [])
    Checkpoints(tmp_path).close(clear=True)
    assert not tmp_path.exists()


def test_half_of_a_checkpoint_is_removed(tmp_path):
    filled(tmp_path)
    (tmp_path / ".4.safetensors.0123abcd.part").write_bytes(b"x")
    assert restored(tmp_path) == (2, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.safetensors", "3.safetensors"]


def test_saving_waits_for_no_disk_and_takes_the_arrays_as_they_are(tmp_path, monkeypatch):
    go, sync = threading.Event(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: go.wait(60) and sync(file))
    checkpoints, changing = Checkpoints(tmp_path), arrays(0)
    checkpoints.save(changing, {"number": 0})  # returns, while its thread waits
    for array in changing.values():
        array[...] = 9
    assert not list(tmp_path.glob("[0-9]*"))
    go.set()
    checkpoints.wait()
    checkpoints.close(clear=False)
    assert restored(tmp_path) == (0, [])


def test_what_went_wrong_in_the_background_is_raised_by_the_next_call(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(arrays(0), {"number": 0})
    checkpoints.wait()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        checkpoints.save(arrays(1), {"number": 1})
        with pytest.raises(Unwritable, match=r"2\.safetensors cannot be written: No space left on device"):
            checkpoints.wait()
        checkpoints.wait()  # said once
        checkpoints.save(arrays(2), {"number": 2})
        checkpoints._pool.submit(int).result()
    with pytest.raises(Unwritable, match=r"3\.safetensors cannot be written"):
        checkpoints.save(arrays(3), {"number": 3})
    checkpoints.close(clear=False)
    assert restored(tmp_path) == (3, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.safetensors", "4.safetensors"]


def test_checkpoints_that_a_kill_has_left_of_a_run_that_is_done_are_removed(tmp_path):
    (run,) = records.plan(tmp_path, [config()])
    with run.start({}) as writer:
        filled(run.folder / "checkpoints")
        writer.done()
    experiment.run(run, Console(quiet=True))
    assert not (run.folder / "checkpoints").exists()


def classes_dataset() -> Dataset:
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = generator.integers(0, 256, (count, 16, 16, 1), dtype=np.uint8)
        return Split(images, generator.integers(0, 3, count).astype(np.int32))

    return Dataset("noise", "classification", ("a", "b", "c"), split(24), split(5), split(7))


LEI = {"net": {"name": "lei2019", "width": 2, "hidden": 4}, "optim": {"name": "sgd"}}


@pytest.mark.parametrize(
    ("groups", "dataset", "device"),
    [
        ({"net": {"norm": "batch"}}, dense_dataset, "cpu"),
        (LEI, classes_dataset, "cpu"),  # dropout: PRNG keys and their counts
        ({"net": {"norm": "batch"}}, dense_dataset, "gpu"),  # seeds side by side
        (LEI, classes_dataset, "gpu"),
    ],
)
def test_training_goes_on_to_the_same_bits_from_any_point(groups, dataset, device, monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    chosen = config(**groups, train={"epochs": 2, "batch_size": 4})
    chosen = dataclasses.replace(chosen, seeds=(5, 3))
    trainer = Trainer(chosen, dataset())
    points: list[training.Snapshot] = []
    whole = []
    for epoch in trainer.fit(chosen.seeds, watch=points.append):
        whole.append(epoch)
        if epoch.after is not None:
            points.append(epoch.after)
    assert len(points) >= 6
    assert {point.step for point in points} >= {0, 1}
    for number, point in enumerate([*points[:-1:2], points[-1]]):
        checkpoints = Checkpoints(tmp_path / str(number))
        checkpoints.save(point.arrays(), point.about())
        checkpoints.wait()
        other = Trainer(chosen, dataset())
        other._programs = trainer._programs  # compiled alike; not again for each point
        back = checkpoints.restore(
            lambda found, about, other=other: other.snapshot(about, found), pytest.fail
        )
        checkpoints.close(clear=True)
        assert back is not None
        rest = list(other.fit(chosen.seeds, resume=back))
        expected = whole[len(whole) - len(rest) :]
        assert [(e.seed, e.number, e.step) for e in rest] == [(e.seed, e.number, e.step) for e in expected]
        for one, same in zip(rest, expected, strict=True):
            assert (one.loss, one.accuracy) == (same.loss, same.accuracy)
            for a, b in zip(parameters(one.state), parameters(same.state), strict=True):
                np.testing.assert_array_equal(a, b)
    assert len(rest) == 0  # the last point is the end


def test_a_checkpoint_of_another_configuration_does_not_fit():
    trainer = Trainer(config(), dense_dataset())
    (first, *_) = trainer.fit([0])
    about, found = first.after.about(), first.after.arrays()
    assert trainer.snapshot(about, found).epoch == 2
    wider = Trainer(config(net={"width": 5}), dense_dataset())
    deeper = Trainer(config(schedule={"rates": [1, 2, 3]}), dense_dataset())
    for other in (wider, deeper):
        with pytest.raises(ValueError, match=r"is float32\[|another network"):
            other.snapshot(about, found)
    for wrong in ({"seeds": [9]}, {"seeds": []}, {"step": 3}, {"step": -1}, {"epoch": 0}, {"epoch": 4}):
        with pytest.raises(ValueError, match=r"seeds are|stands at"):
            trainer.snapshot({**about, **wrong}, found)

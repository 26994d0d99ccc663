"""A full or read-only disk under everything that writes. `test_disk.py` runs these in mounts of their own.

What lies on a disk that was filled is as it was, no half file has a final name, and with room again the
same launch finishes.
"""

import io
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from synthetic import configuration, finish
from test_data_cache import KEY, Maker, assert_equal
from test_training import config, dense_dataset

from hdc.errors import InputError
from hdc.lab import experiment, records
from hdc.lab.commands.main import main
from hdc.lab.data import cache
from hdc.lab.records import packed as findings
from hdc.lab.training import NonFiniteLoss

TINY = config(train={"epochs": 4, "batch_size": 8}, gridding={"images": 2}, ops={"backend": "lax"})


class Disk:
    """A small file system."""

    def __init__(self, folder: Path, size: str):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)

    def fill(self) -> None:
        """Take all the room."""
        handle = os.open(self.folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (1 << 16, 1 << 12, 1):
            try:
                while os.write(handle, bytes(size)):
                    pass
            except OSError:
                continue
        os.close(handle)

    def empty(self) -> None:
        """Give the room back."""
        (self.folder / "filler").unlink()

    def read_only(self, how: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if how else 'rw'}", self.folder], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@pytest.fixture
def mount() -> Iterator[Callable[..., Disk]]:
    disks = []

    def make(folder: Path, size: str = "2m") -> Disk:
        disks.append(Disk(folder, size))
        return disks[-1]

    yield make
    for disk in reversed(disks):
        disk.close()


@pytest.fixture
def disk(tmp_path: Path, mount: Callable[..., Disk]) -> Disk:
    return mount(tmp_path / "disk")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "data_of", lambda _: dense_dataset())


def train(run: records.RunFolder) -> list[str]:
    """The lines that a run says."""
    said = io.StringIO()
    experiment.run(run, Console(file=said), checkpoint_seconds=0)
    return said.getvalue().splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers(run: records.RunFolder) -> list[tuple]:
    frame = run.metrics()
    return frame.filter(frame["metric"] != "seconds").rows()


def half_written(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob(".*")]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """The measurements of a run that met no trouble."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "data_of", lambda _: dense_dataset())
        (run,) = records.plan(tmp_path_factory.mktemp("clean"), [TINY])
        assert train(run)[-1].endswith(": done")
        return numbers(run)


def during(patch: pytest.MonkeyPatch, name: str, call: int, act: Callable[[], None]) -> None:
    """Do something just before a method of `Writer` is called for the n-th time."""
    method, calls = getattr(records.Writer, name), []

    def first_act(self, *arguments, **named):
        calls.append(None)
        if len(calls) == call:
            act()
        return method(self, *arguments, **named)

    patch.setattr(records.Writer, name, first_act)


@pytest.mark.parametrize(
    ("name", "call", "file"),
    [
        ("log", 1, "metrics.jsonl"),
        ("log", 4, "metrics.jsonl"),
        ("artifact", 2, "artifacts/predictions-seed0.npz"),
        ("weights", 1, "artifacts/weights-seed0.safetensors"),
        ("done", 1, "done.json"),
    ],
)
def test_a_run_on_a_disk_that_fills_is_interrupted_and_goes_on(
    disk: Disk, clean, monkeypatch, name: str, call: int, file: str
) -> None:
    other, run = records.plan(disk.folder / "study", [configuration("hdc", [0, 1]), TINY])
    finish(other, "hdc")
    before = contents(other.folder)
    with monkeypatch.context() as patch:
        during(patch, name, call, disk.fill)
        said = train(run)
    assert said[-1] == f"1-2 ({run.run_id}): interrupted: {run.folder / file} cannot be written: " + (
        "No space left on device"
    )
    assert "Traceback" not in "".join(said)
    assert run.state == "interrupted"
    assert half_written(run.folder) == []
    assert not (run.folder / file).exists() or file == "metrics.jsonl"
    assert (run.folder / "metrics.jsonl").read_bytes()[-1:] in (b"", b"\n")
    assert contents(other.folder) == before

    again = train(run)  # the disk is still full
    assert again[-1].startswith(f"1-2 ({run.run_id}): interrupted: ")
    assert run.state in ("interrupted", "planned")
    disk.empty()
    assert train(run)[-1].endswith(": done")
    assert numbers(run) == clean
    assert contents(other.folder) == before
    assert set(run.artifact("predictions", 0)) >= {"predictions", "confusion"}


def test_a_disk_that_becomes_read_only_interrupts(disk: Disk, clean, monkeypatch) -> None:
    (run,) = records.plan(disk.folder / "study", [TINY])
    with monkeypatch.context() as patch:
        during(patch, "log", 3, lambda: disk.read_only(True))
        said = train(run)
    assert said[-1].endswith("cannot be written: Read-only file system")
    assert train(run)[-1].endswith("is working on it")  # the lock could not be deleted
    with pytest.raises(InputError, match=r"results folder .*study cannot be written: Read-only file system"):
        records.plan(disk.folder / "study", [configuration("plain", [0])])
    disk.read_only(False)
    (run.folder / "lock.json").unlink()  # as one whose owner has ended
    assert train(run)[-1].endswith(": done")
    assert numbers(run) == clean


def test_a_full_disk_stops_before_anything_is_planned(disk: Disk) -> None:
    (disk.folder / "study").mkdir()
    disk.fill()
    with pytest.raises(InputError, match=r"results folder .*study cannot be written: No space left"):
        records.plan(disk.folder / "study", [TINY])
    assert half_written(disk.folder) == []
    disk.empty()
    (run,) = records.plan(disk.folder / "study", [TINY])
    assert run.state == "planned"


def test_a_failure_that_cannot_be_written_down_is_said(disk: Disk, monkeypatch) -> None:
    (run,) = records.plan(disk.folder / "study", [TINY])

    def wild(*_: object) -> None:
        disk.fill()
        raise NonFiniteLoss(0, 1, np.nan)

    said = io.StringIO()
    with monkeypatch.context() as patch, pytest.raises(NonFiniteLoss):
        patch.setattr(experiment._Session, "_train", wild)
        experiment.run(run, Console(file=said))
    assert f"{run.folder / 'failed.json'} cannot be written: No space left on device" in said.getvalue()
    assert run.state == "interrupted"


def test_checkpoints_that_cannot_be_written_are_one_warning(
    tmp_path: Path, mount, clean, monkeypatch
) -> None:
    (run,) = records.plan(tmp_path / "study", [TINY])
    small = mount(run.folder / "checkpoints", "1m")
    kept = []
    with monkeypatch.context() as patch:
        during(patch, "log", 3, small.fill)  # after the checkpoint of the first epoch
        during(patch, "done", 1, lambda: kept.extend(path.name for path in small.folder.glob("[0-9]*")))
        said = train(run)
    (warning,) = (line for line in said if line.startswith("warning: "))
    full = rf"{small.folder}/\d+\.safetensors cannot be written: No space left on device: training continues"
    assert re.search(full, warning)
    assert said[-1].endswith(": done")
    assert kept
    assert numbers(run) == clean


def test_a_checkpoint_before_the_disk_was_full_serves(tmp_path: Path, mount, clean, monkeypatch) -> None:
    (run,) = records.plan(tmp_path / "study", [TINY])
    small = mount(run.folder / "checkpoints", "1m")

    def killed() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        during(patch, "log", 3, small.fill)
        during(patch, "artifact", 1, killed)
        train(run)
    assert run.state == "interrupted"
    said = train(run)
    assert any("resuming with seed 0 at epoch" in line for line in said)
    assert said[-1].endswith(": done")
    assert numbers(run) == clean


def test_a_line_that_a_full_disk_has_cut_is_taken_back(disk: Disk) -> None:
    (run,) = records.plan(disk.folder / "study", [TINY])
    with run.start({}) as writer:
        where = {"seed": 0, "step": 1, "epoch": 1, "split": "train"}
        writer.log(**where, metrics={"loss": 1.0})
        before = (run.folder / "metrics.jsonl").read_bytes()
        disk.fill()
        # The file's last page has some room, so that a line is cut.
        with pytest.raises(records.Unwritable, match=r"metrics\.jsonl cannot be written: No space left"):
            writer.log(**where, metrics={f"metric {number}": 0.5 for number in range(100)})
        assert (run.folder / "metrics.jsonl").read_bytes() == before
        disk.empty()
        writer.log(**where, metrics={"accuracy": 0.5})
    assert run.metrics()["metric"].to_list() == ["loss", "accuracy"]


def test_packed_findings_stay_where_new_ones_do_not_fit(disk: Disk) -> None:
    files = {"manifest.json": b"{}", "metrics.csv": b"old", "artifacts.npz": b"old"}
    findings.save(files, disk.folder / "tiny")
    before = contents(disk.folder)
    with pytest.raises(records.Unwritable, match=r"artifacts\.npz cannot be written: No space left"):
        findings.save(
            files | {"manifest.json": b"new", "artifacts.npz": bytes(1 << 22)}, disk.folder / "tiny"
        )
    assert contents(disk.folder) == before


def test_a_figure_that_does_not_fit_leaves_the_one_before(disk: Disk, capsys) -> None:
    path = disk.folder / "holes.png"
    path.write_bytes(b"before")
    disk.fill()
    assert main(["check", "1,2,5", "--figure", str(path)]) == 2
    assert (
        capsys.readouterr().err
        == f"hdc check: error: --figure {path} cannot be written: No space left on device\n"
    )
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_data_set_is_made_where_the_cache_takes_nothing(
    disk: Disk, monkeypatch, caplog, trouble: str
) -> None:
    monkeypatch.setenv("HDC_CACHE_DIR", str(disk.folder))
    make = Maker()
    other = cache.cached(KEY | {"version": 2}, make)
    before = contents(disk.folder)
    disk.fill() if trouble == "full" else disk.read_only(True)
    assert_equal(cache.cached(KEY, make), Maker()())
    assert_equal(cache.cached(KEY | {"version": 2}, make), other)
    assert make.calls == 2
    (warning,) = caplog.messages
    reason = "No space left on device" if trouble == "full" else "Read-only file system"
    assert f"{reason}" in warning and "the data set is not cached" in warning
    assert {name: content for name, content in contents(disk.folder).items() if name in before} == before
    assert half_written(disk.folder / "data") == []


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_compiled_programs_are_not_kept_where_there_is_no_room(
    disk: Disk, monkeypatch, caplog, trouble
) -> None:
    import jax

    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in settings}
    disk.fill() if trouble == "full" else disk.read_only(True)
    try:
        jax.config.update("jax_compilation_cache_dir", str(disk.folder))
        experiment.enable_compilation_cache.__wrapped__()
        assert float(jax.jit(lambda x: x + 41)(1.0)) == 42
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    (warning,) = caplog.messages
    assert warning.startswith(f"{disk.folder} cannot be written (")
    assert list(disk.folder.glob("*-cache")) == []

"""Several processes that want the same data set: one makes it, whatever happens to it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_data_cache import KEY, Maker, assert_equal

from hdc.lab.data.cache import cached
from hdc.lab.locks import only_maker

ROOT = Path(__file__).parent.parent

# What the processes run. `pause` says in a file that it was called, and waits for another.
PRELUDE = """
import os, sys, time
from pathlib import Path
from hdc.lab.commands.main import main

folder = Path(sys.argv[1])

def pause(name):
    with (folder / f"paused-{name}").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while not (folder / f"go-{name}").exists():
        time.sleep(0.01)
"""
CACHE = """
from hdc.lab.data import cache
from test_data_cache import KEY, Maker

def make():
    pause("make")
    return Maker()()

write = cache._write

def paused_write(*arguments):
    sync = os.fsync

    def paused_sync(file):
        pause("write")
        sync(file)

    os.fsync = paused_sync
    write(*arguments)

cache._write = paused_write
try:
    print(cache.cached(KEY, make).train.images.sum())
except KeyboardInterrupt:
    sys.exit(130)
"""


class Processes:
    """Python programs that run beside the test, in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []

    def start(self, program: str) -> subprocess.Popen[str]:
        paths = {"TFDS_DATA_DIR": self.folder / "tfds", "HDC_CACHE_DIR": self.folder / "cache"}
        environment = os.environ | {name: str(path) for name, path in paths.items()}
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        command = [sys.executable, "-c", PRELUDE + program, str(self.folder)]
        with (self.folder / f"stderr-{len(self.running)}").open("w") as stderr:
            started = subprocess.Popen(
                command, env=environment, text=True, stdout=subprocess.PIPE, stderr=stderr
            )
        self.running.append(started)
        return started

    def said(self, process: subprocess.Popen[str]) -> list[str]:
        return (self.folder / f"stderr-{self.running.index(process)}").read_text().splitlines()

    def paused(self, name: str) -> list[str]:
        path = self.folder / f"paused-{name}"
        return path.read_text().splitlines() if path.exists() else []

    def go(self, *names: str) -> None:
        for name in names:
            (self.folder / f"go-{name}").touch()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, [self.said(process) for process in self.running]
            time.sleep(0.01)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    for process in started.running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def kept(folder: Path) -> list[str]:
    return sorted(path.suffix for path in (folder / "cache" / "data").iterdir())


def test_one_process_makes_it_and_the_others_wait(processes: Processes, tmp_path: Path) -> None:
    first = processes.start(CACHE)
    processes.until(lambda: processes.paused("make"))
    others = [processes.start(CACHE) for _ in range(2)]
    processes.until(lambda: all(processes.said(other) for other in others))
    processes.go("make", "write")
    results = {process.communicate()[0] for process in (first, *others)}
    assert results == {f"{Maker()().train.images.sum()}\n"}
    assert processes.paused("make") == [str(first.pid)]
    assert processes.said(first) == []
    for other in others:
        (line,) = processes.said(other)
        assert line.startswith("tiny/one is being prepared by another process: waiting for it (")
        assert str(tmp_path / "cache" / "data") in line
    assert kept(tmp_path) == [".safetensors"]


def test_a_killed_maker_blocks_nobody_and_leaves_nothing(processes: Processes, tmp_path: Path) -> None:
    first = processes.start(CACHE)
    processes.go("make")
    processes.until(lambda: processes.paused("write"))
    second = processes.start(CACHE)
    processes.until(lambda: processes.said(second))
    first.kill()
    processes.until(lambda: len(processes.paused("write")) == 2)
    assert kept(tmp_path) == [".lock", ".part"]  # that of the second alone
    processes.go("write")
    assert second.communicate()[0] == f"{Maker()().train.images.sum()}\n"
    assert processes.paused("make") == [str(first.pid), str(second.pid)]
    assert kept(tmp_path) == [".safetensors"]


def test_waiting_can_be_interrupted(processes: Processes, tmp_path: Path) -> None:
    first = processes.start(CACHE)
    processes.until(lambda: processes.paused("make"))
    second = processes.start(CACHE)
    processes.until(lambda: processes.said(second))
    second.send_signal(signal.SIGINT)
    second.communicate()
    assert second.returncode == 130
    assert len(processes.said(second)) == 1
    processes.go("make", "write")
    assert first.communicate()[0]


PREPARE = """
import hashlib, test_data_mnist, test_data_mnist10k, test_data_tfds
from hdc.lab.data import idx

sums = {stem: hashlib.sha256(content).hexdigest() for stem, content in test_data_mnist.FILES.items()}
idx.PAYLOADS["mnist"] = sums
idx.EXAMPLES = {"train": 60, "test": 10}

def paused(name, function):
    def first_pause(*arguments):
        pause(name)
        return function(*arguments)
    return first_pause

idx.Mnist._split_generators = paused("mnist", idx.Mnist._split_generators)
idx._digit = lambda source, digit: test_data_mnist10k.IMAGES[digit]
idx._write_digits = paused("mnist10k", idx._write_digits)
registered = test_data_tfds.HdcRegistered
registered._split_generators = paused("hdc_registered", registered._split_generators)
source = ["--from", str(folder / "source")]
for name, arguments in (("mnist", source), ("mnist10k", source), ("hdc_registered", [])):
    assert main(["data", "prepare", name, *arguments]) == 0
"""


def test_the_command_prepares_each_data_set_in_one_process(processes: Processes, tmp_path: Path) -> None:
    from test_data_mnist import FILES

    (tmp_path / "source").mkdir()
    for stem, content in FILES.items():
        (tmp_path / "source" / stem).write_bytes(content)
    names = ["mnist", "mnist10k", "hdc_registered"]
    both = [processes.start(PREPARE) for _ in range(2)]
    for name in names:
        waiting = f"{name} is being prepared by another process: waiting for it ("
        processes.until(lambda name=name: processes.paused(name))
        processes.until(lambda w=waiting: any(s.startswith(w) for p in both for s in processes.said(p)))
        processes.go(name)
    for process in both:
        out, _ = process.communicate()
        assert process.returncode == 0, processes.said(process)
        assert [line.split(" is prepared in ")[0] for line in out.splitlines()] == names
    assert [len(processes.paused(name)) for name in names] == [1, 1, 1]


@pytest.mark.parametrize("reason", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_the_data_set_is_made_and_kept(
    tmp_path: Path, monkeypatch, caplog, reason: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path))
    make = Maker()
    assert_equal(cached(KEY, make), cached(KEY, make))
    assert make.calls == 1
    assert caplog.messages == []


def test_where_nothing_can_be_written_no_lock_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with only_maker(tmp_path / "file" / "set", "a set"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

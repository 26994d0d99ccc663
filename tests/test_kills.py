"""Killed at any moment, a run ends with the same parameters, to the bit, and the same measurements.

`HDC_KILLS` asks for more kills than the few of every day.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hdc.lab.locks import live_owner

ROOT = Path(__file__).parent.parent
KILLS = int(os.environ.get("HDC_KILLS", "2"))
RUN = [
    "data=offsets",
    "data.tile=16",
    "data.train_size=64",
    "train.batch_size=4",
    f"train.epochs={8 + KILLS // 2}",
    "optim.warmup_steps=1",
    "net.width=2",
    "net.norm=batch",
    "gridding.images=2",
    "seeds=[0,1]",
    "checkpoint_seconds=0",
]


def start(results: Path, *keys: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *RUN, *keys, f"results={results}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(results: Path, *keys: str) -> str:
    process = start(results, *keys)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert not list(results.glob("*/*/checkpoints"))
    assert not list(results.glob("*/*/lock.json"))
    return out


def checkpoints(results: Path) -> set[int]:
    return {int(path.stem) for path in results.glob("*/*/checkpoints/*") if path.stem.isdigit()}


def saving(results: Path) -> bool:
    return any(not path.stem.isdigit() for path in results.glob("*/*/checkpoints/*"))


def ends(results: Path) -> tuple[dict[str, str], list[str]]:
    """SHA-256 of the parameters by seed, and every measurement that has to come back the same."""
    (run,) = results.glob("*/*/")
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in run.glob("artifacts/weights-*")
    }
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return hashes, [line for line in lines if '"seconds"' not in line]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    results = tmp_path_factory.mktemp("uninterrupted")
    finish(results)
    hashes, lines = ends(results)
    assert len(hashes) == 2
    assert len(lines) == len(set(lines)) > 2 * 8
    return hashes, lines


def after_new_checkpoint(results: Path, process: subprocess.Popen, count: int) -> None:
    """Wait until the process has saved so many times."""
    before = max(checkpoints(results), default=0)
    while max(checkpoints(results), default=0) < before + count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)


def test_any_number_of_kills_changes_nothing(uninterrupted, tmp_path):
    chance = random.Random(time.time_ns())
    kill = during = 0
    while kill < KILLS or during < KILLS // 2:  # a checkpoint may be whole before the process is dead
        assert kill < 5 * KILLS
        process = start(tmp_path)
        after_new_checkpoint(tmp_path, process, chance.randint(1, 4))
        if kill % 2:
            while not saving(tmp_path):
                assert process.poll() is None
        else:
            time.sleep(chance.random() * 0.05)
        process.kill()
        out, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert kill == 0 or "resuming with seed" in out
        assert "unusable" not in out and "damaged" not in out
        during += saving(tmp_path)
        kill += 1
    finish(tmp_path)
    assert ends(tmp_path) == uninterrupted
    print(f"{kill} kills, {during} of them during a save")


def test_killed_in_a_stream_it_ends_as_with_all_data_in_memory(uninterrupted, tmp_path):
    process = start(tmp_path, "train.stream=true")
    after_new_checkpoint(tmp_path, process, 3)
    process.kill()
    process.communicate()
    out = finish(tmp_path, "train.stream=true")
    assert "streaming 64 training items, as train.stream=true asks" in out
    assert "resuming with seed 0 at epoch" in out
    assert ends(tmp_path) == uninterrupted


def test_signals_are_heard_saved_and_obeyed(uninterrupted, tmp_path):
    for number, code in (("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR2", 143)):
        process = start(tmp_path)
        after_new_checkpoint(tmp_path, process, 2)
        process.send_signal(getattr(signal, number))
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code
        assert f"{number}: saved; run the same command to resume" in out
        assert "Traceback" not in out
        assert not list(tmp_path.glob("*/*/lock.json"))
    assert "resuming with seed" in finish(tmp_path)
    assert ends(tmp_path) == uninterrupted


def test_a_second_ctrl_c_while_compiling_ends_at_once(uninterrupted, tmp_path):
    for seconds in (0.0, 0.4, 1.0):
        compiled = str(tmp_path / f"compiled after {seconds}")  # nothing is, when the process starts
        process = start(tmp_path, JAX_COMPILATION_CACHE_DIR=compiled)
        while not list(tmp_path.glob("*/*/lock.json")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 130, out
        # A fast machine may have saved, and be about to end, when the second one comes.
        assert out.splitlines()[-1] in ("hdc: interrupted at once", "hdc train: interrupted")
        assert "Traceback" not in out and "Fatal" not in out
        assert live_owner(next(tmp_path.glob("default/*/"))) is None
    finish(tmp_path)
    assert ends(tmp_path) == uninterrupted


def test_of_two_processes_one_takes_the_run_and_the_other_passes_on(uninterrupted, tmp_path):
    first = start(tmp_path)
    while not list(tmp_path.glob("*/*/checkpoints")):  # it has the run, and compiles
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)  # else it may end before the second has begun
    second = start(tmp_path)
    out, _ = second.communicate(timeout=300)
    first.send_signal(signal.SIGCONT)
    # The stop may have come while the first held the fence around its writes.
    working = f"skipped: process {first.pid} on " in out and "is working on it" in out
    assert working or "skipped: another process was stopped while writing it" in out, out
    first.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 1)
    assert ends(tmp_path) == uninterrupted

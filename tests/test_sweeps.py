"""Sweeps whose runs break, under every launcher: what is missing is trained, and nothing else."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import ray_node
import sweep
from hydra.core.config_store import ConfigStore
from test_train import TINY

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.commands import compose as launch
from hdc.lab.commands.command import one_line_errors

HAS_JOBLIB = importlib.util.find_spec("joblib") is not None
LONG = ["data=offsets", *TINY, "train.epochs=100000", "seeds=[0],[1],[2]", "checkpoint_seconds=1000"]
# Launcher: its settings, and how many launches it takes where the runs that are killed are two. One that dies
# ends the basic launcher, which trains in its own process, and joblib's; Ray begins the run anew.
LAUNCHERS = {
    "basic": ([], {3}),
    "joblib": (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], {2, 3}),
    "ray": (["hydra/launcher=ray"], {1}),
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> str:
    """The table of the sweep without faults."""
    out = sweep.Sweep(tmp_path_factory.mktemp("clean"), []).launch()
    assert out.returncode == 0, out.stderr
    return sweep.table(out.stdout)


@pytest.fixture
def place(request) -> Iterator[list[str]]:
    """What to write before a command, so that it runs where its launcher can."""
    with ExitStack() as stack:
        where = []
        if request.param == "joblib" and not HAS_JOBLIB:
            pytest.skip("joblib is not installed")
        if request.param.startswith("ray"):
            if why := ray_node.missing():
                pytest.skip(f"no Ray: {why}")
            where = stack.enter_context(ray_node.place(with_ray=request.param == "ray, attached"))
        yield where


@pytest.mark.parametrize(("launcher", "place"), [(name, name) for name in LAUNCHERS], indirect=["place"])
def test_a_broken_sweep_recovers(tmp_path, clean, launcher, place):
    settings, launches = LAUNCHERS[launcher]
    broken = sweep.Sweep(tmp_path / "results", settings, where=place)
    seed = list(LAUNCHERS).index(launcher)  # every launcher is broken at other runs and other epochs
    assert sweep.recovers(broken, tmp_path / "faults", clean, seed) in launches


@pytest.mark.parametrize("place", ["ray, attached"], indirect=True)
def test_a_sweep_goes_to_a_ray_that_runs(tmp_path, place):
    data = ["data=offsets", "data.tile=16"]
    settings = [*data, "hydra/launcher=ray", f"hydra.launcher.address={ray_node.ADDRESS}", "results=here"]
    out = start(place, *TINY, *settings, "schedule=plain,hdc", mark=tmp_path, cwd=tmp_path)
    stdout, stderr = out.communicate(timeout=200)
    assert out.returncode == 0, stderr
    assert "Traceback" not in stdout + stderr
    assert [run.state for run in records.load("default", tmp_path / "here")] == ["done", "done"]


@pytest.mark.parametrize(
    ("place", "settings", "begin"),
    [
        ("joblib", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], 2),
        ("ray", ["hydra/launcher=ray", "hydra.launcher.num_cpus=0.3"], 3),
    ],
    indirect=["place"],
)
@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launcher_saves_and_leaves_nothing_behind(tmp_path, place, settings, begin, asking):
    command = start(place, *LONG, *settings, f"results={tmp_path}", mark=tmp_path)
    wait_for(lambda: command.poll() is not None or states(tmp_path)["running"] == begin)
    assert command.poll() is None, command.communicate()
    if asking == signal.SIGINT and not place:
        os.killpg(command.pid, asking)  # as a terminal does, to the workers as well
    else:
        os.kill(child(command) if place else command.pid, asking)
    stdout, stderr = command.communicate(timeout=100)
    assert command.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[asking], stdout + stderr
    assert "Traceback" not in stdout + stderr
    assert states(tmp_path) == Counter(interrupted=begin, planned=3 - begin)
    assert len({path.parent for path in tmp_path.glob("default/*/checkpoints/[0-9]*")}) == begin
    wait_for(lambda: not left_behind(tmp_path))


def test_a_signal_in_the_garbage_collector_of_a_worker_is_not_lost():
    program = """
import gc, multiprocessing, signal, time
from hdc.lab.launchers import joblib as workers

def task():
    gc.callbacks.append(lambda *_: gc.callbacks.clear() or signal.raise_signal(signal.SIGTERM))
    gc.collect()
    time.sleep(60)
    return "lost"

multiprocessing.current_process().name = "Worker-1"
print(workers.run(task, 1))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=sweep.ROOT, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.mark.parametrize("launcher", launch.EXTRAS)
def test_a_launcher_that_is_not_installed_names_what_to_install(monkeypatch, capsys, launcher):
    installed = ConfigStore.instance().repo["hydra"]["launcher"].get("installed", {})
    monkeypatch.delitem(installed, f"{launcher}.yaml", raising=False)
    with pytest.raises(SystemExit) as ended, one_line_errors("hdc train"):
        launch.expand([f"hydra/launcher={launcher}"], multirun=True)
    assert ended.value.code == 2
    extra = launch.EXTRAS[launcher]
    said = f"error: hydra/launcher={launcher} is not installed: pip install 'hdc-jax[{extra}]'\n"
    assert capsys.readouterr().err.endswith(said)


def start(where: list[str], *overrides: str, mark: Path, cwd: Path = sweep.ROOT) -> subprocess.Popen:
    """The command, begun, in a process group of its own."""
    return subprocess.Popen(
        [*where, "env", f"--chdir={cwd}", sys.executable, "-m", "experiments.train", "-m", *overrides],
        env={**os.environ, "PYTHONPATH": str(sweep.ROOT), "HDC_TEST": str(mark)},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def child(command: subprocess.Popen) -> int:
    """The process that `nsenter` has begun."""
    return int(Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text())


def states(results: Path) -> Counter[str]:
    """How many runs are in each state."""
    try:
        return Counter(run.state for run in records.load("default", results))
    except InputError:  # none is planned yet
        return Counter()


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(1200):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("waited for two minutes")


def left_behind(mark: Path) -> list[str]:
    """The processes that have come of a command and are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"HDC_TEST={mark}\0".encode() in path.read_bytes():
                found.append(path.parent.name)
    return found

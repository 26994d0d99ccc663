"""Sweeps on a real Slurm of one node, without accounting."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm
import sweep

from hdc.lab import parts, records
from hdc.lab.commands import compose as launch
from hdc.lab.commands.main import main

pytest.importorskip(
    "hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed"
)
ROOT = Path(__file__).parent.parent
TINY = [argument for argument in sweep.RUNS if not argument.startswith(("schedule.", "seeds=", "name="))]
TRAIN = [sys.executable, "-m", "experiments.train", "-m", *TINY, "ops.backend=lax"]
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=2"]


@pytest.fixture(scope="module")
def enter(tmp_path_factory):
    """What runs a command where the cluster is."""
    if why := slurm.missing():
        pytest.skip(f"no Slurm: {why}")
    with slurm.cluster(tmp_path_factory.mktemp("slurm"), cpus=8) as command:
        yield command


def begin(enter, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*enter, *TRAIN, *SLURM, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ask(enter, *command: str) -> str:
    return subprocess.run([*enter, *command], capture_output=True, text=True, check=True, timeout=60).stdout


def until(found):
    """What a question answers, once it is not nothing."""
    for _ in range(600):
        if answer := found():
            return answer
        time.sleep(0.1)
    raise AssertionError("that never came")


def running(enter, name: str) -> str:
    """The first running job of a study."""
    asked = ["squeue", "--name", name, "-h", "-r", "-t", "RUNNING", "-o", "%i"]
    return until(lambda: ask(enter, *asked).split())[0]


def environments(enter) -> str:
    """The variables of all processes there."""
    return ask(enter, "bash", "-c", r"cat /proc/[0-9]*/environ 2> /dev/null | tr '\0' '\n'")


def states(name: str, results: Path) -> dict[str, str]:
    return {run.config.dilation.kind: run.state for run in records.load(name, results)}


@pytest.fixture(scope="module")
def limited(enter, tmp_path_factory):
    """A launch whose run takes longer than the time limit lets it, in its first job."""
    folder = tmp_path_factory.mktemp("limited")
    arguments = [*TINY, "ops.backend=lax", *LONG, f"results={folder}"]
    (config,), _ = launch.expand(arguments, multirun=True)
    (folder / "faults.json").write_text(json.dumps({config.run_id: {"kind": "slow", "seconds": 0.4}}))
    parts.dataset(config.data)  # before two launches want it, of which one would say that it waits
    limit = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=15"]
    process = begin(enter, *LONG, f"results={folder}", *limit, **sweep.broken_environment(folder))
    yield process, folder
    process.kill()


# Slurm looks at its clock every 30 s, and 30 s ahead: the warning comes 15 to 45 s after the job's start.
# Slowed down, these epochs take 60 s.
LONG = ["schedule=plain", "train.epochs=150", "name=limited"]


def test_a_sweep_is_trained_by_jobs(enter, limited, tmp_path):
    process = begin(enter, "schedule=plain,hdc", "name=whole", f"results={tmp_path}")
    until(lambda: "SRUN_CPUS_PER_TASK=2" in environments(enter))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    assert "whole: test split" in out
    assert states("whole", tmp_path) == {"plain": "done", "hdc": "done"}
    assert len(list(tmp_path.glob("whole/.submitit/*/*_result.pkl"))) == 2


def test_what_ends_early_is_said_and_trained_by_the_next_launch(enter, limited, tmp_path):
    arguments = ["schedule=plain,hdc,dilated", "name=early", f"results={tmp_path}"]
    configs, _ = launch.expand([*TINY, "ops.backend=lax", *arguments], multirun=True)
    fault = {"kind": "kill", "seconds": 0}
    (tmp_path / "faults.json").write_text(json.dumps({configs[0].run_id: fault}))
    environment = sweep.broken_environment(tmp_path)
    process = begin(enter, *arguments, "hydra.launcher.array_parallelism=1", **environment)
    array, _, first = running(enter, "early").partition("_")
    assert first == "0"
    ask(enter, "scancel", f"{array}_1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert f"job {array}_0 failed, see " in err
    assert f"job {array}_1 ended\n" in err
    assert err.count("\n") == 5  # a line for each job, each run, and all
    assert "early: test split" in out
    assert "hdc train: interrupted: " in err
    assert "hdc train: planned: " in err
    assert states("early", tmp_path)["dilated"] == "done"

    process = begin(enter, *arguments, **environment)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert out.count("skipped: already done") == 1
    assert set(states("early", tmp_path).values()) == {"done"}
    assert len(list(tmp_path.glob("early/.submitit/*/*_0_log.out"))) == 2 + 2  # none for what was done


def test_jobs_outlive_an_interrupted_launch(enter, tmp_path):
    process = begin(enter, "schedule=plain", "name=left", f"results={tmp_path}")
    job = running(enter, "left")
    inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    os.kill(int(inside), signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == [
        f"hdc train: the jobs keep running, 'scancel {job}' ends them",
        "hdc train: interrupted",
    ]
    until(lambda: states("left", tmp_path) == {"plain": "done"})


def test_a_run_goes_on_after_its_time_limit(enter, limited, tmp_path):
    process, folder = limited
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert err == ""
    (log,) = folder.glob("limited/.submitit/*/*_log.out")
    said = log.read_text()
    assert "SIGUSR2: saved" in said
    assert "resuming with seed 0 at epoch" in said

    command = [*TRAIN, *LONG, f"results={tmp_path}"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=200).returncode == 0
    (interrupted,), (whole,) = records.load("limited", folder), records.load("limited", tmp_path)
    assert numbers(interrupted) == numbers(whole)
    (first,), (second,) = (results.glob("limited/*/artifacts/weights-*") for results in (folder, tmp_path))
    assert first.read_bytes() == second.read_bytes()


def numbers(run: records.Run) -> list[tuple]:
    frame = run.metrics()
    return frame.filter(frame["metric"] != "seconds").rows()


def test_what_slurm_refuses_is_one_line(enter, tmp_path):
    process = begin(enter, "hydra.launcher.partition=nowhere", f"results={tmp_path}")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("hdc train: error: sbatch: error: invalid partition specified: nowhere")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m"], "sbatch is not found, there is no Slurm here"),
        ([], "hydra/launcher=submitit_slurm launches sweeps only: add -m"),
        (["-m", "hydra.launcher.timeout=3"], "unknown key 'hydra.launcher.timeout'"),
    ],
)
def test_no_slurm_is_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert main(["train", *arguments, "hydra/launcher=submitit_slurm"]) == 2
    out = capsys.readouterr()
    assert message in out.err
    assert len(out.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []

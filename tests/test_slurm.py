"""Sweeps on a real Slurm of one node, without accounting."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm
from test_train import TINY

from hdc import records

pytest.importorskip(
    "hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed"
)
ROOT = Path(__file__).parent.parent
TRAIN = [
    sys.executable,
    "-m",
    "experiments.train",
    "-m",
    "hydra/launcher=submitit_slurm",
    *TINY,
    "ops.backend=lax",
]


@pytest.fixture(scope="module")
def enter(tmp_path_factory):
    """What runs a command where the cluster is."""
    if why := slurm.missing():
        pytest.skip(f"no Slurm: {why}")
    with slurm.cluster(tmp_path_factory.mktemp("slurm"), cpus=4) as command:
        yield command


def launch(enter, *arguments: str) -> subprocess.Popen:
    command = [*enter, *TRAIN, "hydra.launcher.cpus_per_task=2", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def ask(enter, *command: str) -> str:
    return subprocess.run([*enter, *command], capture_output=True, text=True, check=True, timeout=60).stdout


def running(enter, name: str) -> str:
    """The first running job of a study, once there is one."""
    for _ in range(600):
        if found := ask(enter, "squeue", "--name", name, "-h", "-r", "-t", "RUNNING", "-o", "%i").split():
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no job of {name} runs")


def states(name: str, results: Path) -> dict[str, str]:
    return {run.config.dilation.kind: run.state for run in records.load(name, results)}


def test_a_sweep_is_trained_by_jobs(enter, tmp_path):
    process = launch(enter, "schedule=plain,hdc", "name=whole", f"results={tmp_path}")
    job = running(enter, "whole")
    assert "cpu=2" in ask(enter, "scontrol", "show", "step", f"{job}.0")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    assert "whole: test split" in out
    assert states("whole", tmp_path) == {"plain": "done", "hdc": "done"}
    assert len(list(tmp_path.glob("whole/.submitit/*/*_result.pkl"))) == 2


def test_what_ends_early_is_said_and_trained_by_the_next_launch(enter, tmp_path):
    sweep = ["schedule=plain,hdc,dilated", "name=early", f"results={tmp_path}"]
    process = launch(enter, *sweep, "hydra.launcher.array_parallelism=1")
    array, _, first = running(enter, "early").partition("_")
    assert first == "0"
    ask(enter, "scancel", "--signal=KILL", f"{array}_0")
    ask(enter, "scancel", f"{array}_1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert f"job {array}_0 failed, see " in err
    assert f"job {array}_1 cancelled, see " in err
    assert err.count("\n") == 4  # a line for each job, and one for each run
    assert "early: test split" in out
    assert states("early", tmp_path)["dilated"] == "done"
    assert "done" not in (states("early", tmp_path)["plain"], states("early", tmp_path)["hdc"])

    before = next(tmp_path.glob("early/*/done.json")).stat().st_mtime_ns
    process = launch(enter, *sweep)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert set(states("early", tmp_path).values()) == {"done"}
    assert before in [path.stat().st_mtime_ns for path in tmp_path.glob("early/*/done.json")]


def test_jobs_outlive_an_interrupted_launch(enter, tmp_path):
    process = launch(enter, "schedule=plain", "name=left", f"results={tmp_path}")
    job = running(enter, "left")
    inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    os.kill(int(inside), signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == [
        f"experiments.train: the jobs go on, scancel {job} would end them",
        "experiments.train: interrupted",
    ]
    for _ in range(600):
        if states("left", tmp_path) == {"plain": "done"}:
            return
        time.sleep(0.1)
    raise AssertionError("the job did not go on")


def test_what_slurm_refuses_is_one_line(enter, tmp_path):
    process = launch(enter, "hydra.launcher.partition=nowhere", f"results={tmp_path}")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("experiments.train: error: sbatch: error: invalid partition specified: nowhere")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m"], "sbatch is not found, there is no Slurm here"),
        ([], "hydra/launcher=submitit_slurm launches sweeps alone: add -m"),
        (["-m", "hydra.launcher.timeout=3"], "unknown key 'hydra.launcher.timeout'"),
    ],
)
def test_no_slurm_is_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    from experiments import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["train", "hydra/launcher=submitit_slurm", *arguments])
    with pytest.raises(SystemExit) as ended:
        train.main()
    out = capsys.readouterr()
    assert ended.value.code == 2
    assert message in out.err
    assert len(out.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []

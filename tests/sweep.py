"""A sweep of 8 tiny runs through the command line, of which half break, launched until all are done."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forks

from hdc.lab import records
from hdc.lab.commands import compose as launch

ROOT = Path(__file__).parent.parent
RUNS = [
    "data=offsets",
    "data.tile=8",
    "data.train_size=16",
    "train.batch_size=4",
    "train.epochs=3",
    "optim.warmup_steps=1",
    "net.width=2",
    "gridding.images=2",
    "gridding.max_period=2",
    "schedule.repeat=1",
    "schedule.rates=[1],[2]",  # two shapes, so that two programs are compiled for all
    f"seeds={','.join(f'[{seed}]' for seed in range(4))}",
    "name=sweep",
]
KINDS = ["kill"] * 2 + ["raise", "nan"]
launch.register_schema()


@dataclass
class Sweep:
    """The runs in a results folder, under one launcher.

    Attributes:
        results: the results folder.
        launcher: the overrides that choose and set the launcher.
        where: what is written before the command, so that it runs where its launcher can.
        environment: of the command, beside that of the test.
    """

    results: Path
    launcher: list[str]
    where: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Launch the sweep and wait for its end."""
        overrides = [*RUNS, f"results={self.results}", *self.launcher, *arguments]
        command = ["-m", "experiments.train", "-m", *overrides]
        environment = {**os.environ, "COLUMNS": "250", **self.environment}
        if not self.where:
            return forks.run(command, cwd=ROOT, environment=environment)
        options: dict[str, Any] = {"env": environment, "cwd": ROOT, "timeout": forks.SECONDS}
        command = [*self.where, sys.executable, *command]
        return subprocess.run(command, capture_output=True, text=True, **options)

    def runs(self) -> dict[str, records.RunFolder]:
        """The runs that are planned, by run_id."""
        return {run.run_id: run for run in records.load("sweep", self.results)}  # type: ignore[misc]

    def done(self) -> dict[Path, tuple[bytes, int]]:
        """Content and time of every file of the runs that are done."""
        files = [
            path
            for run in self.runs().values()
            if run.state == "done"
            for path in run.folder.rglob("*")
            if path.is_file()
        ]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def faults(folder: Path, seed: int) -> dict[str, str]:
    """Choose the runs that break, how and when, and write that down in `folder`; the kinds by run_id."""
    generator = random.Random(seed)
    configs, _ = launch.expand(RUNS, multirun=True)
    chosen = dict(
        zip(generator.sample([config.run_id for config in configs], len(KINDS)), KINDS, strict=True)
    )
    values = {
        run_id: {"kind": kind, "seconds": generator.uniform(0, 0.3), "epoch": generator.randint(1, 3)}
        for run_id, kind in chosen.items()
    }
    folder.mkdir()
    (folder / "faults.json").write_text(json.dumps(values))
    return chosen


def broken_environment(folder: Path) -> dict[str, str]:
    """What a process needs in its environment for the faults in `folder` to come."""
    paths = [str(ROOT / "tests" / "faults"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"HDC_FAULTS": str(folder / "faults.json"), "PYTHONPATH": os.pathsep.join(paths)}


def table(output: str) -> str:
    """The table that a launch printed, without the seconds."""
    printed = output[output.index("sweep: test split") :]
    return re.sub(r"( +(s/epoch|\d+\.\d+ ±\d+\.\d+))? *$", "", printed, flags=re.MULTILINE)


def recovers(sweep: Sweep, folder: Path, clean: str, seed: int) -> int:
    """Break the sweep, launch it until no run is missing, then with `--retry-failed`; assert all that a user
    relies on.

    Args:
        sweep: with an empty results folder.
        folder: where the faults are kept, not there yet.
        clean: the table of the same sweep without faults.
        seed: chooses the runs that break and the moments.

    Returns:
        How many launches it took until none but the failed runs were missing.
    """
    broken = faults(folder, seed)
    sweep.environment |= broken_environment(folder)
    failing = {run_id for run_id, kind in broken.items() if kind != "kill"}
    launches, before = 0, {}
    while True:
        out = sweep.launch()
        launches += 1
        assert "Traceback" not in out.stdout + out.stderr, out.stdout + out.stderr
        assert out.returncode != 0
        before = _untouched(before, sweep)
        states = Counter(run.state for run in sweep.runs().values())
        if states["done"] + states["failed"] == 8:
            break
        assert launches <= KINDS.count("kill"), (states, out.stdout, out.stderr)
    assert out.returncode == 1
    assert {path.name for path in folder.iterdir()} == {*broken, "faults.json"}  # every fault has come
    runs = sweep.runs()
    assert {run_id for run_id, run in runs.items() if run.state == "failed"} == failing
    for run_id in failing:
        assert sum(run_id in line for line in out.stderr.splitlines()) == 1, out.stderr
        expected = "a fault of the test" if broken[run_id] == "raise" else "became nan"
        assert expected in runs[run_id].failure["error"]
        assert "Traceback" in runs[run_id].failure["traceback"]

    out = sweep.launch("--retry-failed")
    assert out.returncode == 0, out.stdout + out.stderr
    assert "Traceback" not in out.stdout + out.stderr
    _untouched(before, sweep)
    assert {run.state for run in sweep.runs().values()} == {"done"}
    assert table(out.stdout) == clean
    return launches


def _untouched(before: dict, sweep: Sweep) -> dict:
    """The runs that were done are as they were, to the byte and the time; what is done now."""
    now = sweep.done()
    assert before.items() <= now.items()
    return now

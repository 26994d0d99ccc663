"""The benchmarks run, on a few images, and say what they should; how fast anything is, is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

ROOT = Path(__file__).parent.parent


def test_the_gpu_benchmark_says_where_there_is_none_and_measures_all(monkeypatch, capsys) -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "benchmarks.gpu: error: JAX has no GPU here, it runs on cpu\n"
    small = {
        "depthwise, 3x3 rate 2": (1, 8, 4, 4, 3, 2, "depthwise"),
        "separable": (1, 8, 4, 4, 3, 1, "separable"),
        "dense": (1, 8, 4, 4, 3, 5, "dense"),
    }
    monkeypatch.setattr(gpu, "LAYERS", small)
    monkeypatch.setattr(gpu, "TYPES", ("bfloat16",))
    monkeypatch.setattr(gpu, "SEVERAL", ())
    monkeypatch.setattr(gpu.models, "MODELS", ())
    monkeypatch.setattr(gpu.timing, "_LOOP", 0.001)
    rows = gpu.measure("cpu", repeats=2, batch=2, seconds=600)
    assert [row["what"] for row in rows] == [
        "depthwise, 3x3 rate 2, bfloat16",
        "separable, bfloat16",
        "dense, bfloat16",
    ]
    assert rows[0]["notes"].endswith("of copy")
    assert gpu.measure("cpu", repeats=2, batch=2, seconds=0) == []
    assert "the time is up, left out: dense, bfloat16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "options", "rows"),
    [
        ("train_step", ["--models", "a,c,tcn", "--batch", "4"], ["a", "c", "tcn"]),
        ("epoch", ["--models", "c", "--batch", "4"], ["c jax"]),
    ],
)
def test_a_benchmark_writes_its_figures(
    module: str, options: list[str], rows: list[str], tmp_path: Path
) -> None:
    files = ["--json", str(tmp_path / "figures.json"), "--markdown", str(tmp_path / "table.md")]
    command = [sys.executable, "-m", f"benchmarks.{module}", "--threads", "1", "--repeats", "2"]
    command += ["--backends", "jax", *options, *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["what"] for row in figures["rows"]] == rows
    assert all(times["median"] > 0 for row in figures["rows"] for times in row["times"].values())
    assert (tmp_path / "table.md").read_text().count("\n|") == len(rows) + 1

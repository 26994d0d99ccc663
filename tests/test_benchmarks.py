"""The benchmarks run, on a few images, and say what they should; how fast anything is, is not tested."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import conv, gpu, study

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


def test_the_cost_of_a_layer_counts_its_groups_and_strides() -> None:
    layer = conv.Layer(2, 9, 4, 6, 3, 1, "dense", stride=2, groups=2)
    outputs = 2 * 5 * 5 * 6  # each of 9 taps of 2 channels, in three passes
    maps = 4 * (2 * 9 * 9 * 4 * 3 + outputs * 2)
    assert conv.cost(layer) == (2 * outputs * 9 * 2 * 3, maps)
    assert conv.ours(layer, "lax")()[0].shape == (2, 5, 5, 6)


def test_the_phase_of_a_stack_is_that_of_its_outermost_known_function() -> None:
    def stack(*calls: tuple[str, str]) -> SimpleNamespace | None:
        frame = None
        for file, name in calls:
            frame = SimpleNamespace(f_code=SimpleNamespace(co_filename=file, co_name=name), f_back=frame)
        return frame

    run, epoch = ("/x/hdc/lab/train.py", "run"), ("/x/hdc/lab/training.py", "_epoch")
    assert study.phase_of(stack(run)) == study.phase_of(None) == "other"
    assert study.phase_of(stack(run, epoch, ("/x/numpy/a.py", "f"))) == "training steps"
    gridding = ("/x/hdc/gridding.py", "measure")
    assert study.phase_of(stack(gridding, ("/x/hdc/lab/metrics.py", "evaluate"))) == "gridding"
    assert study.phase_of(stack(epoch, ("/y/jax/_src/compiler.py", "f"))) == "compiling"
    assert study.phase_of(stack(epoch, ("<frozen importlib._bootstrap>", "f"))) == "imports"

"""The benchmarks run, on a few images, and say what they should; how fast anything is, is not tested."""

import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks import gpu
from benchmarks.deeplab import DeepLabV3

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


def test_the_deeplab_of_the_gpu_benchmark_is_torchvisions() -> None:
    net = nnx.eval_shape(lambda: DeepLabV3(21, rngs=nnx.Rngs(0)))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(net, nnx.Param))]
    assert sum(sizes) == 42_004_074 - 2_365_205  # without its auxiliary head
    maps = nnx.eval_shape(lambda net: net(jnp.ones((1, 96, 64, 3))), net)
    assert maps.shape == (1, 96, 64, 21)


@pytest.mark.parametrize(
    ("module", "options", "rows"),
    [
        ("train_step", ["--models", "a,c", "--batch", "4"], ["a", "c"]),
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

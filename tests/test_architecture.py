"""The arrows of the house: who may import whom, and what may not be anywhere."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Floors from the ground up, by storey. A file imports from the floors below its own and from its own room.
LIBRARY = [
    ["errors", "folders"],
    ["schedules", "registry"],
    ["ripple"],
    ["fields", "orders"],
    ["search", "plots"],
    ["advice", "published"],
    ["ops"],
    ["layers"],
    ["cures", "networks", "equations", "rates"],
    ["receptive", "cost"],
    ["gridding"],
    ["comparison", "advisor", "measuring"],
]
LAB = [
    ["store", "signals", "memory", "devices", "terminal", "progress"],
    ["locks"],
    ["data", "optimizers"],
    ["measures"],
    ["config"],
    ["records", "checkpoints", "parts", "prediction", "pretrained", "feed", "losses", "augment"],
    ["trained"],
    ["metrics", "training", "seen", "tracking"],
    ["timing", "experiment", "report"],
    ["launchers"],
    ["commands"],
    ["train"],
]
WITHOUT_JAX = [
    "lab.config",
    "lab.store",
    "lab.locks",
    "lab.records",
    "lab.report",
    "lab.terminal",
    "lab.progress",
    "lab.tracking",
]
FLOORS = {
    f"{prefix}{room}": level
    for prefix, storey, start in (("", LIBRARY, 0), ("lab.", LAB, 100))
    for level, rooms in enumerate(storey, start)
    for room in rooms
}
FOREIGN = {"numpy", "jax", "flax", "rich", "matplotlib"}  # all that the library stands on
PYTHON = sorted([*ROOT.glob("hdc/**/*.py"), *ROOT.glob("experiments/*.py")])


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def room_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] == "lab" else parts[:1])


@pytest.mark.parametrize(
    "path", [path for path in PYTHON if "hdc" in path.parts], ids=lambda p: str(p.relative_to(ROOT))
)
def test_arrows_run_downwards(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT / "hdc").with_suffix("").parts)
    room = room_of(module)
    if room not in FLOORS:
        assert module.endswith("__init__"), f"{module} has no floor"
        return
    for name in imported(path):
        if name.startswith("hdc."):
            other = room_of(name.removeprefix("hdc."))
            if other in FLOORS:
                assert other == room or FLOORS[other] < FLOORS[room], f"{module} imports {name}"
        elif not room.startswith("lab"):
            top = name.split(".")[0]
            assert top in FOREIGN | set(sys.stdlib_module_names) | {"hdc"}, f"{module} imports {name}"
        if any(room == one for one in WITHOUT_JAX):
            assert name.split(".")[0] not in ("jax", "flax", "optax"), f"{module} imports {name}"


def test_every_floor_is_a_room() -> None:
    for room in FLOORS:
        place = ROOT / "hdc" / room.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").exists(), room


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_needs_tensorflow(path: Path) -> None:
    assert "tensorflow" not in {name.split(".")[0] for name in imported(path)}


def test_the_library_loads_none_of_the_lab_and_nothing_that_one_system_lacks() -> None:
    """As a user of a model of their own, on any system: `fcntl` is not there on Windows."""
    rooms = ", ".join(f"hdc.{room}" for storey in [LIBRARY] for floor in storey for room in floor)
    absent = ("polars", "omegaconf", "hydra", "scipy.stats", "orbax", "safetensors", "tensorflow_datasets")
    program = (
        f"import sys; sys.modules['fcntl'] = None; import {rooms}; "
        f"print(*(m for m in sys.modules if m.startswith('hdc.lab') or m in {absent!r}))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert out.stdout.split() == [], out.stderr
    assert out.returncode == 0, out.stderr


def test_training_needs_no_hydra_no_records_and_no_data_sets() -> None:
    """Training and what it stands on run where only JAX, Flax and Optax are installed."""
    absent = ("polars", "omegaconf", "hydra", "tensorflow_datasets")
    program = f"import sys; [sys.modules.__setitem__(m, None) for m in {absent!r}]; import hdc.lab.training"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr

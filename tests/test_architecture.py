"""The arrows of the house: who may import whom, and what may not be anywhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = {
    "errors": set(),
    "schedules": {"errors"},
    "path_counts": {"schedules"},
    "search": {"errors", "schedules"},
    "lint": {"schedules", "search"},
    "certificate": {"errors", "schedules", "path_counts"},
    "published": {"schedules", "certificate"},
    "check": {"certificate", "lint", "published"},
    "path_maps": {"path_counts"},
    "receptive": {"errors", "schedules", "path_counts", "path_maps", "lint", "ops"},
    "config": {"errors", "schedules"},
    "folders": set(),
    "memory": set(),
    "ops": {"errors", "folders", "config"},
    "layers": {"errors", "ops"},
    "weights": {"errors"},
    "networks": {"errors", "layers", "ops", "config", "schedules", "data.dataset", "records", "weights"},
    "cost": {"errors", "ops"},
    "gridding": {"errors", "networks", "receptive"},
    "metrics": {"errors", "networks", "data.dataset"},
    "devices": {"errors"},
    "training": {"errors", "networks", "config", "cost", "devices", "ops", "data.dataset"},
    "checkpoints": {"weights", "records.files"},
    "signals": set(),
    "data": {"errors", "config", "folders"},
    "timing": {"errors", "config", "data", "ops", "records", "training"},
    "records": {"errors", "config"},
    "runs": {"errors", "records"},
    "statistics": set(),
    "tables": {"errors", "check", "config", "path_counts", "published", "records", "schedules", "statistics"},
    "claims": {"errors", "config", "records", "schedules", "statistics", "tables"},
    "figures": {"errors", "path_maps", "records", "statistics", "tables"},
}
WITH_JAX = (
    "ops",
    "layers",
    "networks",
    "cost",
    "gridding",
    "metrics",
    "devices",
    "training",
    "timing",
    "receptive",
    "data",
)
PYTHON = sorted([*ROOT.glob("hdc/**/*.py"), *ROOT.glob("experiments/*.py"), *ROOT.glob("hydra_plugins/*.py")])


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


@pytest.mark.parametrize("path", sorted(ROOT.glob("hdc/**/*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_run_one_way(path):
    room = path.relative_to(ROOT / "hdc").with_suffix("").parts[0]
    if room not in LAYERS:
        assert room in ("__init__", "experiment", "cli")  # the top of the house
        return
    allowed = LAYERS[room] | {room}
    for name in imported(path):
        if name.startswith("hdc."):
            inner = name.removeprefix("hdc.")
            assert any(inner == a or inner.startswith(f"{a}.") for a in allowed), (
                f"{path.name} imports {name}"
            )
        if room not in WITH_JAX:
            assert name.split(".")[0] not in ("jax", "flax", "optax"), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_needs_tensorflow_and_the_library_no_hydra(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert "tensorflow" not in tops
    assert not path.is_relative_to(ROOT / "hdc") or "hydra" not in tops

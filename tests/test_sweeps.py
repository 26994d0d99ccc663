"""Sweeps whose runs break, under every launcher: what is missing is trained, nothing else, and nothing is lost."""

import pytest

import sweep


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> str:
    """The table of the sweep without faults."""
    out = sweep.Sweep(tmp_path_factory.mktemp("clean"), []).launch()
    assert out.returncode == 0, out.stderr
    return sweep.table(out.stdout)


LAUNCHERS = {"basic": []}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_broken_sweep_recovers(tmp_path, clean, launcher):
    broken = sweep.Sweep(tmp_path / "results", LAUNCHERS[launcher])
    assert sweep.recovers(broken, tmp_path / "faults", clean, seed=1) == 3

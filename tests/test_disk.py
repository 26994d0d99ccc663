"""Runs the tests of `disks.py` where they can mount small file systems that nobody else sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# As root, else as root of a namespace of one's own.
WAYS = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])


def able() -> list[str] | None:
    """The command that runs another one with mounts of its own; None where the system has none."""
    for way in WAYS:
        try:
            mounts = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
            subprocess.run([*way, *mounts], check=True, capture_output=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            continue
        return way
    return None


def test_full_and_read_only_disks(tmp_path: Path) -> None:
    if (way := able()) is None:
        pytest.skip("this system lets no test mount a file system of its own")
    # As a worker of pytest-xdist, it uses the caches of the tests around it.
    environment = os.environ | {"PYTEST_XDIST_WORKER": "disks", "PYTHONPATH": str(HERE.parent)}
    arguments = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'disks'}"]
    out = subprocess.run(
        [*way, sys.executable, "-m", "pytest", *arguments, str(HERE / "disks.py")],
        cwd=HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert out.returncode == 0, out.stdout + out.stderr

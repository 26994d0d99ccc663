"""Settings of every test: one throw-away cache folder, strict JAX, repeatable hypothesis, slow tests first.

The environment is set at import, before any test module imports `hdc` or `jax`, so that programs that a
test starts have it as well.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from absl.logging import get_absl_handler
from hypothesis import settings

settings.register_profile("hdc", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("hdc")

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

# Hydra closes all handlers when it sets logging up, and absl's then closes its stream: pytest's own.
get_absl_handler().python_handler.close = lambda: None

# The workers of pytest-xdist inherit the folder of the process that started them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _folder = Path(tempfile.mkdtemp(prefix="hdc-tests-"))
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    os.environ["HDC_CACHE_DIR"] = str(_folder / "hdc")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_folder / "jax")
    os.environ["MPLCONFIGDIR"] = str(_folder / "matplotlib")

# The modules with the longest tests, the longest first: at the end, no worker waits long for another.
SLOW = [
    *("sweeps", "kills", "slurm", "optuna", "disk", "devices"),
    *("train", "notebooks", "new", "benchmarks", "registry", "ops"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}.py": number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """A worker that has nothing left takes half of what the other still has."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Compile the native library once, before several workers would do so at the same time."""
    program = "from hdc.ops import native_build; native_build.unavailable()"
    subprocess.run([sys.executable, "-c", program], capture_output=True)

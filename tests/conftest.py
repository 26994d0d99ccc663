"""Settings of every test: one throw-away cache folder, strict JAX, repeatable hypothesis.

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
settings.register_profile("few", settings.get_profile("hdc"), max_examples=12)
settings.load_profile("hdc")

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # most of the time of most tests is compiling

# Hydra closes all handlers when it sets logging up, and absl's then closes its stream: pytest's own.
get_absl_handler().python_handler.close = lambda: None

# The workers of pytest-xdist inherit the folder of the process that started them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _folder = Path(tempfile.mkdtemp(prefix="hdc-tests-"))
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    os.environ["HDC_CACHE_DIR"] = str(_folder / "hdc")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_folder / "jax")
    os.environ["MPLCONFIGDIR"] = str(_folder / "matplotlib")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Compile the native library once, before several workers would do so at the same time."""
    program = "from hdc.ops import native_build; native_build.unavailable()"
    subprocess.run([sys.executable, "-c", program], capture_output=True)

"""Compile the library of native operations once, if there is a C++ compiler, and load it.

It is kept in the cache folder under a digest of its sources and compiler flags, which are those of the best
instruction set that the processor has.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import jax

from hdc.folders import cache_dir

log = logging.getLogger("hdc")

_SOURCES = Path(__file__).parent / "native_src"
_FLAGS = ("-std=c++17", "-O3", "-w", "-fPIC", "-fno-math-errno", "-ffp-contract=fast")
# What the processor must have for each, and the compiler's own names for it; the best first.
_INSTRUCTION_SETS = {
    "avx512": ("avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"),
    "avx2": ("avx2", "fma"),
    "portable": (),
}
_CALLS = (
    "hdc_forward",
    "hdc_backward",
    "hdc_depthwise_forward",
    "hdc_depthwise_backward",
    "hdc_separable_forward",
    "hdc_separable_backward",
    "hdc_max_pool",
    "hdc_max_pool_gradient",
    "hdc_moments",
    "hdc_normalise",
    "hdc_normalise_gradient",
    "hdc_winograd_forward",
    "hdc_winograd_backward",
)
_COMPILE_SECONDS = 300


@cache
def unavailable() -> str:
    """Why the native library is not available, or ""; the first call compiles and loads it."""
    if jax.default_backend() != "cpu":
        return f"it needs a CPU, and JAX runs on {jax.default_backend()}"
    if platform.system() != "Linux":
        return f"it needs Linux, this is {platform.system()}"
    try:
        library = _library()
        calls = {name: getattr(library, name) for name in _CALLS}
    except (OSError, subprocess.SubprocessError, ValueError, RuntimeError, AttributeError) as error:
        # The last three: quotes in CXX, a missing home folder, a compiler that leaves functions out.
        reason = " ".join(str(error).split())[:300]
        log.warning("no native convolution, other backends are used: %s", reason)
        return reason
    for name, call in calls.items():
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(call), platform="cpu")
    return ""


def instruction_set() -> str:
    """The instruction set that it is compiled for: avx512, avx2 or portable."""
    has = _processor_flags()
    names = [name for name, needed in _INSTRUCTION_SETS.items() if has.issuperset(needed)]
    asked = os.environ.get("HDC_NATIVE_ISA")  # for tests: a smaller one than the processor has
    return asked if asked in names else names[0]


def _processor_flags() -> set[str]:
    """What an x86 processor has, as Linux names it; of others nothing."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        return next(
            (set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set()
        )
    return set()


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(_built()))


def _built() -> Path:
    """The compiled library's path; compiles it if needed, and raises what `unavailable` catches."""
    sources = sorted(_SOURCES.iterdir())
    named = shlex.split(os.environ.get("CXX", ""))
    added = tuple(shlex.split(os.environ.get("CXXFLAGS", "")))
    flags = (*_FLAGS, *_instruction_flags(), *added)
    compiled_for = (platform.machine(), importlib.metadata.version("jaxlib"), flags, named)
    digest = hashlib.sha256(repr(compiled_for).encode())
    for source in sources:
        digest.update(source.read_bytes())
    path = cache_dir() / "native" / f"convolution-{digest.hexdigest()[:16]}.so"
    written = path.with_suffix(".sha256")
    # Loading a truncated library would crash the process.
    if path.exists() and written.exists() and written.read_text() == _digest(path):
        return path
    names = [named[0]] if named else ["c++", "g++", "clang++"]
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise OSError(f"there is no C++ compiler ({', '.join(names)})")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        log.warning("compiling the native convolution with %s, once", compiler)
        made = Path(work) / path.name
        _compile([compiler, *named[1:]], [s for s in sources if s.suffix == ".cc"], flags, made)
        if not made.exists():
            raise OSError(f"{compiler} wrote no library")
        made.with_suffix(".sha256").write_text(_digest(made))
        made.replace(path)  # atomically: other processes may do the same
        made.with_suffix(".sha256").replace(written)
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _instruction_flags() -> list[str]:
    name = instruction_set()
    wide = ["-mprefer-vector-width=512"] if name == "avx512" else []
    return [*(f"-m{needed}" for needed in _INSTRUCTION_SETS[name]), *wide]


def _compile(compiler: list[str], sources: list[Path], flags: tuple[str, ...], library: Path) -> None:
    objects, running = [], []
    with contextlib.ExitStack() as ended:  # killed, waited for, and their pipes closed, whatever happens
        for source in sources:
            objects.append(str(library.with_name(f"{source.stem}.o")))
            command = [*compiler, *flags, f"-I{jax.ffi.include_dir()}", "-c", str(source), "-o", objects[-1]]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
            running.append(ended.enter_context(process))
            ended.callback(process.kill)
        for process in running:
            _, said = process.communicate(timeout=_COMPILE_SECONDS)
            _succeeded(compiler[0], process.returncode, said)
    command = [*compiler, "-shared", *flags, *objects, "-o", str(library)]
    linked = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    _succeeded(compiler[0], linked.returncode, linked.stderr)


def _succeeded(compiler: str, code: int, said: str) -> None:
    if code:
        wrong = next((line for line in said.splitlines() if "error" in line), said or f"exit code {code}")
        raise OSError(f"{compiler} failed: {wrong}")

"""Convolution in C++ for CPUs: compiled once, where there is a compiler, and called by XLA.

The program is kept in the cache folder, by the digest of its sources. Where it cannot be made, one line says
why, and `hdc.ops.backends` takes another program.
"""

import ctypes
import hashlib
import importlib.metadata
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, custom_vjp

from hdc.folders import cache_dir

log = logging.getLogger("hdc")

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

_SOURCES = Path(__file__).parent / "native_src"
_FLAGS = ("-std=c++17", "-O3", "-w", "-fPIC", "-fno-math-errno", "-ffp-contract=fast")
_OF_CPU = {
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2", "-mfma"),
}
_COMPILE_SECONDS = 300


@cache
def unavailable() -> str:
    """Why it is not available here, or "" where it is; the first call makes and loads it."""
    if jax.default_backend() != "cpu":
        return f"it is for CPUs, and JAX runs on {jax.default_backend()}"
    if platform.system() != "Linux":
        return f"it is made for Linux, this is {platform.system()}"
    try:
        library = _library()
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(error).split())[:300]
        log.warning("no native convolution, other programs serve: %s", reason)
        return reason
    for name in ("hdc_forward", "hdc_input_gradient", "hdc_kernel_gradient"):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return ""


def instruction_set() -> str:
    """What it uses of this CPU: avx512, avx2 or portable."""
    ask = _library().hdc_instruction_set
    ask.restype = ctypes.c_char_p
    return ask().decode()


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(_built()))


def _built() -> Path:
    """The compiled library, made if it is not there. OSError or SubprocessError where it cannot be."""
    sources = sorted(_SOURCES.iterdir())
    digest = hashlib.sha256(platform.machine().encode())
    for text in (
        importlib.metadata.version("jaxlib"),
        *_FLAGS,
        *(f for flags in _OF_CPU.values() for f in flags),
    ):
        digest.update(text.encode())
    for source in sources:
        digest.update(source.read_bytes())
    path = cache_dir() / "native" / f"convolution-{digest.hexdigest()[:16]}.so"
    if path.exists():
        return path
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["c++", "g++", "clang++"]
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise OSError(f"there is no C++ compiler ({', '.join(names)})")
    log.warning("compiling the native convolution with %s, once", compiler)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        _compile(compiler, [s for s in sources if s.suffix == ".cc"], Path(work) / path.name)
        (Path(work) / path.name).replace(path)  # whole or not at all, whoever else makes it
    return path


def _compile(compiler: str, sources: list[Path], library: Path) -> None:
    objects, running = [], []
    for source in sources:
        if source.stem in _OF_CPU and platform.machine() != "x86_64":
            continue
        objects.append(library.with_name(f"{source.stem}.o"))
        flags = (*_FLAGS, *_OF_CPU.get(source.stem, ()), f"-I{jax.ffi.include_dir()}", f"-I{_SOURCES}")
        command = [compiler, *flags, "-c", str(source), "-o", str(objects[-1])]
        running.append((command, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
    for command, process in running:
        _, said = process.communicate(timeout=_COMPILE_SECONDS)
        if process.returncode:
            wrong = next((line for line in said.splitlines() if "error" in line), said)
            raise OSError(f"{command[0]} failed: {wrong}")
    subprocess.run(
        [compiler, "-shared", *map(str, objects), "-o", str(library)], check=True, capture_output=True
    )


def _call(name: str, shape: tuple[int, ...], first: Array, second: Array, rate: Pair, pads: Pads) -> Array:
    call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="sequential")
    numbers = {"rate_h": rate[0], "rate_w": rate[1], "top": pads[0][0], "left": pads[1][0]}
    return call(first, second, **{key: np.int64(value) for key, value in numbers.items()})


# A convolution is linear in both operands, and so are its gradients: each one's gradients are the other two.


@partial(custom_vjp, nondiff_argnums=(2, 3))
def conv2d(x: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
    """`[b, h, w, c]` and `[kh, kw, c, f]`, or depthwise `[kh, kw, 1, c]`, float32; to `[b, h', w', f]`.

    Stride 1; pads are pixels (before, after) per axis. Only where `unavailable` is "".
    """
    sizes = [
        n + sum(pad) - (k - 1) * r
        for n, pad, k, r in zip(x.shape[1:3], pads, kernel.shape[:2], rate, strict=True)
    ]
    return _call("hdc_forward", (x.shape[0], *sizes, kernel.shape[3]), x, kernel, rate, pads)


@partial(custom_vjp, nondiff_argnums=(2, 3, 4))
def _input_gradient(dy: Array, kernel: Array, rate: Pair, pads: Pads, shape: tuple[int, ...]) -> Array:
    return _call("hdc_input_gradient", shape, dy, kernel, rate, pads)


@partial(custom_vjp, nondiff_argnums=(2, 3, 4))
def _kernel_gradient(x: Array, dy: Array, rate: Pair, pads: Pads, shape: tuple[int, ...]) -> Array:
    return _call("hdc_kernel_gradient", shape, x, dy, rate, pads)


conv2d.defvjp(
    lambda x, kernel, rate, pads: (conv2d(x, kernel, rate, pads), (x, kernel)),
    lambda rate, pads, kept, g: (
        _input_gradient(g, kept[1], rate, pads, kept[0].shape),
        _kernel_gradient(kept[0], g, rate, pads, kept[1].shape),
    ),
)
_input_gradient.defvjp(
    lambda dy, kernel, rate, pads, shape: (_input_gradient(dy, kernel, rate, pads, shape), (dy, kernel)),
    lambda rate, pads, shape, kept, g: (
        conv2d(g, kept[1], rate, pads),
        _kernel_gradient(g, kept[0], rate, pads, kept[1].shape),
    ),
)
_kernel_gradient.defvjp(
    lambda x, dy, rate, pads, shape: (_kernel_gradient(x, dy, rate, pads, shape), (x, dy)),
    lambda rate, pads, shape, kept, g: (
        _input_gradient(kept[1], g, rate, pads, kept[0].shape),
        conv2d(kept[0], g, rate, pads),
    ),
)

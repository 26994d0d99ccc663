"""Which backend computes an operation: the rule, and how to override it."""

import math
from collections.abc import Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
from jax.sharding import AxisType

from hdc.errors import InputError

BACKENDS = ("auto", "lax", "jax", "native", "triton")

_COMPILED = "compiled for this CPU"
_FLOATS = {"float32", "bfloat16", "float16"}  # of the backends for GPUs
_PRODUCT, _XLA = "1x1 as a matrix product", "XLA's own kernels on {}"
# What a Triton kernel can hold in registers: a depthwise one, weights; a dense one, sums of all weights.
_TAPS, _FEW, _FEW_TAPS = 49, 32, 25
_LARGE_KERNEL = 2**14  # channels x features; of larger ones each image reads too many transformed weights
_PADDED, _SMALL = 16, 2**12  # the other backends take maps that padding enlarges up to 16 times + 4096 pixels

_asked: ContextVar[str] = ContextVar("backend", default="auto")
_by_winograd: ContextVar[bool] = ContextVar("winograd", default=False)
_served: ContextVar[list["Served"] | None] = ContextVar("served", default=None)


@dataclass(frozen=True)
class Geometry:
    """The shapes and settings of one convolution.

    Attributes:
        x, kernel: shapes `[b, h, w, c]` and `[kh, kw, c / groups, f]`.
        dtypes: the arrays' types.
        rate, strides: per axis.
        pads: pixels (before, after), per axis.
        groups: feature groups.
    """

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    dtypes: frozenset[str]
    rate: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    groups: int

    @property
    def depthwise(self) -> bool:
        """One filter per channel."""
        return self.groups == self.x[3] == self.kernel[3]

    @property
    def pointwise(self) -> bool:
        """1x1 without padding, over all channels."""
        return self.groups == 1 and self.kernel[:2] == (1, 1) and self.pads == ((0, 0), (0, 0))


@dataclass(frozen=True)
class Choice:
    """The backend that computes an operation, and why."""

    backend: str
    reason: str
    winograd: bool = False


@dataclass(frozen=True)
class Served:
    """An operation in words, and the backend chosen for it."""

    operation: str
    choice: Choice


@contextmanager
def served() -> Iterator[list[Served]]:
    """Yield a list that collects every operation traced in the block, in order."""
    operations: list[Served] = []
    token = _served.set(operations)
    try:
        yield operations
    finally:
        _served.reset(token)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Use one backend for every convolution traced in the block that it can compute.

    Args:
        name: `auto` (the fastest), `lax` (XLA's own convolution), `jax` (equivalent array operations),
            `native` (C++ compiled for this CPU) or `triton` (kernels for NVIDIA GPUs).

    Raises:
        InputError: for another name, or if `native` or `triton` is not available, with the reason.
    """
    if name not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "native":
        from hdc.ops import native_build

        if reason := native_build.unavailable():
            raise InputError(f"backend 'native' is not available here: {reason}; there are auto, lax and jax")
    if name == "triton" and not _nvidia():
        from hdc.ops import native_build

        known = "auto, lax and jax" if native_build.unavailable() else "auto, lax, jax and native"
        raise InputError(
            f"backend 'triton' needs an NVIDIA GPU, JAX runs on {jax.default_backend()} here; "
            f"there are {known}"
        )
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


@contextmanager
def winograd() -> Iterator[None]:
    """Allow Winograd's way for 3x3 convolutions traced in the block: fewer multiplications, other rounding.

    Errors are about 1e-6 of the largest value in a map, where the direct way's are of each value: a
    gradient that is zero for want of paths can become 1e-7, and a value that is not a number spreads over
    5 x 5 pixels. So training uses it, and what measures receptive fields does not.
    """
    token = _by_winograd.set(True)
    try:
        yield
    finally:
        _by_winograd.reset(token)


def winograd_pays(geometry: Geometry) -> bool:
    """Whether Winograd's way serves a convolution and is faster, by counting multiplications.

    A tile of 3 x 3 outputs takes 25 for each channel and feature where the direct way takes up to 81. But
    maps of pixels a rate apart are cut into whole tiles, and transforms cost what 9 channels and features do.
    """
    (high, rate), (ins, outs) = geometry.rate, (geometry.x[3], geometry.kernel[3])
    padded = geometry.pads == ((rate, rate),) * 2
    whole = all(n % 16 == 0 and (n <= 64 or n % 64 == 0) for n in (ins, outs))
    plain = geometry.kernel[:2] == (3, 3) and geometry.strides == (1, 1) and geometry.groups == 1
    if not (plain and high == rate and padded and whole and ins * outs <= _LARGE_KERNEL):
        return False
    tiles, direct = 1, 1
    for side in geometry.x[1:3]:
        grids = [-(-(side - first) // rate) for first in range(min(rate, side))]
        tiles *= sum(-(-n // 3) * 5 for n in grids)
        direct *= sum(3 * n - 2 for n in grids)
    return tiles * (1 + 9 / ins + 9 / outs) < 0.9 * direct


def choose(geometry: Geometry, then: str = "") -> Choice:
    """The backend of a convolution. `then` describes what the native backend computes in the same pass."""
    choice = _choice(geometry)
    return _noted(_described(geometry) + (then if choice.backend == "native" else ""), choice)


def choose_pool(
    shape: tuple[int, ...], dtype: str, size: tuple[int, int], strides: tuple[int, int]
) -> Choice:
    """The backend for max pooling of maps `[b, h, w, c]` with windows of `size`, `strides` apart."""
    compared = Choice("jax", "gradient as comparisons")
    if jax.default_backend() == "gpu" and _asked.get() == "auto" and strides < size and 0 not in shape:
        choice = compared  # XLA's own is a scatter
    else:
        choice = _elsewhere({dtype}, 0 in shape)
    if choice is None:
        choice = Choice("native", _COMPILED) if _native() else compared
    return _noted(f"{size[0]}x{size[1]} max pooling of {shape[3]} channels", choice)


def choose_norm(shape: tuple[int, ...], dtypes: frozenset[str]) -> Choice:
    """The backend for batch normalisation of maps or signals `[b, ..., c]`."""
    choice = _elsewhere(dtypes, 0 in shape)
    if choice is None:
        choice = Choice("native", _COMPILED) if _native() else Choice("lax", "as Flax computes it")
    return _noted(f"batch normalisation of {shape[-1]} channels", choice)


def _noted(operation: str, choice: Choice) -> Choice:
    if (operations := _served.get()) is not None:
        operations.append(Served(operation, choice))
    return choice


def _described(geometry: Geometry) -> str:
    rows, columns, _, features = geometry.kernel
    words = [f"{rows}x{columns} convolution, {geometry.x[3]} to {features} channels"]
    if geometry.depthwise and geometry.groups > 1:
        words = [f"{rows}x{columns} depthwise convolution of {features} channels"]
    elif geometry.groups > 1:
        words.append(f"{geometry.groups} groups")
    for name, (high, wide) in (("rate", geometry.rate), ("stride", geometry.strides)):
        if (high, wide) != (1, 1):
            words.append(f"{name} {high}" if high == wide else f"{name} {high}x{wide}")
    return ", ".join(words)


def _choice(geometry: Geometry) -> Choice:
    if jax.default_backend() == "gpu" and _asked.get() != "lax" and (choice := _on_gpu(geometry)):
        return choice
    if early := _elsewhere(geometry.dtypes, 0 in geometry.x or 0 in geometry.kernel):
        return early
    reached = [n + sum(pad) for n, pad in zip(geometry.x[1:3], geometry.pads, strict=True)]
    if math.prod(reached) > _PADDED * math.prod(geometry.x[1:3]) + _SMALL:
        return Choice("lax", "mostly padding, which the others would store")
    if _native():
        if _by_winograd.get() and winograd_pays(geometry):
            return Choice("native", f"{_COMPILED}, by Winograd's way", winograd=True)
        return Choice("native", _COMPILED)
    if geometry.strides != (1, 1):
        return Choice("lax", "without native code the others need stride 1")
    if geometry.groups > 1 and not geometry.depthwise:
        return Choice("lax", "without native code the others need one group, or one per channel")
    if geometry.depthwise and geometry.groups > 1:
        return Choice("jax", "depthwise as shifted multiply-adds")
    if geometry.pointwise:
        return Choice("jax", _PRODUCT)
    if geometry.kernel[3] < 32:
        return Choice("lax", "the fastest without native code for few channels")
    return Choice("jax", "kernel gradient in XLA's fast layout")


def fast_in_loops() -> bool:
    """Whether operations are as fast inside a compiled loop; on a CPU, XLA's own are far slower there."""
    return jax.default_backend() != "cpu" or (_asked.get() != "lax" and _native())


def _elsewhere(dtypes: Set[str], empty: bool) -> Choice | None:
    """XLA's own backend if it is requested or the only one possible, else None."""
    if _asked.get() == "lax":
        return Choice("lax", "requested")
    if jax.default_backend() != "cpu" and _asked.get() != "jax":
        return Choice("lax", _XLA.format(jax.default_backend()))
    if dtypes != {"float32"} and not (dtypes == {"bfloat16"} and _native()):
        return Choice("lax", "the others need float32")
    return Choice("lax", "nothing to compute") if empty else None


def _nvidia() -> bool:
    return jax.default_backend() == "gpu" and "cuda" in jax.devices()[0].client.platform_version.lower()


def _on_gpu(geometry: Geometry) -> Choice | None:
    """The backend on a GPU where it is not XLA's own."""
    reached = [n + sum(pad) for n, pad in zip(geometry.x[1:3], geometry.pads, strict=True)]
    if (
        geometry.strides != (1, 1)
        or 0 in geometry.x
        or 0 in geometry.kernel
        or len(geometry.dtypes) > 1
        or not geometry.dtypes <= _FLOATS
    ):
        return None
    if geometry.pointwise:
        return Choice("jax", _PRODUCT) if _asked.get() in ("auto", "jax") else None
    taps, (channels, features) = math.prod(geometry.kernel[:2]), (geometry.x[3], geometry.kernel[3])
    if geometry.depthwise and geometry.groups > 1:
        served = taps <= _TAPS
    else:
        # One channel: a matrix product of 16 at least is mostly idle, and cuDNN faster.
        served = geometry.groups == 1 and 1 < channels <= _FEW and features <= _FEW and taps <= _FEW_TAPS
    if (
        served
        and _asked.get() in ("auto", "triton")
        and geometry.x[0] * math.prod(reached) * max(channels, features) < 2**31
        and _nvidia()
        and not _divided()
    ):
        return Choice("triton", "compiled for this GPU")
    if geometry.groups == 1 and _asked.get() in ("auto", "jax"):
        if geometry.rate != (1, 1):
            return Choice("jax", "kernel gradient on maps of pixels a rate apart")
        return Choice("lax", _XLA.format(jax.default_backend()))
    return None


def _native() -> bool:
    if _asked.get() == "jax" or _divided() or jax.default_backend() != "cpu":
        return False
    from hdc.ops import native_build

    return not native_build.unavailable()


def _divided() -> bool:
    """Whether XLA will divide the traced program over devices: it can divide only its own operations."""
    mesh = jax.sharding.get_abstract_mesh()
    return any(
        size > 1 and kind is AxisType.Auto
        for size, kind in zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    )

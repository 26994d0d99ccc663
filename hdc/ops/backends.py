"""Which program computes an operation: the rule, in one place, and how to overrule it."""

import math
from collections.abc import Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
from jax.sharding import AxisType

from hdc.errors import InputError

BACKENDS = ("auto", "lax", "jax", "native")

_COMPILED = "compiled for this CPU"
_BESIDE, _SMALL = 16, 2**12  # a map with its padding may be so many times the map, and so many pixels more

_asked: ContextVar[str] = ContextVar("backend", default="auto")
_served: ContextVar[list["Served"] | None] = ContextVar("served", default=None)


@dataclass(frozen=True)
class Geometry:
    """One convolution, by its numbers.

    Attributes:
        x, kernel: shapes `[b, h, w, c]` and `[kh, kw, c / groups, f]`.
        dtypes: of all arrays.
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


@dataclass(frozen=True)
class Choice:
    """The backend that serves an operation, and why."""

    backend: str
    reason: str


@dataclass(frozen=True)
class Served:
    """An operation, in words, and the choice for it."""

    operation: str
    choice: Choice


@contextmanager
def served() -> Iterator[list[Served]]:
    """A list to which every operation that is traced inside is added, in order."""
    operations: list[Served] = []
    token = _served.set(operations)
    try:
        yield operations
    finally:
        _served.reset(token)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Compute the convolutions that are traced inside with one backend wherever it can.

    Args:
        name: `auto` (the rule), `lax`, `jax` (other array operations) or `native` (compiled for CPUs).

    Raises:
        InputError: for another name, or `native` where it is not available, with the reason.
    """
    if name not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "native":
        from hdc.ops import native_build

        if reason := native_build.unavailable():
            raise InputError(f"backend 'native' is not available here: {reason}; there are auto, lax and jax")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def choose(geometry: Geometry, then: str = "") -> Choice:
    """The backend of a convolution; `then` says what else is in the same operation where it is native."""
    choice = _choice(geometry)
    return _noted(_described(geometry) + (then if choice.backend == "native" else ""), choice)


def choose_pool(shape: tuple[int, ...], dtype: str, size: tuple[int, int]) -> Choice:
    """The backend of a max pooling of maps `[b, h, w, c]` by windows of `size`."""
    choice = _elsewhere({dtype}, 0 in shape)
    if choice is None:
        choice = Choice("native", _COMPILED) if _native() else Choice("jax", "gradient as comparisons")
    return _noted(f"{size[0]}x{size[1]} max pooling of {shape[3]} channels", choice)


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
    if early := _elsewhere(geometry.dtypes, 0 in geometry.x or 0 in geometry.kernel):
        return early
    if geometry.strides != (1, 1):
        return Choice("lax", "the others are for stride 1")
    if geometry.groups > 1 and not geometry.depthwise:
        return Choice("lax", "the others are for one group, or one per channel")
    reached = [n + sum(pad) for n, pad in zip(geometry.x[1:3], geometry.pads, strict=True)]
    if math.prod(reached) > _BESIDE * math.prod(geometry.x[1:3]) + _SMALL:
        return Choice("lax", "taps mostly beside the map, which the others write out")
    if _native():
        return Choice("native", _COMPILED)
    if geometry.depthwise and geometry.groups > 1:
        return Choice("jax", "depthwise as shifted multiply-adds")
    if geometry.kernel[:2] == (1, 1) and geometry.pads == ((0, 0), (0, 0)):
        return Choice("jax", "1x1 as a matrix product")
    if geometry.kernel[3] < 32:
        return Choice("lax", "as good as any without native code, for few channels")
    return Choice("jax", "kernel gradient in XLA's fast layout")


def fast_in_loops() -> bool:
    """Whether operations are as fast in a compiled loop as outside: XLA's own are not, on a CPU, by far."""
    return jax.default_backend() != "cpu" or (_asked.get() != "lax" and _native())


def _elsewhere(dtypes: Set[str], empty: bool) -> Choice | None:
    """XLA's own, where nothing else is asked for or can be used."""
    if _asked.get() == "lax":
        return Choice("lax", "asked for")
    if jax.default_backend() != "cpu":
        return Choice("lax", f"XLA's own kernels on {jax.default_backend()}")
    if dtypes != {"float32"}:
        return Choice("lax", "the others are for float32")
    return Choice("lax", "nothing to compute") if empty else None


def _native() -> bool:
    if _asked.get() == "jax" or _divided():
        return False
    from hdc.ops import native_build

    return not native_build.unavailable()


def _divided() -> bool:
    """Whether XLA is to divide what is traced over devices: it can do that with its own operations alone."""
    mesh = jax.sharding.get_abstract_mesh()
    return any(
        size > 1 and kind is AxisType.Auto
        for size, kind in zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    )

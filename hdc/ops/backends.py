"""Which program computes an operation: the rule, in one place, and how to overrule it."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax

from hdc.errors import InputError

BACKENDS = ("auto", "lax", "jax", "native")

_asked: ContextVar[str] = ContextVar("backend", default="auto")


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


def choose(geometry: Geometry) -> Choice:
    """The backend of a convolution."""
    if early := _elsewhere(geometry.dtypes, 0 in geometry.x or 0 in geometry.kernel):
        return early
    if geometry.strides != (1, 1):
        return Choice("lax", "the others are for stride 1")
    if geometry.groups > 1 and not geometry.depthwise:
        return Choice("lax", "the others are for one group, or one per channel")
    if _native():
        return Choice("native", "compiled for this CPU")
    if geometry.depthwise and geometry.groups > 1:
        return Choice("jax", "depthwise as shifted multiply-adds")
    if geometry.kernel[:2] == (1, 1) and geometry.pads == ((0, 0), (0, 0)):
        return Choice("jax", "1x1 as a matrix product")
    return Choice("jax", "kernel gradient in XLA's fast layout")


def choose_pool(shape: tuple[int, ...], dtype: str) -> Choice:
    """The backend of a max pooling of maps `[b, h, w, c]`."""
    if early := _elsewhere({dtype}, 0 in shape):
        return early
    return (
        Choice("native", "compiled for this CPU") if _native() else Choice("jax", "gradient as comparisons")
    )


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
    if _asked.get() == "jax":
        return False
    from hdc.ops import native_build

    return not native_build.unavailable()

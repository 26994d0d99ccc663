"""Which program computes a convolution: the rule, in one place, and how to overrule it."""

from collections.abc import Iterator
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
        dtypes: of both.
        rate, strides: per axis.
        pads: pixels (before, after), per axis.
        groups: feature groups.
    """

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    dtypes: tuple[str, str]
    rate: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    groups: int

    @property
    def depthwise(self) -> bool:
        """One filter per channel."""
        return self.groups == self.x[3] == self.kernel[3]


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
        from hdc.ops import native

        if reason := native.unavailable():
            raise InputError(f"backend 'native' is not available here: {reason}; there are auto, lax and jax")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def choose(geometry: Geometry) -> tuple[str, str]:
    """The backend of a convolution, and why."""
    asked = _asked.get()
    if asked == "lax":
        return "lax", "asked for"
    if jax.default_backend() != "cpu":
        return "lax", f"XLA's own kernels on {jax.default_backend()}"
    if set(geometry.dtypes) != {"float32"}:
        return "lax", "the others are for float32"
    if geometry.strides != (1, 1):
        return "lax", "the others are for stride 1"
    if geometry.groups > 1 and not geometry.depthwise:
        return "lax", "the others are for one group, or one per channel"
    if 0 in geometry.x or 0 in geometry.kernel:
        return "lax", "nothing to compute"
    if asked != "jax":
        from hdc.ops import native

        if not native.unavailable():
            return "native", "compiled for this CPU"
    if geometry.depthwise:
        return "jax", "depthwise as shifted multiply-adds"
    if geometry.kernel[:2] == (1, 1) and geometry.pads == ((0, 0), (0, 0)):
        return "jax", "1x1 as a matrix product"
    return "lax", "dense: as good as any on a CPU without native code"

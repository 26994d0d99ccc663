"""How the axes of a model's input are laid out, and the way to batch, space, channels and back."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from hdc.errors import InputError

_CHANNELS = 4  # of an image: a shape with at most as many along one end is taken to have them there
_SIDE = 8  # pixels, at least, of a side


@dataclass(frozen=True)
class Layout:
    """The axes of an input.

    Attributes:
        shape: of the input, as the model takes it.
        spatial: the axes of height and width, or of length.
        batch, channel: the others; None where it has none.
        said: what is told about a layout that was guessed; "" for one that was given.
    """

    shape: tuple[int, ...]
    spatial: tuple[int, ...]
    batch: int | None
    channel: int | None
    said: str = field(default="", compare=False)

    @classmethod
    def of(cls, shape: tuple[int, ...], spatial: object, *, batch: bool) -> "Layout":
        """From the spatial axes; `batch` says whether such models take one.

        Raises:
            InputError: for axes that the input does not have, or if more than two others are left.
        """
        rank = len(shape)
        try:
            given = [operator.index(axis) for axis in spatial]  # type: ignore[attr-defined]
        except TypeError:
            given = []
        axes = sorted({axis % rank for axis in given if -rank <= axis < rank})
        if not axes or len(axes) != len(given) or rank - len(axes) > 2:
            raise InputError(
                f"spatial={spatial!r} must name axes of the input {shape}: all but the batch and the "
                "channels, such as (2, 3)"
            )
        others = [axis for axis in range(rank) if axis not in axes]
        if len(others) == 2:
            return cls(shape, tuple(axes), others[0], others[1])
        # A single other axis: the batch before a map without channels, or the channels.
        alone = others[0] if others else None
        first = batch and alone == 0 and shape[0] == 1
        return cls(shape, tuple(axes), alone if first else None, None if first else alone)

    @property
    def is_standard(self) -> bool:
        """Whether it is batch, space, channels."""
        return self._order == tuple(range(len(self.shape))) and None not in (self.batch, self.channel)

    @property
    def standard(self) -> tuple[int, ...]:
        """The shape of the input as batch, space, channels; 1 for what it lacks."""
        ends = [1 if axis is None else self.shape[axis] for axis in (self.batch, self.channel)]
        return (ends[0], *(self.shape[axis] for axis in self.spatial), ends[1])

    @property
    def _order(self) -> tuple[int, ...]:
        """The model's axes in the order of batch, space, channels."""
        return tuple(axis for axis in (self.batch, *self.spatial, self.channel) if axis is not None)

    def of_batch(self, size: int) -> "Layout":
        """The same layout with another batch; without one as it is."""
        sizes = [size if axis == self.batch else length for axis, length in enumerate(self.shape)]
        return replace(self, shape=tuple(sizes))

    def input(self, x: jax.Array) -> jax.Array:
        """An input `[batch, space..., channels]` as the model takes it; one without a batch has one."""
        if self.is_standard:
            return x
        if self.batch is None:
            x = jnp.squeeze(x, 0)
        if self.channel is None:
            x = jnp.squeeze(x, -1)
        return jnp.transpose(x, [self._order.index(axis) for axis in range(x.ndim)])

    def output(self, y: jax.Array) -> jax.Array:
        """A result with as many axes as the input as batch, space, channels; any other with a batch."""
        if self.is_standard or not hasattr(y, "ndim"):
            return y
        if y.ndim == len(self.shape):
            y = jnp.transpose(y, self._order)
            if self.channel is None:
                y = y[..., None]
        return y[None] if self.batch is None else y

    def own(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a result of the model, from that of `output`."""
        if self.is_standard:
            return shape
        shape = shape[1:] if self.batch is None else shape
        if len(shape) - (self.channel is None) != len(self.shape):
            return shape
        return tuple(shape[self._order.index(axis)] for axis in range(len(self.shape)))


def channels_last(shape: tuple[int, ...]) -> Layout:
    """Batch, space, channels."""
    return Layout(shape, tuple(range(1, len(shape) - 1)), 0, len(shape) - 1, _warned(shape))


def channels_first(shape: tuple[int, ...]) -> Layout:
    """Batch, channels, space."""
    return Layout(shape, tuple(range(2, len(shape))), 0, 1, _said(shape, range(2, len(shape)), 1))


def single_example(shape: tuple[int, ...]) -> Layout:
    """Channels, space."""
    return Layout(shape, tuple(range(1, len(shape))), None, 0, _said(shape, range(1, len(shape)), 0))


def guessed(shape: tuple[int, ...]) -> Layout:
    """Of a function's input: channels last, unless the shape looks like an image with other axes.

    How it is read is said, except of `[batch, height, width, channels]` with the few channels of an image.
    """
    if len(shape) == 4 and shape[1] <= _CHANNELS and min(shape[2:]) >= _SIDE:
        return channels_first(shape)
    if len(shape) == 3 and shape[2] <= _CHANNELS and min(shape[:2]) >= _SIDE:
        return Layout(shape, (0, 1), None, 2, _said(shape, (0, 1), 2))
    spatial, last = range(1, len(shape) - 1), len(shape) - 1
    usual = len(shape) == 4 and shape[last] <= _CHANNELS
    return Layout(shape, tuple(spatial), 0, last, "" if usual or not spatial else _said(shape, spatial, last))


def _said(shape: Sequence[int], spatial: Sequence[int], channel: int) -> str:
    image = "x".join(str(shape[axis]) for axis in spatial)
    what = f"{image} map" if len(spatial) > 1 else f"signal of length {image}"
    return f"read as a {what} of {shape[channel]} channels; spatial= gives other axes"


def _warned(shape: Sequence[int]) -> str:
    """How a shape is read, where it looks as if the channels came first."""
    *batch, last = shape
    if len(shape) < 4 or batch[1] > _CHANNELS or min(*batch[2:], last) < _SIDE:
        return ""
    turned = (batch[0], *batch[2:], last, batch[1])
    return (
        f"read with the channels last: a {'x'.join(map(str, batch[1:]))} map of {last} channels; "
        f"if the channels come first, give {turned} and a model that takes it, or "
        f"spatial={tuple(range(2, len(shape)))}"
    )

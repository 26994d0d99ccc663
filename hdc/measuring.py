"""Gridding measured in a model of your own, of any kind that `hdc.analyse` takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from hdc import gridding
from hdc.errors import InputError
from hdc.gridding import Measured, Ripple
from hdc.receptive import Analysis, analyse, models
from hdc.receptive.annotate import annotate
from hdc.receptive.models.layout import Layout
from hdc.receptive.outputs import Output
from hdc.receptive.replay import evaluator
from hdc.receptive.rules.taps import AlongBatch
from hdc.receptive.trace import trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BATCH = 4  # images at a time
MAX_PERIOD = 8


@dataclass(frozen=True, eq=False)
class ERF:
    """The effective receptive field of one output: how strongly each input pixel moves it, measured.

    Attributes:
        map: `[height, width]`, of signals `[length]`: mean |dy/dx| (Luo et al. 2016), summed over the
            channels of input and output, averaged over images.
        at: the output pixel; () of an output without a map.
        seen: the exact field of that pixel; None for a model that `hdc.analyse` refuses.
        max_period: the longest period of the ripple, in pixels.
    """

    map: np.ndarray
    at: tuple[int, ...]
    seen: Analysis | None
    max_period: int = MAX_PERIOD

    @cached_property
    def ripple(self) -> Ripple:
        """See `hdc.gridding.ripple`: `ripple.peak` in dB, `ripple.frequency` in cycles per pixel."""
        return gridding.ripple(self.map, self.max_period, self.map.ndim)

    def area(self, share: float) -> float:
        """The area in pixels^2, or length, of the smallest centred square that holds a share of the mass.

        Its centre is that of the exact field; of the image, where that is not known. See `gridding.erf_area`.

        Raises:
            InputError: for a share that is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise InputError(f"share must be above 0 and at most 1, such as 0.2, got {share}")
        return gridding.erf_area(self.map, share, gridding.field_box(self.seen, self.map.shape)[0])

    def __repr__(self) -> str:
        size = "x".join(map(str, self.map.shape))
        areas = ", ".join(f"{share} % in {self.area(share / 100):.0f} px" for share in gridding.SHARES)
        peak = f"ripple {self.ripple.peak:.1f} dB at {self.ripple.frequency:.3g} cycles per pixel"
        if min(self.map.shape) < 8:
            peak = "too small for a ripple, which needs 8 px"
        return f"ERF on {size} px: {peak}; {areas}"

    def figure(self) -> "Figure":
        """The map in dB below its strongest pixel, the exact field as a frame, the profile and the ripple."""
        from hdc import plots

        box = None if self.seen is None else (self.seen.paths.origin, self.seen.size)
        return plots.erf_figure(self.map, box, self.ripple.frequencies, self.ripple.decibels)


def effective_receptive_field(
    model: Any,
    images: Any,
    *,
    layer: Output = None,
    at: Sequence[int] | None = None,
    params: Any = None,
    call: Mapping[str, Any] | None = None,
    spatial: Sequence[int] | None = None,
    max_period: int | None = None,
) -> ERF:
    """The effective receptive field of a model's output or of a layer, on your own images.

    Each channel of the output takes one backward pass per image: choose a layer with few channels, or few and
    small images, if it takes long.

    >>> layers = [nnx.Conv(1, 4, (3, 3), kernel_dilation=2, rngs=nnx.Rngs(0)), nnx.relu]
    >>> images = np.random.default_rng(0).normal(size=(2, 32, 32, 1))
    >>> erf = effective_receptive_field(nnx.Sequential(*layers), images)
    >>> erf.map.shape, int((erf.map > 0).sum()), erf.area(1.0)
    ((32, 32), 9, 25.0)

    Args:
        model: a model of any kind that `hdc.analyse` takes, with values. It is evaluated, and not changed.
        images: `[n, ...]`, each as the model takes it, normalised as it was trained on; for Equinox
            `[n, channels, height, width]`.
        layer: the layer by its name, or which of several outputs: `output` of `hdc.analyse`. By default the
            last feature maps of a Flax NNX model that has a method `features`, else the output.
        at: the pixel of the output's map; its centre by default.
        params, call, spatial: as `hdc.analyse` takes them.
        max_period: the longest period of the ripple in pixels, None for 8 or the largest distance between
            neighbouring taps of a layer. At most a quarter of the shorter side counts.

    Raises:
        InputError: as `hdc.analyse`, for images that are no array of `[n, ...]` or not finite, for a model
            without values, and for a place that is not on the map.
    """
    own = _Own(model, images, layer, params, call, spatial)
    return own.erf(at, max_period)


@overload
def measure_gridding(
    graph: nnx.GraphDef,
    state: nnx.State,
    normalise: Callable[[Array], Array],
    images: np.ndarray,
    max_period: int = MAX_PERIOD,
) -> Measured: ...


@overload
def measure_gridding(
    model: Any,
    images: Any,
    *,
    layer: Output = None,
    params: Any = None,
    call: Mapping[str, Any] | None = None,
    spatial: Sequence[int] | None = None,
    max_period: int = MAX_PERIOD,
) -> Measured: ...


def measure_gridding(*arguments: Any, **options: Any) -> Measured:
    """All gridding metrics of a trained model on held-out images: see `hdc.gridding.measure`.

    Call it as `measure_gridding(model, images, layer=...)`, with the arguments of
    `effective_receptive_field`, for a model of any kind; or as `measure_gridding(graph, state, normalise,
    images)` for an NNX model that is split and has a method `features`.

    >>> layers = [nnx.Conv(1, 4, (3, 3), kernel_dilation=2, rngs=nnx.Rngs(0)), nnx.relu]
    >>> images = np.random.default_rng(0).normal(size=(2, 32, 32, 1))
    >>> measured = measure_gridding(nnx.Sequential(*layers), images)
    >>> measured.metrics["erf_area_99"]
    25.0

    Raises:
        InputError: as `effective_receptive_field`, and for an output without a map.
    """
    if "graph" in options or (arguments and isinstance(arguments[0], nnx.GraphDef)):
        return gridding.measure(*arguments, **options)
    return _measure(*arguments, **options)


def _measure(
    model: Any,
    images: Any,
    *,
    layer: Output = None,
    params: Any = None,
    call: Mapping[str, Any] | None = None,
    spatial: Sequence[int] | None = None,
    max_period: int = MAX_PERIOD,
) -> Measured:
    own = _Own(model, images, layer, params, call, spatial)
    erf = own.erf(None, max_period)
    if not erf.at:
        raise InputError(
            "the output has no map in which gridding could be measured: name a layer before it, "
            'such as layer="stem.conv"'
        )
    return gridding.summarised(erf.map, own.maps(), own.images, erf.seen, max_period)


class _Own:
    """One output of a model as a function, and the images that it is evaluated on."""

    def __init__(
        self,
        model: Any,
        images: Any,
        layer: Output,
        params: Any,
        call: Mapping[str, Any] | None,
        spatial: Sequence[int] | None,
    ):
        given = np.asarray(images)
        if given.ndim < 3 or 0 in given.shape or not np.issubdtype(given.dtype, np.number):
            raise InputError(
                "images must be an array of numbers (n, height, width, channels), as the model takes them, "
                f"got shape {given.shape} and type {given.dtype}"
            )
        if not np.isfinite(given).all():
            raise InputError("images must be finite, but some of their values are NaN or infinite")
        if layer is None and isinstance(model, nnx.Module):
            model = getattr(model, "features", model)
        # A kind of model that takes one example has no axis for the batch.
        options: dict[str, Any] = {"params": params, "call": call, "spatial": spatial}
        shape: tuple[int, ...] = (1, *given.shape[1:])
        if models.adapt(model, shape, params=params, call=call).layout.batch is None:
            shape = shape[1:]
        self.analyse = partial(analyse, model, shape, output=layer, **options)
        self.adapted = models.adapt(model, shape, **options)
        without = [one.name for one in self.adapted.parameters if one.is_abstract]
        if without:
            raise InputError(
                f"{self.adapted.name} has no values ({without[0]} is abstract): measure a model with weights"
            )
        if given.ndim == 3 and self.adapted.layout.batch is not None:
            _refuse_one_image(self.adapted.of_batch(2), layer, given.shape)
        self.images = _standard(given, self.adapted.layout)
        self.evaluate = evaluator(self.adapted, layer)
        self.values = self.adapted.values

    def erf(self, at: Sequence[int] | None, max_period: int | None) -> ERF:
        sides = self._sides()
        if not sides and at is not None:
            raise InputError(f"at={at!r}: the output is no map")
        place = tuple(side // 2 for side in sides) if at is None else tuple(at)
        if len(place) != len(sides) or any(not 0 <= i < side for i, side in zip(place, sides, strict=True)):
            raise InputError(f"at={at!r} is not a place on the output's {'x'.join(map(str, sides))} map")
        try:
            seen = self.analyse(at=place or None)
        except InputError:  # it looks elsewhere in every image, say
            seen = None
        # Compiled for this call alone, so that nothing keeps the model alive.
        compiled = jax.jit(partial(_erf_sum, self.evaluate, place))
        total = np.zeros(self.images.shape[1:-1])
        for start in range(0, len(self.images), _BATCH):
            some = jnp.asarray(self.images[start : start + _BATCH])
            total += np.asarray(compiled(self.values, some))
        if max_period is None:
            layers = [] if seen is None else seen.layers
            steps = [
                rate * stride
                for layer in layers
                for rate, stride in zip(layer.rate, layer.input_stride, strict=True)
            ]
            max_period = math.ceil(max([MAX_PERIOD, *steps]))
        return ERF(total / len(self.images), place, seen, max_period)

    def maps(self) -> np.ndarray:
        """What the output is on the images, `[n, space..., channels]`."""
        compiled = jax.jit(self.evaluate)
        parts = (self.images[start : start + _BATCH] for start in range(0, len(self.images), _BATCH))
        return np.concatenate([np.asarray(compiled(self.values, jnp.asarray(part))) for part in parts])

    def _sides(self) -> tuple[int, ...]:
        """Of the output's map; () of an output without one."""
        shape = jax.eval_shape(self.evaluate, self.values, jnp.asarray(self.images[:1])).shape
        return shape[1:-1] if len(shape) == self.images.ndim else ()


def _refuse_one_image(model: models.Model, layer: Output, shape: tuple[int, ...]) -> None:
    """Raise InputError where what would pass for a batch of signals is a side of an image."""
    try:
        annotate(trace(model, layer))
    except AlongBatch:
        raise InputError(
            f"images of shape {shape} are a single image, but a batch is expected: give images[None]"
        ) from None
    except InputError:  # not every model that can be measured can be analysed
        pass


def _standard(images: np.ndarray, layout: Layout) -> np.ndarray:
    """Images as a model takes them to `[n, space..., channels]`."""
    before = int(layout.batch is None)  # such models do not know the axis of the images
    axes = [axis + before for axis in layout.spatial]
    channel = [] if layout.channel is None else [layout.channel + before]
    images = np.transpose(images, (0 if before else layout.batch or 0, *axes, *channel))
    return (images if channel else images[..., None]).astype(np.float32)


def _erf_sum(
    evaluate: Callable[[Sequence[Any], Array], Array],
    at: tuple[int, ...],
    values: Sequence[Any],
    images: Array,
) -> Array:
    """Sum of |dy/dx| over images and the channels of both, `[space...]`."""

    def pixel(x: Array) -> Array:
        y = evaluate(values, x)
        return y[:, *at].reshape(len(x), -1)

    return gridding.gradient_sum(pixel, images)

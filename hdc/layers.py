"""Convolution layers as Flax NNX modules: dense, depthwise, pointwise, depthwise separable, or by name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypedDict, Unpack, cast

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError
from hdc.ops import Padding, batch_norm, conv1d, conv2d, separable_conv1d, separable_conv2d
from hdc.ops.convolution import Padding1d, Pair, check_groups, per_axis

_initializer = nnx.initializers.he_normal()
_chosen: ContextVar[tuple[str, Any]] = ContextVar("layer", default=("standard", None))


class Geometry(TypedDict, total=False):
    """Where a layer's taps lie, with the defaults of `Conv`."""

    rate: Pair
    strides: Pair
    padding: Padding | Padding1d


class Conv(nnx.Module):
    """Convolution with a dilation rate: `[b, h, w, in_features]` to `[b, h', w', out_features]`.

    >>> layer = Conv(3, 16, rate=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((1, 32, 32, 3))).shape
    (1, 32, 32, 16)

    A kernel size of one number in a tuple is for signals, `[b, length, in_features]`:

    >>> layer = Conv(3, 16, (3,), rate=2, padding="CAUSAL", rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((1, 100, 3))).shape
    (1, 100, 16)

    Args:
        in_features, out_features: channels in and out.
        kernel_size: one integer for both axes, or (height, width); of signals (length,).
        rate, strides: one integer, or one per axis.
        groups: feature groups; must divide both numbers of channels.
        padding: "SAME", "VALID" or explicit pairs, see `hdc.ops.conv2d`, and for signals `hdc.ops.conv1d`.
        use_bias: whether to add one bias per output channel.
        rngs: `params` is used. Kernels start He-normal, biases at zero.

    Raises:
        InputError: if the numbers do not fit one another.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Pair = 3,
        *,
        rate: Pair = 1,
        groups: int = 1,
        strides: Pair = 1,
        padding: Padding | Padding1d = "SAME",
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        check_groups(groups, in_features, out_features)
        axes = axes_of(kernel_size)
        self.rate, self.strides = per_axis("rate", rate, axes), per_axis("strides", strides, axes)
        self.groups, self.padding = groups, padding
        shape = (*per_axis("kernel_size", kernel_size, axes), in_features // groups, out_features)
        self.kernel = nnx.Param(_initializer(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """Apply the layer; `relu` adds a ReLU in the same pass."""
        convolve: Any = conv1d if len(self.rate) == 1 else conv2d
        return convolve(
            x,
            self.kernel[...],
            None if self.bias is None else self.bias[...],
            relu=relu,
            rate=self.rate,
            groups=self.groups,
            strides=self.strides,
            padding=self.padding,
        )


class DepthwiseConv(Conv):
    """Convolution with one filter per channel: `[b, h, w, c]` to `[b, h', w', c]`; signals as in `Conv`."""

    def __init__(
        self,
        features: int,
        kernel_size: Pair = 3,
        *,
        use_bias: bool = True,
        rngs: nnx.Rngs,
        **geometry: Unpack[Geometry],
    ):
        super().__init__(
            features, features, kernel_size, groups=features, use_bias=use_bias, rngs=rngs, **geometry
        )


class PointwiseConv(Conv):
    """A 1 x 1 convolution: mixes the channels, `[b, h, w, in_features]` to `[b, h, w, out_features]`.

    With `axes=1` it is for signals: `[b, length, in_features]` to `[b, length, out_features]`.
    """

    def __init__(
        self, in_features: int, out_features: int, *, axes: int = 2, use_bias: bool = True, rngs: nnx.Rngs
    ):
        super().__init__(in_features, out_features, (1,) * axes, use_bias=use_bias, rngs=rngs)


class SeparableConv(nnx.Module):
    """Depthwise separable convolution: a depthwise one without bias, then a pointwise one.

    Takes the arguments of `Conv` except `groups`, and has the same output shape with K*K*in + in*out kernel
    parameters instead of K*K*in*out.

    >>> layer = SeparableConv(8, 16, rate=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((1, 32, 32, 8))).shape
    (1, 32, 32, 16)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Pair = 3,
        *,
        use_bias: bool = True,
        rngs: nnx.Rngs,
        **geometry: Unpack[Geometry],
    ):
        self.depthwise = DepthwiseConv(in_features, kernel_size, use_bias=False, rngs=rngs, **geometry)
        self.pointwise = PointwiseConv(
            in_features, out_features, axes=axes_of(kernel_size), use_bias=use_bias, rngs=rngs
        )

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """Apply the layer; `relu` adds a ReLU in the same pass."""
        depthwise, pointwise = self.depthwise, self.pointwise
        convolve: Any = separable_conv1d if len(depthwise.rate) == 1 else separable_conv2d
        return convolve(
            x,
            depthwise.kernel[...],
            pointwise.kernel[...],
            None if pointwise.bias is None else pointwise.bias[...],
            relu=relu,
            rate=depthwise.rate,
            strides=depthwise.strides,
            padding=depthwise.padding,
        )


@registry.layer("standard")
def standard(options: registry.NoOptions, *features: int, **keywords: Any) -> nnx.Module:
    """A dense convolution, `Conv`."""
    return Conv(*features, **keywords)


@registry.layer("separable")
def separable(options: registry.NoOptions, *features: int, **keywords: Any) -> nnx.Module:
    """A depthwise separable convolution, `SeparableConv`."""
    return SeparableConv(*features, **keywords)


@contextmanager
def layer(name: str, options: Any = None) -> Iterator[None]:
    """Make every layer that `dilated` makes inside the one registered under a name.

    Args:
        name: such as `standard` or `separable`.
        options: an instance of the layer's options, its defaults if None.

    Raises:
        InputError: where no layer has that name.
    """
    registry.find("layer", name)
    token = _chosen.set((name, options))
    try:
        yield
    finally:
        _chosen.reset(token)


def dilated(
    in_features: int,
    features: int,
    kernel_size: Pair = 3,
    *,
    rate: Pair = 1,
    strides: Pair = 1,
    padding: Padding | Padding1d = "SAME",
    use_bias: bool = True,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """A convolution with a dilation rate, as the layer that `net.layer` or `with layer(...)` has chosen.

    Networks make their dilated layers with it, so that a new kind of layer works in all of them.

    >>> with layer("separable"):
    ...     made = dilated(8, 16, rate=2, rngs=nnx.Rngs(0))
    >>> type(made).__name__, made(jnp.zeros((1, 32, 32, 8))).shape
    ('SeparableConv', (1, 32, 32, 16))

    Args:
        in_features, features: channels in and out.
        kernel_size, rate, strides, padding, use_bias, rngs: as `Conv` has them.

    Raises:
        InputError: where what was registered returns no NNX module.
    """
    name, options = _chosen.get()
    part = registry.find("layer", name)
    made = part.make(
        part.options() if options is None else options,
        in_features,
        features,
        rate=rate,
        kernel_size=kernel_size,
        strides=strides,
        padding=padding,
        use_bias=use_bias,
        rngs=rngs,
    )
    if not isinstance(made, nnx.Module):
        raise InputError(f"{part} returned an object of type {type(made).__name__}, not a Flax NNX module")
    return made


def normalised(norm: Any, x: Array, *, residual: Array | None = None, relu: bool = True) -> Array:
    """`norm(x)`, plus the residual, through ReLU: in one pass where it is batch normalisation in training.

    >>> norm = nnx.BatchNorm(8, rngs=nnx.Rngs(0))
    >>> x = jnp.ones((1, 4, 4, 8))
    >>> normalised(norm, x, residual=x).shape
    (1, 4, 4, 8)

    Args:
        norm: a normalisation layer; the running statistics of `nnx.BatchNorm` move as by calling it.
        x: `[b, h, w, c]` or `[b, length, c]`.
        residual: of x's shape.
        relu: whether ReLU is applied at last.
    """
    if type(norm) is nnx.BatchNorm and _is_plain(norm):
        scale, bias = cast(nnx.Param, norm.scale)[...], cast(nnx.Param, norm.bias)[...]
        y, mean, variance = batch_norm(x, scale, bias, residual, relu=relu, epsilon=norm.epsilon)
        for kept, new in ((norm.mean, mean), (norm.var, variance)):
            kept[...] = norm.momentum * kept[...] + (1 - norm.momentum) * new
        return y
    y = norm(x)
    y = y if residual is None else y + residual
    return nnx.relu(y) if relu else y


def _is_plain(norm: nnx.BatchNorm) -> bool:
    """Whether it normalises by the batch's own statistics, over all axes but the last, on one device."""
    own = not norm.use_running_average and norm.axis == -1 and norm.axis_name is None and norm.dtype is None
    return own and norm.use_fast_variance and norm.scale is not None and norm.bias is not None


def axes_of(kernel_size: Pair) -> int:
    """How many spatial axes a layer's kernel size is for: 1 for one number in a tuple, else 2."""
    return 1 if isinstance(kernel_size, Sequence) and len(kernel_size) == 1 else 2


def crop(x: Array, *sides: int) -> Array:
    """The central `sides` of maps `[b, h, w, ...]` or signals; what VALID layers of odd kernels look at."""
    starts = [(length - side) // 2 for length, side in zip(x.shape[1:], sides, strict=False)]
    return x[:, *(slice(start, start + side) for start, side in zip(starts, sides, strict=True))]


def evaluation(model: nnx.Module) -> nnx.Module:
    """The model as it is evaluated: no dropout, running statistics."""
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)

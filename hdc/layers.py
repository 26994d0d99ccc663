"""Convolution layers as Flax NNX modules: dense, depthwise, pointwise, depthwise separable, or by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypedDict, Unpack

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError
from hdc.ops import Padding, conv2d, separable_conv2d
from hdc.ops.convolution import Pair, check_groups, pair

_initializer = nnx.initializers.he_normal()
_chosen: ContextVar[tuple[str, Any]] = ContextVar("layer", default=("standard", None))


class Geometry(TypedDict, total=False):
    """Where a layer's taps lie, with the defaults of `Conv`."""

    rate: Pair
    strides: Pair
    padding: Padding


class Conv(nnx.Module):
    """Convolution with a dilation rate: `[b, h, w, in_features]` to `[b, h', w', out_features]`.

    >>> layer = Conv(3, 16, rate=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((1, 32, 32, 3))).shape
    (1, 32, 32, 16)

    Args:
        in_features, out_features: channels in and out.
        kernel_size, rate, strides: one integer for both axes, or (height, width).
        groups: feature groups; must divide both numbers of channels.
        padding: "SAME", "VALID" or explicit pairs, see `hdc.ops.conv2d`.
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
        padding: Padding = "SAME",
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        check_groups(groups, in_features, out_features)
        self.rate, self.strides = pair("rate", rate), pair("strides", strides)
        self.groups, self.padding = groups, padding
        shape = (*pair("kernel_size", kernel_size), in_features // groups, out_features)
        self.kernel = nnx.Param(_initializer(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """Apply the layer; `relu` adds a ReLU in the same pass."""
        return conv2d(
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
    """Convolution with one filter per channel: `[b, h, w, c]` to `[b, h', w', c]`."""

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
    """A 1 x 1 convolution: mixes the channels, `[b, h, w, in_features]` to `[b, h, w, out_features]`."""

    def __init__(self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs):
        super().__init__(in_features, out_features, 1, use_bias=use_bias, rngs=rngs)


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
        self.pointwise = PointwiseConv(in_features, out_features, use_bias=use_bias, rngs=rngs)

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """Apply the layer; `relu` adds a ReLU in the same pass."""
        depthwise, pointwise = self.depthwise, self.pointwise
        return separable_conv2d(
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
    padding: Padding = "SAME",
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


def crop(x: Array, height: int, width: int) -> Array:
    """The central `height` x `width` of maps `[b, h, w, ...]`; what VALID layers of odd kernels look at."""
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def evaluation(model: nnx.Module) -> nnx.Module:
    """The model as it is evaluated: no dropout, running statistics."""
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)

"""Other dilation rates in a model that is built already."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from hdc.errors import InputError
from hdc.layers import Conv, SeparableConv
from hdc.schedules import MAX_RATE

Rate = int | Sequence[int]

_AGAIN = re.compile(r" \(\d+\)")  # what `analyse` adds to the name of a layer that is used more than once


def replace_rates(model: nnx.Module, rates: Mapping[str, Rate]) -> nnx.Module:
    """A copy of a model whose layers have other dilation rates; its weights are those of the model.

    The model is not changed. The copy has variables of its own: training one leaves the other alone. Padding
    in pixels is scaled with the rate, so that a layer which keeps the size of its map still does. Padding
    that is an operation of its own, such as `jnp.pad` before the layer, is not changed.

    >>> layers = [nnx.Conv(1, 1, (3, 3), kernel_dilation=2, rngs=nnx.Rngs(0)) for _ in range(2)]
    >>> changed = replace_rates(nnx.Sequential(*layers), {"layers.1": 1})
    >>> changed.layers[1].kernel_dilation, layers[1].kernel_dilation
    ((1, 1), 2)

    Args:
        model: a Flax NNX module; abstract ones, of `nnx.eval_shape`, as well.
        rates: by the layer's name, its path in the model as `hdc.analyse` prints it: one rate for all axes,
            or one for each. Layers are `nnx.Conv`, `hdc.Conv` and `hdc.SeparableConv`. One that is used more
            than once changes wherever it is used.

    Raises:
        InputError: for a model that is no NNX module, a name that it does not have, a layer of another kind,
            a rate that is not a positive integer up to `hdc.schedules.MAX_RATE`, and padding in pixels that
            cannot be scaled.
    """
    if not isinstance(model, nnx.Module):
        raise InputError(f"replace_rates takes a Flax NNX module, got {type(model).__name__}")
    if not isinstance(rates, Mapping):
        raise InputError(f'rates must map names to rates, as {{"layers.1": 2}}, got {type(rates).__name__}')
    graph, state = nnx.split(model)
    changed = nnx.merge(graph, jax.tree.map(lambda leaf: leaf, state))  # other variables, the same arrays
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(changed)}
    for name, rate in rates.items():
        layer = modules.get(_AGAIN.sub("", str(name)))
        if isinstance(layer, SeparableConv):
            layer = layer.depthwise
        if not isinstance(layer, Conv | nnx.Conv):
            raise InputError(_no_rate(str(name), layer, modules))
        old = current(layer)
        new = _per_axis(str(name), rate, len(old))
        layer.padding = _scaled(str(name), layer.padding, old, new)
        if isinstance(layer, nnx.Conv):
            layer.kernel_dilation = new
        else:
            layer.rate = new
    return changed


def changeable(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """By name, the rate per axis of every layer that `replace_rates` can change."""
    return {
        ".".join(map(str, path)): current(module)
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Conv | nnx.Conv)
    }


def current(layer: Conv | nnx.Conv) -> tuple[int, ...]:
    """The rate of a layer, per axis."""
    if isinstance(layer, Conv):
        return layer.rate
    axes, rate = len(layer.kernel_shape) - 2, layer.kernel_dilation
    if rate is None or isinstance(rate, int):
        return (rate or 1,) * axes
    return tuple(int(one) for one in rate)


def _no_rate(name: str, layer: object, modules: Mapping[str, nnx.Module]) -> str:
    kinds = "nnx.Conv, hdc.Conv and hdc.SeparableConv"
    known = [one for one, module in modules.items() if isinstance(module, Conv | SeparableConv | nnx.Conv)]
    if not known:
        return f"the model has no layer whose rate can be replaced: these are {kinds}"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    others = f"near it {'is' if len(near) == 1 else 'are'} {', '.join(near)}"
    if layer is None:
        return f"the model has no layer {name!r}; {others} ({len(known)} layers have a rate)"
    return f"layer {name!r} is of type {type(layer).__name__}, which has no rate: {kinds} have one; {others}"


def _per_axis(name: str, rate: Any, axes: int) -> tuple[int, ...]:
    listed = isinstance(rate, Sequence) and not isinstance(rate, str)
    values: tuple[Any, ...] = tuple(rate) if listed else (rate,) * axes
    if any(type(one) is not int or not 1 <= one <= MAX_RATE for one in values) or len(values) != axes:
        raise InputError(
            f"the rate of layer {name!r} must be an integer from 1 to {MAX_RATE}, or {axes} of them, "
            f"got {rate!r}"
        )
    return values


def _scaled(name: str, padding: Any, old: Sequence[int], new: Sequence[int]) -> Any:
    """Padding in pixels, scaled with the rates; padding by name as it is."""
    if isinstance(padding, str):
        return padding
    sides = [padding] * len(old) if isinstance(padding, int) else padding
    pairs = [(side, side) if isinstance(side, int) else tuple(side) for side in sides]
    if len(pairs) == 1:
        pairs *= len(old)
    for pair, before, after in zip(pairs, old, new, strict=True):
        if any(side * after % before for side in pair):
            raise InputError(
                f"layer {name!r} has a padding of {padding} pixels at rate {before}, which does not scale to "
                f"rate {after} in whole pixels: give it padding='SAME', or a rate at which it does"
            )
    return tuple(
        tuple(side * after // before for side in pair)
        for pair, before, after in zip(pairs, old, new, strict=True)
    )

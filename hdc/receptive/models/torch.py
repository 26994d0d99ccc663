"""PyTorch modules: the graph that `torch.export` gives, computed by JAX from a table of operations.

PyTorch is not imported here: whoever has a module of it has imported it.
"""

import math
import operator
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hdc.errors import InputError

Operation = Callable[..., Any]


class Program:
    """A PyTorch module, in evaluation, as a function of its parameters and buffers and of one input.

    Attributes:
        arrays: its parameters and buffers by name, as NumPy arrays, or `jax.ShapeDtypeStruct` on `meta`.
        trained: the names of the parameters.
    """

    def __init__(self, module: Any, call: Mapping[str, Any]):
        self._module, self._call = module, dict(call)
        tensors = dict(module.named_parameters())
        self.trained = frozenset(tensors)
        tensors |= dict(module.named_buffers())
        self.arrays = {name: _array(tensor) for name, tensor in tensors.items()}
        # A tensor that two modules share is one array.
        same = {id(tensor): name for name, tensor in tensors.items()}
        every = [
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ]
        self._names = {name: same[id(tensor)] for name, tensor in every}
        self._exported = cache(self._export)

    def __call__(self, values: Sequence[Any], x: Array) -> Any:
        exported = self._exported(x.shape)
        signature, nodes = exported.graph_signature, exported.graph.nodes
        held = signature.inputs_to_parameters | signature.inputs_to_buffers
        given = dict(zip(self.arrays, values, strict=True))
        known: dict[Any, Any] = {}

        def read(argument: Any) -> Any:
            if isinstance(argument, list | tuple):
                return [read(one) for one in argument]
            return known.get(argument, argument) if type(argument).__name__ == "Node" else argument

        for node in nodes:
            if node.op == "placeholder":
                if node.name in held:
                    known[node] = given[self._names[held[node.name]]]
                elif (constant := signature.inputs_to_lifted_tensor_constants.get(node.name)) is not None:
                    known[node] = jnp.asarray(_array(exported.constants[constant]))
                elif node.name in signature.user_inputs[:1]:
                    known[node] = x
            elif node.op == "call_function":
                options = {name: read(one) for name, one in node.kwargs.items()}
                known[node] = _operation(node)(*map(read, node.args), **options)
            elif node.op == "output":
                pytree = sys.modules["torch.utils._pytree"]
                return _plain(pytree.tree_unflatten(read(node.args[0]), exported.call_spec.out_spec))
        raise AssertionError("a graph ends in its output")

    def _export(self, shape: tuple[int, ...]) -> Any:
        torch, export = sys.modules["torch"], import_module("torch.export")
        modes = [(module, module.training) for module in self._module.modules()]
        tensor = next(iter([*self._module.parameters(), *self._module.buffers()]), torch.empty(0))
        dtype = tensor.dtype if tensor.dtype.is_floating_point else torch.float32
        self._module.eval()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's own, about its own code
                image = torch.zeros(shape, dtype=dtype, device=tensor.device)
                exported = export.export(self._module, (image,), self._call, strict=False)
                return exported.run_decompositions()
        finally:
            for module, training in modes:
                module.training = training


def _array(tensor: Any) -> Any:
    tensor = tensor.detach()
    dtype = np.dtype(np.float32) if tensor.dtype.is_floating_point else np.dtype(str(tensor.dtype)[6:])
    if tensor.is_meta:
        return jax.ShapeDtypeStruct(tuple(tensor.shape), dtype)
    return (tensor.float() if tensor.dtype.is_floating_point else tensor).cpu().numpy()


def _plain(tree: Any) -> Any:
    """A result in containers that JAX knows."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    return type(tree)(map(_plain, tree)) if type(tree) in (list, tuple) else tree


def _operation(node: Any) -> Operation:
    if node.target is operator.getitem:
        return _item
    name = str(node.target).removeprefix("aten.")
    found = OPERATIONS.get(name) or OPERATIONS.get(name.partition(".")[0])
    if found is None:
        raise InputError(
            f"analyse does not know PyTorch's operation {str(node.target)!r}, which the model uses: give a "
            "module that ends before it"
        )
    return found


# --- the operations ---


def _item(values: Sequence[Any], index: int) -> Any:
    if index >= len(values):
        raise InputError(
            "analyse does not follow the places of maxima that a pooling returns, nor statistics"
        )
    return values[index]


def _together(*values: Any) -> list[Any]:
    """Arrays of the same number of axes."""
    rank = max(jnp.ndim(value) for value in values)
    return [
        value
        if jnp.ndim(value) in (0, rank)
        else jnp.reshape(value, (1,) * (rank - value.ndim) + value.shape)
        for value in values
    ]


def _binary(function: Operation) -> Operation:
    return lambda *values: function(*_together(*values))


def _add(sign: int) -> Operation:
    def add(one: Any, other: Any, alpha: Any = 1) -> Array:
        one, other = _together(one, other)
        return one + sign * other if alpha == 1 else one + sign * alpha * other

    return add


def _div(one: Any, other: Any, rounding_mode: str | None = None) -> Array:
    one, other = _together(one, other)
    if rounding_mode is None:
        return one / other
    return jnp.floor_divide(one, other) if rounding_mode == "floor" else jnp.trunc(one / other)


def _clamp(x: Array, low: Any = None, high: Any = None) -> Array:
    return jnp.clip(x, low, high)


def _channels(vector: Any, rank: int) -> Any:
    return jnp.reshape(vector, (1, -1) + (1,) * (rank - 2))


def _batch_norm(
    x: Array, scale: Any, bias: Any, mean: Any, variance: Any, _: float, epsilon: float
) -> list[Array]:
    factor = lax.rsqrt(variance + epsilon)
    x = (x - _channels(mean, x.ndim)) * _channels(factor if scale is None else factor * scale, x.ndim)
    return [x if bias is None else x + _channels(bias, x.ndim)]


def _instance_norm(x: Array, scale: Any, bias: Any, _: bool, momentum: float, epsilon: float) -> list[Array]:
    axes = (0, *range(2, x.ndim))
    return _batch_norm(x, scale, bias, x.mean(axes), x.var(axes), momentum, epsilon)


def _layer_norm(x: Array, shape: Sequence[int], scale: Any, bias: Any, epsilon: float) -> list[Array]:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    x = (x - x.mean(axes, keepdims=True)) * lax.rsqrt(x.var(axes, keepdims=True) + epsilon)
    x = x if scale is None else _binary(jnp.multiply)(x, scale)
    return [x if bias is None else _binary(jnp.add)(x, bias)]


def _group_norm(
    x: Array, scale: Any, bias: Any, n: int, channels: int, _: int, groups: int, epsilon: float
) -> list[Array]:
    y = x.reshape(n, groups, channels // groups, *x.shape[2:])
    axes = tuple(range(2, y.ndim))
    y = (y - y.mean(axes, keepdims=True)) * lax.rsqrt(y.var(axes, keepdims=True) + epsilon)
    y = y.reshape(x.shape)
    y = y if scale is None else y * _channels(scale, x.ndim)
    return [y if bias is None else y + _channels(bias, x.ndim)]


def _convolution(
    x: Array,
    kernel: Array,
    bias: Any,
    strides: Sequence[int],
    padding: Sequence[int],
    rates: Sequence[int],
    transposed: bool,
    more: Sequence[int],
    groups: int,
) -> Array:
    rank = x.ndim - 2
    strides, padding, rates, more = (_each(one, rank) for one in (strides, padding, rates, more))
    space = "DHW"[-rank:]
    places = lax.conv_dimension_numbers(x.shape, kernel.shape, (f"NC{space}", f"OI{space}", f"NC{space}"))
    apart = (1,) * rank
    sides = [(pad, pad) for pad in padding]
    if transposed:
        ins, outs, *taps = kernel.shape
        parted = kernel.reshape(groups, ins // groups, outs, *taps).swapaxes(1, 2)
        kernel = jnp.flip(parted.reshape(groups * outs, ins // groups, *taps), tuple(range(2, x.ndim)))
        widths = [rate * (tap - 1) - pad for rate, tap, pad in zip(rates, taps, padding, strict=True)]
        sides = [(width, width + extra) for width, extra in zip(widths, more, strict=True)]
        apart, strides = strides, (1,) * rank
    y = lax.conv_general_dilated(
        x, kernel, strides, sides, apart, rates, dimension_numbers=places, feature_group_count=groups
    )
    return y if bias is None else y + _channels(bias, y.ndim)


def _each(values: Sequence[int], rank: int) -> tuple[int, ...]:
    return tuple(values) * rank if len(values) == 1 else tuple(values)


def _windows(
    x: Array, taps: Sequence[int], strides: Sequence[int], padding: Any, rates: Any, ceil: bool
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
    """Taps, strides, rates and padding by axis of `x`, whose last axes are pooled."""
    rank = len(taps)
    padding, rates = (_each([one] if isinstance(one, int) else one, rank) for one in (padding, rates))
    strides = tuple(strides) or tuple(taps)
    sides = []
    for length, tap, stride, pad, rate in zip(x.shape[-rank:], taps, strides, padding, rates, strict=True):
        left = length + 2 * pad - rate * (tap - 1) - 1
        outputs = (-(-left // stride) if ceil else left // stride) + 1
        if ceil and (outputs - 1) * stride >= length + pad:  # a window that starts in the padding is left out
            outputs -= 1
        end = (outputs - 1) * stride + rate * (tap - 1) + 1 - length - pad
        sides.append((pad, max(end, 0)))
    before = (1,) * (x.ndim - rank)
    return (*before, *taps), (*before, *strides), (*before, *rates), [(0, 0)] * len(before) + sides


def _max_pool(
    x: Array, taps: Any, strides: Any = (), padding: Any = 0, rates: Any = 1, ceil_mode: bool = False
) -> list[Array]:
    taps, strides, rates, sides = _windows(x, taps, strides, padding, rates, ceil_mode)
    y = lax.reduce_window(x, -jnp.inf, lax.max, taps, strides, sides, window_dilation=rates)
    return [y]


def _avg_pool(
    x: Array,
    taps: Any,
    strides: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    rank = len(taps)
    pads = _each([padding] if isinstance(padding, int) else padding, rank)
    taps, strides, rates, sides = _windows(x, taps, strides, padding, 1, ceil_mode)
    total = lax.reduce_window(x, 0.0, lax.add, taps, strides, sides, window_dilation=rates)
    if divisor_override is not None:
        return total / divisor_override
    divisor = np.ones((1,) * x.ndim)
    for axis in range(x.ndim - rank, x.ndim):
        # What is added on the right for `ceil_mode` counts for nothing.
        pad, (low, _) = pads[axis - x.ndim + rank], sides[axis]
        inside = (-pad, x.shape[axis] + pad) if count_include_pad else (0, x.shape[axis])
        first = np.arange(total.shape[axis]) * strides[axis] - low
        reads = np.add.outer(first, np.arange(taps[axis]))
        counts = ((reads >= inside[0]) & (reads < inside[1])).sum(1)
        divisor = divisor * counts.reshape([-1 if other == axis else 1 for other in range(x.ndim)])
    return total / jnp.asarray(divisor, x.dtype)


def _resampled(x: Array, matrices: Sequence[np.ndarray]) -> Array:
    """The last axes of `x`, each mapped by a matrix `[after, before]`."""
    for axis, matrix in enumerate(matrices, x.ndim - len(matrices)):
        y = lax.dot_general(x, jnp.asarray(matrix, x.dtype), (((axis,), (1,)), ((), ())))
        x = jnp.moveaxis(y, -1, axis)
    return x


def _adaptive(x: Array, sizes: Sequence[int]) -> Array:
    matrices = []
    for length, size in zip(x.shape[-len(sizes) :], sizes, strict=True):
        matrix = np.zeros((size, length))
        for place in range(size):
            first, last = place * length // size, -(-(place + 1) * length // size)
            matrix[place, first:last] = 1 / (last - first)
        matrices.append(matrix)
    return _resampled(x, matrices)


def _linear(x: Array, sizes: Any, corners: bool, factors: Any = None) -> Array:
    matrices = []
    for length, size in _sizes(x, sizes, factors):
        places = np.arange(size) * ((length - 1) / max(size - 1, 1))
        if not corners:
            places = np.maximum((np.arange(size) + 0.5) * (length / size) - 0.5, 0)
        low = np.minimum(np.floor(places).astype(int), length - 1)
        matrix = np.zeros((size, length))
        rows, part = np.arange(size), places - low
        np.add.at(matrix, (rows, low), 1 - part)
        np.add.at(matrix, (rows, np.minimum(low + 1, length - 1)), part)
        matrices.append(matrix)
    return _resampled(x, matrices)


def _nearest(x: Array, sizes: Any, factors: Any = None) -> Array:
    pairs = _sizes(x, sizes, factors)
    for axis, (length, size) in enumerate(pairs, x.ndim - len(pairs)):
        if size % length == 0:
            x = jnp.repeat(x, size // length, axis)
        else:
            x = jnp.take(x, np.arange(size) * length // size, axis, mode="clip")
    return x


def _sizes(x: Array, sizes: Any, factors: Any) -> list[tuple[int, int]]:
    """By axis, the length before and after."""
    if sizes is None:
        lengths = x.shape[-len(factors) :]
        sizes = [math.floor(length * factor) for length, factor in zip(lengths, factors, strict=True)]
        if any(size != length * by for size, length, by in zip(sizes, lengths, factors, strict=True)):
            raise InputError(
                f"analyse does not know an interpolation of {'x'.join(map(str, lengths))} px by the factor "
                f"{factors[0]}, which is no whole number of pixels: interpolate to a size"
            )
    return list(zip(x.shape[-len(sizes) :], sizes, strict=True))


def _sliced(
    x: Array, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    return lax.slice_in_dim(x, *slice(start, end, step).indices(x.shape[axis])[:2], step, axis % x.ndim)


def _slice_scatter(
    x: Array, y: Array, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Array:
    places = [slice(None)] * x.ndim
    places[axis] = slice(start, end, step)
    return jnp.asarray(x).at[tuple(places)].set(y)


def _indexed(x: Array, indices: Sequence[Any]) -> Array:
    given = [slice(None) if one is None else one for one in indices]
    arrays = _together(*(one for one in given if not isinstance(one, slice)))
    return x[tuple(one if isinstance(one, slice) else arrays.pop(0) for one in given)]


def _padded(x: Array, sides: Sequence[int], value: float = 0.0) -> Array:
    pairs = [(0, 0)] * (x.ndim - len(sides) // 2)
    pairs += [(sides[i], sides[i + 1]) for i in range(len(sides) - 2, -1, -2)]
    return lax.pad(x, jnp.asarray(value, x.dtype), [(low, high, 0) for low, high in pairs])


def _expanded(x: Any, sizes: Sequence[int], implicit: bool = False) -> Array:
    x = jnp.reshape(x, (1,) * (len(sizes) - jnp.ndim(x)) + jnp.shape(x))
    return jnp.broadcast_to(x, [x.shape[i] if size == -1 else size for i, size in enumerate(sizes)])


def _split(x: Array, sizes: Sequence[int], axis: int = 0) -> list[Array]:
    return jnp.split(x, np.cumsum(sizes)[:-1], axis)


def _joined(arrays: Sequence[Array], axis: int = 0) -> Array:
    return jnp.concatenate([one for one in arrays if one.shape != (0,)], axis)


def _over(function: Operation) -> Operation:
    """A reduction over some axes, or over all."""

    def reduced(x: Array, axes: Any = None, keep: bool = False, **_: Any) -> Array:
        axes = tuple(axes) if isinstance(axes, list | tuple) and axes else axes
        return function(x, axis=None if axes in ((), []) else axes, keepdims=keep)

    return reduced


def _variance(x: Array, axes: Any = None, correction: Any = 1, keepdim: bool = False) -> Array:
    return x.var(
        None if not axes else tuple(axes), ddof=1 if correction is None else correction, keepdims=keepdim
    )


def _dot(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y)


def _addmm(bias: Array, x: Array, y: Array, *, beta: Any = 1, alpha: Any = 1) -> Array:
    product = jnp.matmul(x, y)
    product = product if alpha == 1 else alpha * product
    return _binary(jnp.add)(product, bias if beta == 1 else beta * bias)


def _gelu(x: Array, *, approximate: str = "none") -> Array:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _strided(x: Array, sizes: Sequence[int], strides: Sequence[int], offset: int = 0) -> Array:
    dense = np.cumprod([1, *x.shape[:0:-1]])[::-1]
    told = [(one, other) for one, other, size in zip(strides, dense, sizes, strict=True) if size > 1]
    if tuple(sizes) != x.shape or offset or any(one != other for one, other in told):
        raise InputError("analyse does not know views with strides (as_strided) of the model's arrays")
    return x


def _as_it_is(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _full(sizes: Sequence[int], value: Any = 0, *, dtype: Any = None, **_: Any) -> Array:
    return jnp.full(tuple(sizes), value, _dtype(dtype))


def _arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, **_: Any) -> Array:
    return jnp.arange(*((0, start) if end is None else (start, end)), step, _dtype(dtype))


def _dtype(dtype: Any) -> Any:
    name = str(dtype).removeprefix("torch.")
    return {"None": None, "float64": jnp.float32, "int64": jnp.int32}.get(name, name)


def _cast(x: Any, *, dtype: Any = None, **_: Any) -> Any:
    return x if dtype is None else jnp.asarray(x).astype(_dtype(dtype))


OPERATIONS: dict[str, Operation] = {
    "convolution": _convolution,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_native_batch_norm_legit.no_stats": _instance_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _avg_pool,
    "_adaptive_avg_pool2d": _adaptive,
    "upsample_bilinear2d.vec": _linear,
    "upsample_nearest2d.vec": _nearest,
    "mean": _over(jnp.mean),
    "sum": _over(jnp.sum),
    "amax": _over(jnp.max),
    "amin": _over(jnp.min),
    "any": _over(jnp.any),
    "var": _variance,
    "addmm": _addmm,
    "mm": _dot,
    "bmm": _dot,
    "_softmax": lambda x, axis, _: jax.nn.softmax(x, axis),
    "view": lambda x, sizes: jnp.reshape(x, sizes),
    "permute": lambda x, order: jnp.transpose(x, order),
    "unsqueeze": lambda x, axis: jnp.expand_dims(x, axis),
    "squeeze": lambda x, axes: jnp.squeeze(x, [a for a in np.atleast_1d(axes).tolist() if x.shape[a] == 1]),
    "select": lambda x, axis, place: lax.index_in_dim(x, place, axis, keepdims=False),
    "index_select": lambda x, axis, places: jnp.take(x, places, axis, mode="clip"),
    "index.Tensor": _indexed,
    "slice": _sliced,
    "slice_scatter": _slice_scatter,
    "split_with_sizes": _split,
    "cat": _joined,
    "expand": _expanded,
    "repeat": lambda x, times: jnp.tile(x, times),
    "flip": lambda x, axes: jnp.flip(x, axes),
    "constant_pad_nd": _padded,
    "where": _binary(lambda test, one, other: jnp.where(test, one, other)),
    "full": _full,
    "arange": _arange,
    "scalar_tensor": lambda value, **options: _full((), value, **options),
    "full_like": lambda x, value, **_: jnp.full(x.shape, value, x.dtype),
    "as_strided": _strided,
    "copy": lambda x, y: _expanded(y, x.shape).astype(x.dtype),
    "clone": _as_it_is,
    "alias": _as_it_is,
    "detach": _as_it_is,
    "_to_copy": _cast,
    "_assert_tensor_metadata": lambda *_, **__: None,
    "add": _add(1),
    "sub": _add(-1),
    "mul": _binary(jnp.multiply),
    "div": _div,
    "clamp": _clamp,
    "hardtanh": _clamp,
    "relu": jax.nn.relu,
    "gelu": _gelu,
    "elu": lambda x, alpha=1.0, *_: jax.nn.elu(x, alpha),
    "leaky_relu": lambda x, slope=0.01: jax.nn.leaky_relu(x, slope),
    **{name: _binary(getattr(jnp, name)) for name in ("maximum", "minimum", "fmod", "remainder")},
    **{name: getattr(jnp, name) for name in ("exp", "log", "sqrt", "abs", "sin", "cos", "tanh")},
    "neg": jnp.negative,
    "rsqrt": lax.rsqrt,
    "erf": lax.erf,
    "log1p": jnp.log1p,
    "sigmoid": jax.nn.sigmoid,
    "pow": _binary(jnp.power),
    **{name: _binary(getattr(operator, name)) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "logical_not": jnp.logical_not,
    "bitwise_or": _binary(jnp.bitwise_or),
    "bitwise_and": _binary(jnp.bitwise_and),
}

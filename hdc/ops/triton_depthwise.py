"""Depthwise convolution for NVIDIA GPUs, as Triton kernels through Pallas: stride 1, any rate and padding.

A program holds a tile of results in registers whose pixels lie `rate` apart, so that each input that it loads
serves every tap that reads it. Sums are in float32 and their order is fixed: equal inputs give equal bits.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pallas_triton

from hdc.ops.gradients import differentiable
from hdc.ops.xla import Pads, Pair

# Measured on an H200 with 3x3 and 5x5 kernels in float32 and bfloat16, among 1, 2 and 4 rows and columns,
# 2, 4 and 8 values a thread, and 2, 4 and 8 warps: these are the fastest or within 10% of it.
_WARPS, _EACH = 4, 4  # warps a program, and values of a result's pixels and channels a thread
_PROGRAMS = 2048  # of a kernel's gradient: each writes its own sums, which are added afterwards


class _Tile(NamedTuple):
    """What a program computes: `rows` x `columns` results, `rate` apart, each of `pixels` x `channels`."""

    rows: int
    columns: int
    pixels: int
    channels: int


class _Shape(NamedTuple):
    """A stride-1 convolution from maps of `source` to maps of `result` (height, width)."""

    batch: int
    channels: int
    source: Pair
    result: tuple[int, ...]
    kernel: tuple[int, ...]
    rate: Pair
    start: Pair  # the first tap of result (0, 0) reads source -start


def _tile(shape: _Shape, columns: int) -> _Tile:
    """As few loads a result as the registers allow, and little beyond the map's edge."""
    rows, columns = (
        min((n for n in (4, 2, 1) if n <= most), key=lambda n: _loads(shape, axis, n))
        for axis, most in ((0, 4), (1, columns))
    )
    channels = shape.channels & -shape.channels
    channels = min(channels, 128) if channels >= 16 else min(64, pl.next_power_of_2(shape.channels))
    return _Tile(rows, columns, max(1, 32 * _WARPS * _EACH // channels), channels)


def _loads(shape: _Shape, axis: int, count: int) -> float:
    """Loads a result along an axis, for `count` results a program."""
    covered = shape.rate[axis] * count * pl.cdiv(shape.result[axis], shape.rate[axis] * count)
    return covered / shape.result[axis] * (count + shape.kernel[axis] - 1) / count


def _apply(x: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
    batch, height, width, channels = x.shape
    lost = [(k - 1) * r for k, r in zip(kernel.shape[:2], rate, strict=True)]
    rows, columns = (n + sum(pad) - less for n, pad, less in zip((height, width), pads, lost, strict=True))
    result, start = (rows, columns), (pads[0][0], pads[1][0])
    shape = _Shape(batch, channels, (height, width), result, kernel.shape[:2], rate, start)
    t = _tile(shape, columns=2 if x.dtype == jnp.float32 else 4)
    count = batch * _groups(shape, 0, t.rows) * _groups(shape, 1, t.columns)

    def body(x_ref, kernel_ref, y_ref):
        channel, known = _channels(shape, t)
        group = pl.program_id(0) * t.pixels + lax.broadcasted_iota(jnp.int32, (t.pixels, 1), 0)
        every = jnp.broadcast_to(channel, (t.pixels, t.channels))  # as the threads hold the results
        weights = {
            (a, b): _load(kernel_ref, (a * shape.kernel[1] + b) * channels + every, known)
            for a in range(shape.kernel[0])
            for b in range(shape.kernel[1])
        }
        image, top, left = _place(shape, t, group)
        totals = {(i, j): jnp.zeros((t.pixels, t.channels), jnp.float32) for i, j in _results(t)}
        for (i, j), seen in _seen(x_ref, shape, t, image, top, left, group < count, channel, known):
            for (a, b), weight in weights.items():
                if (i - a, j - b) in totals:
                    totals[i - a, j - b] += seen * weight
        for (i, j), total in totals.items():
            offset, inside = _result(shape, image, top, left, i, j)
            keep = inside & (group < count) & known
            pallas_triton.store(y_ref.at[offset + channel], total.astype(y_ref.dtype), mask=keep)

    y = pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct((batch * math.prod(result) * channels,), x.dtype),
        grid=(pl.cdiv(count, t.pixels), pl.cdiv(channels, t.channels)),
        compiler_params=pallas_triton.CompilerParams(num_warps=_WARPS, num_stages=1),
        interpret=jax.default_backend() != "gpu",
        name="hdc_depthwise",
    )(x.reshape(-1), kernel.reshape(-1))
    return y.reshape(batch, *result, channels)


def _sums(x: Array, dy: Array, size: Pair, rate: Pair, pads: Pads) -> Array:
    batch, height, width, channels = x.shape
    start = pads[0][0], pads[1][0]
    shape = _Shape(batch, channels, (height, width), dy.shape[1:3], size, rate, start)
    t = _tile(shape, columns=4)
    count = batch * _groups(shape, 0, t.rows) * _groups(shape, 1, t.columns)
    taps = [(a, b) for a in range(size[0]) for b in range(size[1])]
    blocks = pl.cdiv(channels, t.channels)
    steps = pl.cdiv(count, t.pixels * max(1, _PROGRAMS // blocks))
    programs = pl.cdiv(count, t.pixels * steps)

    def body(x_ref, dy_ref, sums_ref):
        channel, known = _channels(shape, t)
        program = pl.program_id(0)

        def step(number, totals):
            first = (program * steps + number) * t.pixels
            group = first + lax.broadcasted_iota(jnp.int32, (t.pixels, 1), 0)
            image, top, left = _place(shape, t, group)
            given = {}
            for i, j in _results(t):
                offset, inside = _result(shape, image, top, left, i, j)
                given[i, j] = _load(dy_ref, offset + channel, inside & (group < count) & known)
            totals = dict(zip(taps, totals, strict=True))
            for (i, j), seen in _seen(x_ref, shape, t, image, top, left, group < count, channel, known):
                for a, b in taps:
                    if (i - a, j - b) in given:
                        totals[a, b] += seen * given[i - a, j - b]
            return tuple(totals.values())

        zeros = jnp.zeros((t.pixels, t.channels), jnp.float32)
        totals = lax.fori_loop(0, steps, step, (zeros,) * len(taps))
        for number, total in enumerate(totals):
            offset = (program * len(taps) + number) * channels + channel
            value = jnp.sum(total, axis=0, keepdims=True)
            pallas_triton.store(sums_ref.at[offset], value, mask=known)

    sums = pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct((programs * len(taps) * channels,), jnp.float32),
        grid=(programs, blocks),
        compiler_params=pallas_triton.CompilerParams(num_warps=_WARPS, num_stages=1),
        interpret=jax.default_backend() != "gpu",
        name="hdc_depthwise_kernel_gradient",
    )(x.reshape(-1), dy.reshape(-1))
    return sums.reshape(programs, *size, 1, channels).sum(axis=0)


def _groups(shape: _Shape, axis: int, count: int) -> int:
    """Groups of `count` results, `rate` apart, that cover an axis."""
    return shape.rate[axis] * pl.cdiv(shape.result[axis], shape.rate[axis] * count)


def _results(t: _Tile) -> list[Pair]:
    return [(i, j) for i in range(t.rows) for j in range(t.columns)]


def _channels(shape: _Shape, t: _Tile) -> tuple[Array, Array]:
    """The program's channels `[1, t.channels]`, and which of them there are."""
    channel = pl.program_id(1) * t.channels + lax.broadcasted_iota(jnp.int32, (1, t.channels), 1)
    return channel, channel < shape.channels


def _place(shape: _Shape, t: _Tile, group: Array) -> tuple[Array, Array, Array]:
    """Image, row and column of the first result of each group."""
    found = []
    for axis, count in ((1, t.columns), (0, t.rows)):
        number = jnp.int32(_groups(shape, axis, count))
        rate = jnp.int32(shape.rate[axis])
        within, group = lax.rem(group, number), lax.div(group, number)
        found.append(lax.div(within, rate) * (rate * count) + lax.rem(within, rate))
    return group, found[1], found[0]


def _seen(ref, shape, t, image, top, left, some, channel, known):
    """Yield each input of the tile's results: its place, in steps of `rate`, and `[pixels, channels]`."""
    height, width = shape.source
    columns = [left + (j * shape.rate[1] - shape.start[1]) for j in range(t.columns + shape.kernel[1] - 1)]
    for i in range(t.rows + shape.kernel[0] - 1):
        row = top + (i * shape.rate[0] - shape.start[0])
        inside = some & (row >= 0) & (row < height)
        base = (image * height + row) * width
        for j, column in enumerate(columns):
            keep = inside & (column >= 0) & (column < width) & known
            yield (i, j), _load(ref, (base + column) * shape.channels + channel, keep)


def _result(shape: _Shape, image: Array, top: Array, left: Array, i: int, j: int) -> tuple[Array, Array]:
    """Offset of the first channel of a tile's result, and whether it is on the map."""
    row, column = top + i * shape.rate[0], left + j * shape.rate[1]
    height, width = shape.result
    return ((image * height + row) * width + column) * shape.channels, (row < height) & (column < width)


def _load(ref, offset: Array, keep: Array) -> Array:
    return pallas_triton.load(ref.at[offset], mask=jnp.broadcast_to(keep, offset.shape), other=0).astype(
        jnp.float32
    )


depthwise = differentiable(_apply, _sums, depthwise=True)

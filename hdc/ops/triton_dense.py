"""Dense convolution of few channels for NVIDIA GPUs, as Triton kernels through Pallas: stride 1, any rate.

Each is an implicit matrix product: a program loads, tap by tap, what its pixels read. cuDNN is faster for
many channels; for few its kernels idle, and networks side by side (vmap) become groups, for which it is slow.
Sums are in float32 (products of float32 in TF32, as XLA's default) and their order is fixed.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pallas_triton

from hdc.ops.gradients import differentiable
from hdc.ops.xla import Pads, Pair

# Measured on an H200 with 16 channels on 8 maps of 64x64, for one network and for 16 side by side.
_PIXELS, _WARPS, _STAGES = 128, 4, 3  # of a program of the convolution
_SUMMED, _PROGRAMS = 64, 2048  # pixels at a time and programs of a kernel's gradient
_SUMS = 80  # of a kernel's gradient, a thread


def _apply(x: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
    batch, height, width, channels = x.shape
    rows, columns = (
        n + sum(pad) - (k - 1) * r
        for n, pad, k, r in zip((height, width), pads, kernel.shape[:2], rate, strict=True)
    )
    taps, features = kernel.shape[0] * kernel.shape[1], kernel.shape[3]
    pixels = batch * rows * columns
    known_channels, known_features = _block(channels), _block(features)

    def body(x_ref, kernel_ref, y_ref):
        pixel = pl.program_id(0) * _PIXELS + lax.broadcasted_iota(jnp.int32, (_PIXELS, 1), 0)
        channel = lax.broadcasted_iota(jnp.int32, (1, known_channels), 1)

        def step(tap, total):
            offset, inside = _seen(pixel, pixels, (rows, columns), x.shape, tap, kernel.shape[1], rate, pads)
            seen = _load(x_ref, offset + channel, inside & (channel < channels))
            feature = lax.broadcasted_iota(jnp.int32, (known_features, 1), 0)
            offset = (tap * features + feature) * channels + channel
            weight = _load(kernel_ref, offset, (feature < features) & (channel < channels))
            return total + _product(seen, weight, over=1)

        zeros = jnp.zeros((_PIXELS, known_features), jnp.float32)
        total = lax.fori_loop(0, taps, step, zeros)
        feature = lax.broadcasted_iota(jnp.int32, (1, known_features), 1)
        keep = jnp.broadcast_to((pixel < pixels) & (feature < features), total.shape)
        pallas_triton.store(y_ref.at[pixel * features + feature], total.astype(y_ref.dtype), mask=keep)

    y = pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct((pixels * features,), x.dtype),
        grid=(pl.cdiv(pixels, _PIXELS),),
        compiler_params=pallas_triton.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=jax.default_backend() != "gpu",
        name="hdc_dense",
    )(x.reshape(-1), kernel.swapaxes(2, 3).reshape(-1))  # the product's axis last, as TF32 wants it
    return y.reshape(batch, rows, columns, features)


def _sums(x: Array, dy: Array, size: Pair, rate: Pair, pads: Pads) -> Array:
    channels, (batch, rows, columns, features) = x.shape[3], dy.shape
    taps, pixels = size[0] * size[1], batch * rows * columns
    block = _block(channels), _block(features)
    steps = pl.cdiv(pixels, _SUMMED * _PROGRAMS)
    programs = pl.cdiv(pixels, _SUMMED * steps)
    threads = pl.next_power_of_2(taps * block[0] * block[1] // _SUMS)

    def body(x_ref, dy_ref, sums_ref):
        channel, feature = (lax.broadcasted_iota(jnp.int32, (1, n), 1) for n in block)
        program = pl.program_id(0)

        def step(number, totals):
            first = (program * steps + number) * _SUMMED
            pixel = first + lax.broadcasted_iota(jnp.int32, (_SUMMED, 1), 0)
            given = _load(dy_ref, pixel * features + feature, (pixel < pixels) & (feature < features))
            found = []
            for tap, total in enumerate(totals):
                offset, inside = _seen(pixel, pixels, (rows, columns), x.shape, tap, size[1], rate, pads)
                seen = _load(x_ref, offset + channel, inside & (channel < channels))
                found.append(total + _product(seen, given, over=0))
            return tuple(found)

        totals = lax.fori_loop(0, steps, step, (jnp.zeros(block, jnp.float32),) * taps)
        row = lax.broadcasted_iota(jnp.int32, (block[0], 1), 0)
        keep = jnp.broadcast_to((row < channels) & (feature < features), block)
        for tap, total in enumerate(totals):
            offset = ((program * taps + tap) * channels + row) * features + feature
            pallas_triton.store(sums_ref.at[offset], total, mask=keep)

    sums = pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct((programs * taps * channels * features,), jnp.float32),
        grid=(programs,),
        compiler_params=pallas_triton.CompilerParams(num_warps=min(max(1, threads // 32), 8), num_stages=2),
        interpret=jax.default_backend() != "gpu",
        name="hdc_dense_kernel_gradient",
    )(x.reshape(-1), dy.reshape(-1))
    return sums.reshape(programs, *size, channels, features).sum(axis=0)


def _block(channels: int) -> int:
    """Channels of a matrix product: at least 16, a power of 2."""
    return max(16, pl.next_power_of_2(channels))


def _seen(pixel, pixels, result, source, tap, across, rate, pads):
    """Where in x a tap reads its first channel for each pixel of the result, and whether that is inside."""
    _, height, width, channels = source
    rest, column = lax.div(pixel, jnp.int32(result[1])), lax.rem(pixel, jnp.int32(result[1]))
    image, row = lax.div(rest, jnp.int32(result[0])), lax.rem(rest, jnp.int32(result[0]))
    tap = jnp.int32(tap)
    row += lax.div(tap, jnp.int32(across)) * rate[0] - pads[0][0]
    column += lax.rem(tap, jnp.int32(across)) * rate[1] - pads[1][0]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (pixel < pixels)
    return ((image * height + row) * width + column) * channels, inside


def _load(ref, offset: Array, keep: Array) -> Array:
    return pallas_triton.load(ref.at[offset], mask=jnp.broadcast_to(keep, offset.shape), other=0)


def _product(a: Array, b: Array, over: int) -> Array:
    contracted = (((over,), (over,)), ((), ()))
    return lax.dot_general(a, b, contracted, preferred_element_type=jnp.float32)


dense = differentiable(_apply, _sums, depthwise=False)

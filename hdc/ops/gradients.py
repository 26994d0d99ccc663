"""The gradients of a stride-1 convolution, whatever computes it: both are convolutions again."""

from collections.abc import Callable

from jax import Array, custom_vjp

from hdc.ops.xla import Pads, Pair

Convolution = Callable[[Array, Array, Pair, Pads], Array]
KernelGradient = Callable[[Array, Array, Pair, Pair, Pads], Array]


def differentiable(apply: Convolution, sums: KernelGradient, *, depthwise: bool) -> Convolution:
    """A convolution with gradients of any order, from two functions that have none.

    Args:
        apply: `(x, kernel, rate, pads)` to y; pads as in `xla.conv2d`.
        sums: `(x, dy, kernel size, rate, pads)` to the gradient by the kernel.
        depthwise: whether kernels are `[kh, kw, 1, c]`; else `[kh, kw, c, f]`.
    """

    convolution = custom_vjp(apply, nondiff_argnums=(2, 3))
    kernel_gradient = custom_vjp(sums, nondiff_argnums=(2, 3, 4))

    def by_input(dy: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
        """The turned kernel over dy, padded by what the taps reach beyond."""
        reach = [(k - 1) * r for k, r in zip(kernel.shape[:2], rate, strict=True)]
        top, bottom, left, right = (far - pad for far, both in zip(reach, pads, strict=True) for pad in both)
        turned = kernel[::-1, ::-1]
        turned = turned if depthwise else turned.swapaxes(2, 3)
        return convolution(dy, turned, rate, ((top, bottom), (left, right)))

    def forward(x: Array, kernel: Array, rate: Pair, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
        return convolution(x, kernel, rate, pads), (x, kernel)

    def backward(rate: Pair, pads: Pads, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        x, kernel = kept
        gradient = kernel_gradient(x, dy, (kernel.shape[0], kernel.shape[1]), rate, pads)
        return by_input(dy, kernel, rate, pads), gradient.astype(kernel.dtype)

    def gradient_forward(
        x: Array, dy: Array, size: Pair, rate: Pair, pads: Pads
    ) -> tuple[Array, tuple[Array, Array]]:
        return kernel_gradient(x, dy, size, rate, pads), (x, dy)

    def gradient_backward(
        size: Pair, rate: Pair, pads: Pads, kept: tuple[Array, Array], cotangent: Array
    ) -> tuple[Array, Array]:
        x, dy = kept
        cotangent = cotangent.astype(dy.dtype)
        return by_input(dy, cotangent, rate, pads), convolution(x, cotangent, rate, pads)

    convolution.defvjp(forward, backward)
    kernel_gradient.defvjp(gradient_forward, gradient_backward)
    return convolution

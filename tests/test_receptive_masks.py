"""`analyse` where constants mask out parts of maps, or parameters decide where a model reads."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from jax.scipy.ndimage import map_coordinates
from test_receptive import Model, conv, made, of, pixels, reached

from hdc.errors import InputError
from hdc.receptive import analyse

LENGTH = 24
ROW = np.float32(np.arange(LENGTH) % 2 == 0)[None, :, None]
PAIR = np.float32([[[[1], [0]]]])
HALF = np.arange(0, LENGTH - 1, 0.5, np.float32)  # every second one lies on a pixel


def interpolated(x: jax.Array) -> jax.Array:
    return map_coordinates(x[0, :, 0], [jnp.asarray(HALF)], order=1)[None, :, None]


def weighed(x: jax.Array) -> jax.Array:
    low = np.floor(HALF).astype(int)
    part = jnp.asarray(HALF - low)[None, :, None]
    return x[:, low] * (1 - part) + x[:, low + 1] * part


MASKS: dict[str, tuple[Callable, int]] = {
    "times": (lambda m, x: m.one(x * ROW), 3),
    "where": (lambda m, x: m.one(jnp.where(ROW > 0, x, 0)), 3),
    "where not": (lambda m, x: m.one(jnp.where(ROW > 0, 5.0, x)), 2),
    "and": (lambda m, x: m.one(jnp.where((x > -9) & (ROW > 0), x, 0)), 3),
    "shifted": (lambda m, x: m.one(jnp.sin(x * ROW + 1)), 3),
    "two sides": (lambda m, x: m.one(x * ROW + jnp.roll(x, 1, axis=1) * (1 - ROW)), 3),
    "chosen": (lambda m, x: m.one(jnp.where(ROW > 0, x, jnp.roll(x, 1, axis=1))), 3),
    "between": (lambda m, x: m.two(m.one(x) * ROW), 9),
    "twice": (lambda m, x: m.two(jax.nn.gelu(m.one(x * ROW)) * ROW), 5),
    "pooled": (lambda m, x: nnx.avg_pool(x * ROW, (4,), strides=(1,), padding="SAME"), 2),
    "stacked": (lambda m, x: m.one(jnp.stack([x * ROW, jnp.zeros(x.shape)], 1).sum(axis=1)), 3),
    "reshaped": (
        lambda m, x: m.one((x.reshape(1, -1, 2, 1) * np.float32([[[[1], [0]]]])).reshape(x.shape)),
        3,
    ),
    "all": (lambda m, x: x + m.one(x) * 0.0, 1),
    "map_coordinates": (lambda m, x: interpolated(x), 1),
    "between two": (lambda m, x: interpolated(x)[:, 1:], 2),
    "by hand": (lambda m, x: m.two(weighed(x)), 3),
    "branch": (lambda m, x: jax.lax.cond(jnp.ones(()) > 0, lambda x: x, m.one, x), 1),
    "gathered": (lambda m, x: m.one(x[:, np.arange(LENGTH)] * ROW[:, ::-1]), 2),
}


@pytest.mark.parametrize("at", [12, 1])
@pytest.mark.parametrize("name", list(MASKS))
def test_constant_masks_hide_what_they_hide(name: str, at: int) -> None:
    call, seen = MASKS[name]
    parts = {
        part: reference.filled(lambda taps=taps: nnx.Conv(1, 1, (taps,), rngs=nnx.Rngs(0)))
        for part, taps in (("one", 5), ("two", 5))
    }
    model = Model(call, **parts)
    analysis = analyse(model, (1, LENGTH, 1), (at,))
    np.testing.assert_array_equal(analysis.support, reached(model, (1, LENGTH, 1), (at,)))
    assert analysis.support.sum() == seen or at == 1


@pytest.mark.parametrize("mask", [-100, -88, -1e9])
@pytest.mark.parametrize("by", ["added", "subtracted", "chosen", "smaller"])
def test_scores_far_below_the_others_are_not_read(mask: float, by: str) -> None:
    band = np.abs(np.arange(9)[:, None] - np.arange(9)) <= 2
    bias = jnp.asarray(np.where(band, 0, np.float32(mask)))[None]
    far = jnp.asarray(np.where(band, 1e9, np.float32(mask)))[None]

    def call(model: Model, x: jax.Array) -> jax.Array:
        scores = model.query(x) @ x.swapaxes(1, 2)
        masked = {
            "added": lambda: scores + bias,
            "subtracted": lambda: scores - -bias,
            "chosen": lambda: jnp.where(band, scores, mask),
            "smaller": lambda: jnp.minimum(scores, far),
        }
        return nnx.softmax(masked[by]()) @ x

    query = made(lambda rngs: nnx.Linear(4, 4, rngs=rngs))
    analysis = of(call, (1, 9, 4), (4,), query=query)
    assert pixels(analysis.support) == {(place,) for place in range(2, 7)}


def test_a_pointwise_function_of_a_masked_map_is_one_path() -> None:
    def call(model: Model, x: jax.Array) -> jax.Array:
        y = model.single(x) * ROW
        return jnp.concatenate([model.wide(x), y * jax.nn.sigmoid(y) + y], axis=-1)

    parts = {"wide": conv(2, 2, (3,)), "single": conv(2, 2, (1,))}
    for at, counts in ((12, [1, 2, 1]), (13, [1, 1, 1])):
        shares = of(call, (1, LENGTH, 2), (at,), **parts).path_counts
        np.testing.assert_allclose(shares, np.array(counts) / sum(counts), rtol=0, atol=1e-12)


def test_a_factor_that_is_not_known_is_refused_and_statistics_are_no_masks() -> None:
    mask = nnx.Variable(jax.ShapeDtypeStruct((1, 9, 1), jnp.float32))
    with pytest.raises(InputError, match="depends on the value of mask, which is not known"):
        of(lambda model, x: x * model.mask[...], (1, 9, 1), mask=mask)
    norm: Any = made(lambda rngs: nnx.BatchNorm(1, use_scale=False, use_bias=False, rngs=rngs))
    assert of(lambda model, x: model.norm(x), (1, 9, 1), norm=norm).support.sum() == 1


# --- where parameters decide ---

NUMBERS = ("NHC", "HIO", "NHC")


def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=NUMBERS)


def spaced(model: Model, x: jax.Array) -> jax.Array:
    """Learnable spacings: each weight lies at a position, between two taps."""
    taps = jnp.maximum(0, 1 - jnp.abs(jnp.arange(9.0) - model.position[...]))
    return convolved(x, taps[:, None, None] * model.weight[...])


def bells(model: Model, x: jax.Array) -> jax.Array:
    taps = jnp.exp(-(((jnp.arange(9.0) - model.position[...]) / 0.2) ** 2))
    return convolved(x, taps[:, None, None] * model.weight[...])


def cut(model: Model, x: jax.Array) -> jax.Array:
    return convolved(x, jnp.where(jnp.arange(9)[:, None, None] < model.position[...], model.weight[...], 0))


def gated(model: Model, x: jax.Array) -> jax.Array:
    return model.conv(x * (jnp.arange(32)[None, :, None] > 2 * model.position[...]))


def moved(model: Model, x: jax.Array) -> jax.Array:
    return jnp.take(model.conv(x), jnp.round(model.position[...] + jnp.arange(16.0)).astype(int), axis=1)


def switched(model: Model, x: jax.Array) -> jax.Array:
    return jax.lax.cond(model.position[...] > 4, model.conv, lambda x: x, x)


LEARNED: dict[str, tuple[Callable, float, int]] = {
    "on a tap": (spaced, 6.0, 1),
    "between taps": (spaced, 2.25, 2),
    "bells": (bells, 6.0, 3),
    "cut": (cut, 2.5, 3),
    "gated": (gated, 8.0, 1),
    "moved": (moved, 3.0, 3),
    "switched": (switched, 3.0, 1),
    "switched on": (switched, 5.0, 3),
}


def learned(name: str, *, weight: float = 1.0) -> Model:
    call, position, _ = LEARNED[name]
    return Model(
        call,
        conv=reference.filled(lambda: nnx.Conv(1, 1, (3,), rngs=nnx.Rngs(0))),
        position=nnx.Param(jnp.float32(position)),
        weight=nnx.Param(jnp.full((9, 1, 1), weight)),
    )


@pytest.mark.parametrize("name", list(LEARNED))
def test_the_values_of_parameters_that_decide_where_are_followed(name: str) -> None:
    at = (15,) if name == "moved" else (16,)
    analysis = analyse(learned(name), (1, 32, 1), at)
    np.testing.assert_array_equal(analysis.support, reached(learned(name), (1, 32, 1), at))
    assert analysis.support.sum() == LEARNED[name][2]
    assert analysis.assumed == ()
    # A weight that starts at zero is learned.
    again = analyse(learned(name, weight=0.0), (1, 32, 1), at)
    np.testing.assert_array_equal(again.support, analysis.support)


@pytest.mark.parametrize("name", list(LEARNED))
def test_without_their_values_the_model_is_refused_or_the_field_is_a_bound(name: str) -> None:
    model = nnx.eval_shape(lambda: learned(name))
    if name.startswith(("gated", "switched")):
        analysis = analyse(model, (1, 32, 1), (16,))
        assert (analysis.assumed, analysis.support.sum()) == (("position",), 3)
        assert "an upper bound: position, which has no value" in repr(analysis)
    else:
        with pytest.raises(InputError, match="the value of position, which is not known: analyse a model wi"):
            analyse(model, (1, 32, 1))


def test_weights_that_are_computed_are_weights() -> None:
    shapes = {"kernel": (3, 2, 2), "scale": (2,), "more": (3, 2, 2)}
    weights = {name: nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32)) for name, shape in shapes.items()}
    causal = np.float32([1, 1, 0])[:, None, None]

    def standardised(model: Model, x: jax.Array) -> jax.Array:
        kernel = model.kernel[...]
        return convolved(
            x, (kernel - kernel.mean()) / jnp.sqrt(kernel.var() + 1e-5) * model.scale[...][None, None]
        )

    def normalised(model: Model, x: jax.Array) -> jax.Array:
        kernel = model.kernel[...]
        return convolved(x, kernel / jnp.maximum(jnp.sqrt((kernel**2).sum()), 1e-12) + model.more[...])

    def masked(model: Model, x: jax.Array) -> jax.Array:
        return convolved(x, model.kernel[...] * causal + causal * jax.nn.sigmoid(model.more[...]))

    def cancelled(model: Model, x: jax.Array) -> jax.Array:
        return convolved(x, model.kernel[...] - model.kernel[...] * (1 - causal))

    for call, seen in ((standardised, 3), (normalised, 3), (masked, 2), (cancelled, 2)):
        assert of(call, (1, 9, 2), (4,), **weights).support.sum() == seen
    scaled = of(
        lambda model, x: x * (causal.reshape(1, 3, 1) * model.scale[...][None, None]),
        (1, 3, 2),
        (1,),
        **weights,
    )
    assert scaled.support.sum() == 1
    with pytest.raises(InputError, match="does not depend on its input at"):
        of(
            lambda model, x: x * (causal.reshape(1, 3, 1) * model.scale[...][None, None]),
            (1, 3, 2),
            (2,),
            **weights,
        )

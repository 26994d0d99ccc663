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

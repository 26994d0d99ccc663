"""`analyse` at the edges of maps: circular and reflecting padding, padding by hand, dead inputs."""

import itertools
from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from test_receptive import Model, made, of, pixels, reached

from hdc.errors import InputError
from hdc.receptive import Analysis, analyse

# --- circular padding ---


def circular(rates: list[int], taps: int = 3) -> nnx.Sequential:
    def layer(rate: int) -> nnx.Conv:
        return nnx.Conv(1, 1, (taps,), kernel_dilation=rate, padding="CIRCULAR", rngs=nnx.Rngs(0))

    return reference.filled(lambda: nnx.Sequential(*map(layer, rates)), positive=True)


@pytest.mark.parametrize("at", [11, 0, 21])
@pytest.mark.parametrize("rates", [[11], [1, 2, 22], [22, 3], [25], [50, 7], [1, 30]])
def test_a_circular_map_goes_on_around_its_edge_however_often(rates: list[int], at: int) -> None:
    model = circular(rates)
    analysis = analyse(model, (1, 22, 1), (at,))
    offsets = {sum(choice) for choice in itertools.product(*[(-rate, 0, rate) for rate in rates])}
    assert pixels(analysis.support) == {((at + offset) % 22,) for offset in offsets}
    np.testing.assert_array_equal(analysis.support, reached(model, (1, 22, 1), (at,)))
    # As if it had no edge, and no tap in any padding.
    assert (analysis.within_edges, analysis.size) == (False, (2 * sum(rates) + 1,))
    assert analysis.paths.origin == (at - sum(rates),)
    assert {place - sum(rates) for (place,) in pixels(analysis.paths.seen)} == offsets
    assert [layer.padding_share for layer in analysis.layers] == [0] * len(rates)


def rules(analysis: Analysis) -> dict[str, str]:
    return {finding.rule: finding.message for finding in analysis.findings}


@pytest.mark.parametrize(
    ("rate", "read"), [(11, "only 2 different pixels"), (22, "the same pixel"), (25, ""), (10, "")]
)
def test_taps_that_meet_around_a_circular_edge_are_found(rate: int, read: str) -> None:
    found = rules(analyse(circular([rate]), (1, 22, 1)))
    assert len({tap * rate % 22 for tap in range(3)}) == {"": 3, "the same pixel": 1}.get(read, 2)
    assert "padding" not in found
    assert ("rate and map" in found) == bool(read)
    assert found.get("rate and map", read).endswith(read)


@pytest.mark.parametrize(("rate", "length", "apart"), [(11, 21, False), (11, 22, True), (2, 9, True)])
def test_neighbours_may_share_pixels_around_a_circular_edge(rate: int, length: int, apart: bool) -> None:
    first, second = ({(place + tap * rate) % length for tap in (-1, 0, 1)} for place in (0, 1))
    assert first.isdisjoint(second) == apart
    assert ("common factor" in rules(analyse(circular([rate]), (1, length, 1)))) == apart


def test_a_map_that_is_tiled_keeps_its_places() -> None:
    for at in (3, 12, 24):
        analysis = of(lambda model, x: jnp.concatenate([x, x, x], axis=1), (1, 9, 1), (at,))
        assert (pixels(analysis.support), analysis.paths.origin) == ({(at % 9,)}, (at % 9,))


# --- padding by hand ---

AROUND = np.arange(-2, 12) % 10
PADDING: dict[str, tuple[Callable, bool]] = {
    "zeros put beside": (lambda x: jnp.concatenate([jnp.zeros((1, 2, 1)), x, jnp.ones((1, 2, 1))], 1), True),
    "zeros around": (lambda x: jnp.zeros((1, 14, 1)).at[:, 2:12].set(x), False),
    "taken around": (lambda x: x[:, AROUND], False),
    "taken at the edge": (lambda x: x[:, np.arange(-2, 12).clip(0, 9)], False),
    "turned": (lambda x: jnp.concatenate([x[:, 1::-1], x, x[:, :-3:-1]], 1), False),
}


@pytest.mark.parametrize("at", range(10))
@pytest.mark.parametrize("name", list(PADDING))
def test_padding_by_hand_is_continued_or_said_to_be_an_edge(name: str, at: int) -> None:
    pad, goes_on = PADDING[name]
    layer = reference.filled(lambda: nnx.Conv(1, 1, (5,), padding="VALID", rngs=nnx.Rngs(0)))
    model = Model(lambda model, x: model.conv(pad(x)), conv=layer)
    analysis = analyse(model, (1, 10, 1), (at,))
    np.testing.assert_array_equal(analysis.support, reached(model, (1, 10, 1), (at,)))
    assert analysis.output_stride == (1,)
    inside = 2 <= at <= 7
    assert analysis.within_edges == (not inside and not goes_on)
    if not analysis.within_edges:
        assert (analysis.size, analysis.paths.origin) == ((5,), (at - 2,))


# --- what is said ---


def test_what_is_the_same_in_many_layers_is_said_once() -> None:
    layers = [nnx.Conv(1, 1, (3, 3), kernel_dilation=9, rngs=nnx.Rngs(0)) for _ in range(5)]
    for count, where in ((2, "layers.0, layers.1"), (5, "layers.0 and 4 others")):
        found = analyse(nnx.Sequential(*layers[:count]), (1, 12, 12, 1)).findings
        assert [finding.where for finding in found if finding.rule == "padding"] == [where]


def test_a_shape_with_the_channels_first_is_refused_or_its_reading_is_said() -> None:
    wide = nnx.Conv(32, 2, (3, 3), rngs=nnx.Rngs(0))
    first = "channels last: a 3x32 map of 32 channels; if the channels come first, give (1, 32, 32, 3) and a"
    assert first in repr(analyse(wide, (1, 3, 32, 32)))
    assert "read with" not in repr(analyse(wide, (1, 32, 32, 32)))
    narrow = nnx.Conv(3, 2, (3, 3), rngs=nnx.Rngs(0))
    turned = Model(lambda model, x: model.conv(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), conv=narrow)
    with pytest.raises(InputError, match="a model that takes the channels last"):
        analyse(turned, (1, 3, 32, 32))


def test_a_convolution_over_the_channels_of_a_summary_is_followed() -> None:
    """As in efficient channel attention."""

    def call(model: Model, x: jax.Array) -> jax.Array:
        weights = model.over(x.mean(axis=(1, 2))[..., None])[..., 0]
        return x * nnx.sigmoid(weights)[:, None, None]

    over = nnx.Conv(1, 1, (3,), rngs=nnx.Rngs(0))
    assert of(call, (1, 6, 6, 4), over=over).couplings == ("over",)


def test_taking_places_warns_of_nothing() -> None:
    analysis = of(lambda model, x: jnp.take(x, jnp.array([1, 3, 5]), axis=1), (1, 8, 1))
    assert pixels(analysis.support) == {(3,)}


@pytest.mark.parametrize("order", ["hw", "wh"])
def test_weights_of_both_axes_in_one_matrix_resample_each(order: str) -> None:
    rows, columns = (np.repeat(np.eye(n), by, axis=1) for n, by in ((4, 3), (5, 2)))
    weights = np.einsum("ha,wb->hwab", rows, columns).transpose(2, 3, 0, 1)
    if order == "wh":
        weights = weights.transpose(1, 0, 2, 3)

    def call(model: Model, x: jax.Array) -> jax.Array:
        large = jnp.einsum(f"bhwc,{order.upper()}hw->bHWc", x, weights)
        return model.conv(large)

    model = Model(call, conv=reference.filled(lambda: nnx.Conv(1, 1, (3, 3), rngs=nnx.Rngs(0))))
    analysis = analyse(model, (1, 4, 5, 1), (6, 4))
    np.testing.assert_array_equal(analysis.support, reached(model, (1, 4, 5, 1), (6, 4)))
    assert analysis.output_stride == (Fraction(1, 3), Fraction(1, 2))


def test_the_image_pooling_of_a_whole_head_is_a_coupling() -> None:
    """That of DeepLabV3, with so many channels that einsum resizes along both axes at once."""

    class Pyramid(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.one, self.far = (
                nnx.Conv(64, 256, (1, 1), rngs=rngs),
                nnx.Conv(64, 256, (3, 3), kernel_dilation=6, rngs=rngs),
            )
            self.image, self.out = nnx.Conv(64, 256, (1, 1), rngs=rngs), nnx.Conv(768, 256, (1, 1), rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            pooled = self.image(x.mean(axis=(1, 2), keepdims=True))
            pooled = jax.image.resize(pooled, (*x.shape[:3], 256), "bilinear")
            return self.out(jnp.concatenate([self.one(x), self.far(x), pooled], axis=-1))

    def head(rngs: nnx.Rngs) -> nnx.Sequential:
        parts = [nnx.Conv(256, 256, (3, 3), rngs=rngs), nnx.BatchNorm(256, rngs=rngs), nnx.relu]
        return nnx.Sequential(Pyramid(rngs), *parts, nnx.Conv(256, 21, (1, 1), rngs=rngs))

    analysis = analyse(made(head), (1, 33, 33, 64))
    assert (analysis.couplings, analysis.size) == (("layers.0.image",), (15, 15))
    assert not analysis.within_edges

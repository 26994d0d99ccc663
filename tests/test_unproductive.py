"""Layers that add no context, and the inputs that a model fits: against all paths, one by one."""

import itertools

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hdc import analyse

RNGS = nnx.Rngs(0)


class Residual(nnx.Module):
    """Convolutions `(taps, rate, stride)`; the `skipped` ones add what they read to what they write."""

    def __init__(self, layers, skipped=(), head: bool = False):
        self.layers = nnx.List(
            nnx.Conv(1, 1, (k, k), kernel_dilation=rate, strides=stride, rngs=RNGS)
            for k, rate, stride in layers
        )
        self.skipped, self.head = skipped, head

    def __call__(self, x):
        for number, layer in enumerate(self.layers):
            x = layer(x) + x if number in self.skipped else layer(x)
        return x.mean((1, 2)) if self.head else x


def fields_read(layers, skipped) -> list[int]:
    """For each layer the smallest field of what it reads, over all choices of the layers passed by."""
    found = []
    for number in range(len(layers)):
        passed = [place for place in skipped if place < number]
        sizes = []
        for choice in itertools.product([False, True], repeat=len(passed)):
            around = {place for place, taken in zip(passed, choice, strict=True) if taken}
            field, apart = 1, 1
            for place, (k, rate, stride) in enumerate(layers[:number]):
                field += 0 if place in around else (k - 1) * rate * apart
                apart *= stride
            sizes.append(field)
        found.append(min(sizes))
    return found


@settings(max_examples=15, deadline=None)
@given(
    layers=st.lists(
        st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=5
    ),
    side=st.integers(4, 24),
    data=st.data(),
)
def test_a_layer_is_unproductive_where_every_path_to_it_sees_the_input(layers, side, data) -> None:
    same = [place for place, (*_, stride) in enumerate(layers) if stride == 1]
    skipped = data.draw(st.sets(st.sampled_from(same))) if same else set()
    analysis = analyse(Residual(layers, skipped), (1, side, side, 1))
    read = fields_read(layers, skipped)
    expected = {f"layers.{n}" for n, (k, _, _) in enumerate(layers) if k > 1 and read[n] >= side}
    assert set(analysis.unproductive) == expected
    smallest = 1 + max([read[n] for n, (k, _, _) in enumerate(layers) if k > 1], default=0)
    assert analysis.smallest_input == (smallest, smallest)
    found = [finding for finding in analysis.findings if finding.rule == "unproductive"]
    assert len(found) == bool(expected)
    assert all(f"at least {smallest} x {smallest} px" in finding.fix for finding in found)
    assert all(not finding.problem and "\n" not in str(finding) for finding in found)


@pytest.mark.parametrize("side", [7, 9, 11, 13, 15])
def test_what_it_reads_sees_every_pixel_from_the_middle(side: int) -> None:
    layers = [(3, 1, 1), (3, 2, 1), (3, 1, 1), (3, 2, 1)]  # without holes
    analysis = analyse(Residual(layers), (1, side, side, 1))
    for number in range(1, len(layers)):
        before = analyse(Residual(layers[:number]), (1, side, side, 1))
        assert (f"layers.{number}" in analysis.unproductive) == bool(before.support.all())
    assert analysis.largest_input == (13, 13)
    assert bool(analysis.support.all()) == (side <= 13)


def test_the_print_says_so_where_the_edges_hide_the_field_or_a_layer_adds_nothing() -> None:
    layers = [(3, 1, 1), (3, 2, 1), (3, 1, 1)]
    line = "fits inputs from 8x8 to 9x9 px"
    assert line in str(analyse(Residual(layers, head=True), (1, 32, 32, 1)))
    assert line in str(analyse(Residual(layers), (1, 7, 7, 1)))
    assert line not in str(analyse(Residual(layers), (1, 32, 32, 1)))


def test_a_pooling_adds_nothing_to_say_and_an_axis_of_one_tap_does_not_count() -> None:
    pooled = nnx.Sequential(nnx.Conv(1, 1, (9, 9), rngs=RNGS), lambda x: nnx.max_pool(x, (2, 2)))
    assert analyse(pooled, (1, 8, 8, 1)).unproductive == ()
    tall = nnx.Sequential(nnx.Conv(1, 1, (1, 9), rngs=RNGS), nnx.Conv(1, 1, (1, 3), rngs=RNGS))
    assert analyse(tall, (1, 64, 8, 1)).unproductive == ("layers.1",)
    assert analyse(tall, (1, 64, 8, 1)).smallest_input == (1, 10)
    up = nnx.Sequential(
        nnx.Conv(1, 1, (3, 3), strides=2, rngs=RNGS),
        nnx.ConvTranspose(1, 1, (2, 2), strides=2, rngs=RNGS),
        nnx.Conv(1, 1, (3, 3), rngs=RNGS),
    )
    assert [layer.input_field for layer in analyse(up, (1, 16, 16, 1)).layers] == [(1, 1), (3, 3), (3, 3)]
    assert np.isclose(analyse(up, (1, 16, 16, 1)).dead, 0)

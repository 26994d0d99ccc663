"""Parameters and operations: by hand, and as XLA counts them."""

import jax
import jax.numpy as jnp
import pytest
import reference
from flax import nnx
from networks import build

from hdc.cost import count_parameters, per_image
from hdc.layers import Conv
from hdc.ops import backend
from hdc.schedules import DilationSchedule

HEIGHT, WIDTH, CHANNELS, CLASSES, FEATURES = 20, 18, 3, 5, 6


def make(schedule: DilationSchedule, task: str = "dense", **options) -> nnx.Module:
    config = {"width": FEATURES} | options
    shape = (HEIGHT, WIDTH, CHANNELS)
    return reference.filled(
        lambda: build(config, schedule, image_shape=shape, classes=CLASSES, task=task, rngs=nnx.Rngs(0))
    )


def test_a_dense_context_network() -> None:
    model = make(DilationSchedule([1, 2], 3, 2))
    stem, layer, head = 9 * CHANNELS * FEATURES, 9 * FEATURES**2, FEATURES * CLASSES
    assert count_parameters(model) == stem + FEATURES + 4 * (layer + FEATURES) + head + CLASSES
    # Padding counts: every layer has the whole map's outputs with all their taps.
    assert per_image(model, (HEIGHT, WIDTH, CHANNELS)).flops == 2 * HEIGHT * WIDTH * (stem + 4 * layer + head)


def test_separable_layers() -> None:
    model = make(DilationSchedule([1, 2], 5), separable=True)
    stem, layer, head = 9 * CHANNELS * FEATURES, 25 * FEATURES + FEATURES**2, FEATURES * CLASSES
    assert count_parameters(model) == stem + FEATURES + 2 * (layer + FEATURES) + head + CLASSES
    assert per_image(model, (HEIGHT, WIDTH, CHANNELS)).flops == 2 * HEIGHT * WIDTH * (stem + 2 * layer + head)


def test_valid_layers_count_the_smaller_maps() -> None:
    model = make(DilationSchedule([1, 3]), padding="VALID")
    layer = 9 * FEATURES**2
    sizes = [(HEIGHT - lost) * (WIDTH - lost) for lost in (2, 4, 10)]
    by_hand = (
        sizes[0] * 9 * CHANNELS * FEATURES + (sizes[1] + sizes[2]) * layer + sizes[2] * FEATURES * CLASSES
    )
    assert per_image(model, (HEIGHT, WIDTH, CHANNELS)).flops == 2 * by_hand


def test_a_classification_head_counts_once_per_image() -> None:
    model = make(DilationSchedule([2]), task="classification")
    maps = HEIGHT * WIDTH * (9 * CHANNELS * FEATURES + 9 * FEATURES**2)
    assert per_image(model, (HEIGHT, WIDTH, CHANNELS)).flops == 2 * (maps + FEATURES * CLASSES)


def test_normalisation_adds_two_values_per_channel_in_place_of_the_bias() -> None:
    plain = count_parameters(make(DilationSchedule([1, 2])))
    for norm in ("batch", "group"):
        normed = make(DilationSchedule([1, 2]), norm=norm)
        # Running statistics are no trained values.
        assert count_parameters(normed) == plain + 3 * FEATURES


def test_lei2019() -> None:
    model = make(DilationSchedule([1, 2]), task="classification", name="lei2019", hidden=7)
    first, second = 9 * CHANNELS * FEATURES, 9 * FEATURES * 2 * FEATURES
    flat = (HEIGHT // 4) * (WIDTH // 4) * 2 * FEATURES
    biases = FEATURES + 2 * FEATURES + 7 + CLASSES
    assert count_parameters(model) == first + second + flat * 7 + 7 * CLASSES + biases
    maps = HEIGHT * WIDTH * first + (HEIGHT // 2) * (WIDTH // 2) * second
    by_hand = 2 * (maps + flat * 7 + 7 * CLASSES)
    assert per_image(model, (HEIGHT, WIDTH, CHANNELS)).flops == by_hand


def test_an_abstract_model_costs_the_same() -> None:
    model = make(DilationSchedule([1, 2]), norm="batch")
    abstract = nnx.eval_shape(lambda: nnx.clone(model))
    assert count_parameters(abstract) == count_parameters(model)
    shape = (HEIGHT, WIDTH, CHANNELS)
    assert per_image(abstract, shape) == per_image(model, shape)


def test_counting_leaves_the_model_in_training() -> None:
    model = make(DilationSchedule([1]), norm="batch")
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.BatchStat))
    per_image(model, (HEIGHT, WIDTH, CHANNELS))
    assert not model.stem.norm.use_running_average
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), before, nnx.state(model, nnx.BatchStat))
    )


def test_bytes_are_those_that_xla_says_of_each_convolution() -> None:
    """Of a network without elementwise operations: each operand and result once, all of them float32."""
    model = Conv(3, 5, 3, padding="VALID", use_bias=False, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    with backend("lax"):
        compiled = jax.jit(lambda state, x: nnx.merge(graph, state)(x)).lower(state, jnp.zeros((1, 9, 8, 3)))
    assert per_image(model, (9, 8, 3)).bytes == compiled.compile().cost_analysis()["bytes accessed"]
    assert per_image(model, (9, 8, 3)).bytes == 4 * (9 * 8 * 3 + 3 * 3 * 3 * 5 + 7 * 6 * 5)


@pytest.mark.parametrize(
    ("task", "separable", "rates"),
    [("dense", False, [1, 2]), ("dense", True, [3]), ("classification", False, [2, 1])],
)
def test_xla_counts_the_same_but_for_the_elementwise_operations(task, separable, rates) -> None:
    """Compared: our multiply-adds times two with XLA's `flops` of the compiled forward pass of one image.

    With VALID padding, because XLA leaves out the taps in the padding and we count them. XLA also counts
    biases, ReLU and pooling: at most one operation per value for each of the three.
    """
    model = make(DilationSchedule(rates), task=task, separable=separable, padding="VALID")
    ours = per_image(model, (HEIGHT, WIDTH, CHANNELS)).flops
    graph, state = nnx.split(model)
    with backend("lax"):  # XLA cannot count inside the others' programs
        compiled = jax.jit(lambda state, x: nnx.merge(graph, state)(x)).lower(
            state, jnp.zeros((1, HEIGHT, WIDTH, CHANNELS))
        )
    xla = compiled.compile().cost_analysis()["flops"]
    lost = [2 + 2 * sum(rates[:layers]) for layers in range(len(rates) + 1)]
    side = [(HEIGHT - pixels) * (WIDTH - pixels) for pixels in lost]
    elementwise = 3 * FEATURES * sum(side) + side[-1] * CLASSES
    assert ours <= xla <= ours + elementwise

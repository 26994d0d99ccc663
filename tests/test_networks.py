"""The networks: options, shapes, equal budgets, and outputs against the loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from networks import build

from hdc.errors import InputError
from hdc.layers import crop, evaluation
from hdc.schedules import DilationSchedule

IMAGE = (32, 30, 3)
PLAIN, DILATED, HDC = (
    DilationSchedule([1], 3, 6),
    DilationSchedule([2], 3, 6),
    DilationSchedule([1, 2, 5], 3, 2),
)


def made(schedule=HDC, *, task="dense", image=IMAGE, classes=5, seed=0, **options) -> nnx.Module:
    rngs = nnx.Rngs(params=seed, dropout=seed + 1)
    return build({"width": 4} | options, schedule, image_shape=image, classes=classes, task=task, rngs=rngs)


def make(*arguments, **options) -> nnx.Module:
    return reference.filled(lambda: made(*arguments, **options))


def images(count: int = 2, shape: tuple[int, int, int] = IMAGE, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((count, *shape)), jnp.float32)


def shapes(schedule=HDC, *, image=IMAGE, count=2, **options) -> tuple[int, tuple[int, ...]]:
    """Parameters and output shape, without computing anything."""

    def run(x: jax.Array) -> tuple[nnx.State, jax.Array]:
        model = made(schedule, image=image, **options)
        state = nnx.state(model, nnx.Param)
        return state, model(x)

    state, y = jax.eval_shape(run, jax.ShapeDtypeStruct((count, *image), jnp.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(state)), y.shape


def conv_relu(x: np.ndarray, layer: nnx.Module, rate: int) -> np.ndarray:
    y = reference.conv2d(x, np.asarray(layer.kernel[...]), rate=(rate, rate))
    return np.maximum(y + np.asarray(layer.bias[...]), 0)


# --- every option, abstractly ---


@pytest.mark.parametrize("task", ["dense", "classification"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_every_combination_of_the_context_options_builds_and_runs(task, padding, norm) -> None:
    for separable, residual, kernel_size in itertools.product((False, True), (False, True), (3, 5)):
        schedule = DilationSchedule([1, 2], kernel_size)
        _, shape = shapes(
            schedule,
            task=task,
            padding=padding,
            norm=norm,
            separable=separable,
            residual=residual,
        )
        lost = 2 + 3 * (kernel_size - 1) if padding == "VALID" else 0
        assert shape == ((2, 5) if task == "classification" else (2, 32 - lost, 30 - lost, 5))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("separable", [False, True])
def test_every_combination_of_the_lei2019_options_builds_and_runs(padding, norm, separable) -> None:
    options = {"name": "lei2019", "norm": norm, "padding": padding, "separable": separable, "hidden": 7}
    for schedule in (DilationSchedule([1, 2]), DilationSchedule([1, 2, 3], 3)):
        _, shape = shapes(schedule, task="classification", **options)
        assert shape == (2, 5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"separable": True},
        {"residual": True, "norm": "group"},
        {"norm": "batch", "padding": "VALID"},
        {"task": "classification"},
        {"task": "classification", "name": "lei2019"},
        {"task": "classification", "name": "lei2019", "separable": True, "norm": "batch"},
    ],
    ids=str,
)
def test_schedules_of_equal_length_have_equal_parameter_counts(options: dict) -> None:
    counts = {shapes(schedule, image=(40, 40, 3), **options)[0] for schedule in (PLAIN, DILATED, HDC)}
    assert len(counts) == 1
    longer, _ = shapes(DilationSchedule([1], 3, 7), image=(40, 40, 3), **options)
    assert longer > max(counts)


# --- the forward pass ---


def test_the_context_network_is_stem_layers_and_head_in_that_order() -> None:
    model = make(DilationSchedule([3, 1, 2]), image=(9, 10, 3))
    x = images(shape=(9, 10, 3))
    y = conv_relu(np.asarray(x), model.stem.conv, 1)
    for block, rate in zip(model.blocks, (3, 1, 2), strict=True):
        y = conv_relu(y, block.conv, rate)
    np.testing.assert_allclose(model.features(x), y, rtol=1e-4, atol=1e-5)
    logits = y @ np.asarray(model.head.kernel[...])[0, 0] + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(model(x), logits, rtol=1e-4, atol=1e-5)


def test_the_classification_head_pools_the_whole_map() -> None:
    model = make(DilationSchedule([2]), task="classification", image=(9, 10, 3))
    x = images(shape=(9, 10, 3))
    pooled = np.asarray(model.features(x)).mean(axis=(1, 2))
    logits = pooled @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(model(x), logits, rtol=1e-4, atol=1e-5)


def test_residual_blocks_add_their_input_before_the_relu_and_the_stem_does_not() -> None:
    model = make(DilationSchedule([2, 1]), image=(9, 10, 3), residual=True)
    x = images(shape=(9, 10, 3))
    y = conv_relu(np.asarray(x), model.stem.conv, 1)
    for block, rate in zip(model.blocks, (2, 1), strict=True):
        change = reference.conv2d(y, np.asarray(block.conv.kernel[...]), rate=(rate, rate))
        y = np.maximum(change + np.asarray(block.conv.bias[...]) + y, 0)
    np.testing.assert_allclose(model.features(x), y, rtol=1e-4, atol=1e-5)


def test_lei2019_is_two_stages_of_convolution_and_pooling_and_two_connected_layers() -> None:
    model = make(
        DilationSchedule([2, 1, 3]), name="lei2019", task="classification", image=(11, 8, 2), hidden=6
    )
    x = images(shape=(11, 8, 2))
    assert [len(stage) for stage in model.stages] == [2, 1]
    y = np.asarray(x)
    for stage, rates in zip(model.stages, ((2, 1), (3,)), strict=True):
        for block, rate in zip(stage, rates, strict=True):
            y = conv_relu(y, block.conv, rate)
        y = reference.max_pool(y)
    assert y.shape == (2, 2, 2, 8)
    hidden = y.reshape(2, -1) @ np.asarray(model.hidden.kernel[...]) + np.asarray(model.hidden.bias[...])
    logits = np.maximum(hidden, 0) @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(evaluation(model)(x), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("separable", "residual"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_valid_gives_the_part_of_same_that_no_padding_reaches(separable, residual, kernel_size) -> None:
    schedule = DilationSchedule([1, 3, 2], kernel_size)
    options = {"separable": separable, "residual": residual, "kernel_size": kernel_size, "image": (37, 35, 3)}
    x = images(1, (37, 35, 3))
    same = np.asarray(make(schedule, padding="SAME", **options)(x))
    valid = np.asarray(make(schedule, padding="VALID", **options)(x))
    margin = 1 + 6 * (kernel_size // 2)
    np.testing.assert_allclose(valid, same[:, margin:-margin, margin:-margin], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(crop(same, *valid.shape[1:3]), same[:, margin:-margin, margin:-margin])


@pytest.mark.parametrize(
    ("size", "wanted", "rows"), [(7, 3, [2, 3, 4]), (7, 7, list(range(7))), (8, 2, [3, 4]), (7, 1, [3])]
)
def test_crop_takes_the_centre(size: int, wanted: int, rows: list[int]) -> None:
    x = jnp.broadcast_to(jnp.arange(size)[None, :, None], (2, size, 9))
    assert crop(x, wanted, 5).shape == (2, wanted, 5)
    assert np.asarray(crop(x, wanted, 5))[0, :, 0].tolist() == rows
    across = jnp.broadcast_to(jnp.arange(size)[None, None, :], (2, 9, size))
    assert np.asarray(crop(across, 5, wanted))[0, 0].tolist() == rows


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    x = images(1)
    options = {"width": 3, "classes": 3}
    first, again, other = (np.asarray(made(seed=seed, **options)(x)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --- training and evaluation ---


def test_batch_norm_updates_its_statistics_in_training_only() -> None:
    model = make(DilationSchedule([2]), norm="batch")
    assert model.stem.conv.bias is None  # the normalisation has one

    def statistics() -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.BatchStat))]

    before = statistics()
    assert len(before) == 4  # mean and variance of stem and layer
    evaluated = np.asarray(evaluation(model)(images()))
    assert all(np.array_equal(a, b) for a, b in zip(before, statistics(), strict=True))
    trained = np.asarray(model(images()))
    assert not any(np.array_equal(a, b) for a, b in zip(before, statistics(), strict=True))
    assert not np.allclose(evaluated, trained)


def test_batch_norm_in_evaluation_does_not_mix_images() -> None:
    model = make(DilationSchedule([2]), norm="batch")
    model(images(4, seed=1))
    view, x = evaluation(model), images(3)
    np.testing.assert_allclose(view(x)[:1], view(x[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "groups"), [(16, 8), (4, 4), (6, 2), (5, 1)])
def test_group_norm_takes_the_most_groups_up_to_eight_that_divide_the_width(width, groups) -> None:
    model = make(DilationSchedule([1]), norm="group", width=width)
    assert model.blocks[0].norm.num_groups == groups
    model.blocks[0].norm.bias[...] = jnp.zeros(width)
    features = np.asarray(model.blocks[0].norm(images(2, (6, 7, width), seed=4)), np.float64)
    grouped = features.reshape(2, 6 * 7, groups, width // groups)
    np.testing.assert_allclose(grouped.mean(axis=(1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(grouped.var(axis=(1, 3)), 1, atol=1e-3)


def test_dropout_is_on_in_training_and_off_in_evaluation() -> None:
    options = {"name": "lei2019", "task": "classification", "image": (12, 12, 3)}
    x = images(1, (12, 12, 3))
    model = make(DilationSchedule([1, 2]), dropout=0.5, **options)
    view = evaluation(model)
    assert np.array_equal(view(x), view(x))
    assert not np.array_equal(model(x), model(x))
    without = make(DilationSchedule([1, 2]), dropout=0.0, **options)
    assert np.array_equal(without(x), view(x))


# --- what does not fit ---


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ({"task": "dense"}, "net=lei2019 gives one label per image and the data has one per pixel"),
        ({"schedule": DilationSchedule([2])}, "needs at least two rates, got [2]"),
        ({"image": (3, 9, 3)}, "rates [1, 2] and padding=SAME leaves no pixel of a 3 x 9 image"),
        ({"image": (9, 3, 3)}, "leaves no pixel of a 9 x 3 image"),
        ({"image": (11, 30, 3), "padding": "VALID"}, "padding=VALID leaves no pixel of a 11 x 30 image"),
    ],
    ids=str,
)
def test_lei2019_refuses_what_does_not_fit(options: dict, mentions: str) -> None:
    schedule = options.get("schedule", DilationSchedule([1, 2]))
    rest = {"task": "classification"} | {key: value for key, value in options.items() if key != "schedule"}
    with pytest.raises(InputError) as caught:
        nnx.eval_shape(lambda: made(schedule, name="lei2019", **rest))
    assert mentions in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("side", "padding"), [(4, "SAME"), (14, "VALID")])
def test_lei2019_accepts_the_smallest_image_that_fits(side: int, padding: str) -> None:
    options = {"name": "lei2019", "task": "classification", "padding": padding}
    _, shape = shapes(DilationSchedule([1, 2]), image=(side, side, 3), **options)
    assert shape == (2, 5)


def test_a_valid_network_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="leaves no pixel"):
        shapes(HDC, image=(30, 60, 3), padding="VALID")

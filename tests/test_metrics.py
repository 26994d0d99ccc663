"""Metrics against loops over pixels, and the evaluator over splits of any size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from hdc.lab import metrics
from hdc.lab.data.dataset import IGNORE, Split
from hdc.lab.metrics import (
    BAND,
    EVALUATION_BATCH,
    Evaluation,
    accuracy,
    evaluator,
    mean_iou,
    near_boundary,
    regression_evaluator,
    speckle_maps,
)

CLASSES = 4


class Brightness(nnx.Module):
    """The class is the brightness of the pixel, or of the image: known without any training.

    The logit of class c is minus the squared distance of the brightness to c. `margin` crops the maps as
    VALID layers do.
    """

    def __init__(self, task: str, margin: int = 0):
        self.scale = nnx.Param(jnp.ones(()))
        self.dense, self.margin = task == "dense", margin

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x[..., :1]
        if self.margin:
            x = x[:, self.margin : -self.margin, self.margin : -self.margin]
        if not self.dense:
            x = x.mean(axis=(1, 2))
        levels = jnp.arange(CLASSES, dtype=jnp.float32).reshape((1,) * (x.ndim - 1) + (CLASSES,))
        return -self.scale[...] * (x - levels) ** 2


def known_logits(values: np.ndarray) -> np.ndarray:
    return -((values[..., None].astype(np.float64) - np.arange(CLASSES)) ** 2)


def normalise(x: jax.Array) -> jax.Array:
    return jnp.asarray(x).astype(jnp.float32)


def evaluate(model: nnx.Module, split: Split):
    graph, state = nnx.split(model)
    return evaluator(graph, normalise, CLASSES)(state, split)


def dense_split(count: int, size: tuple[int, int] = (5, 6), seed: int = 0) -> Split:
    """Predictions are the images' values, so the first image, with which a batch is filled up, differs."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (count, *size)).astype(np.int32)
    wrong = rng.random(labels.shape) < 0.4
    images = np.where(wrong, rng.integers(0, CLASSES, labels.shape), labels)
    return Split(images[..., None].astype(np.uint8), labels)


def assert_equals_the_loops(found, predictions: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
    np.testing.assert_array_equal(found.confusion, reference.confusion(labels, predictions, CLASSES))
    np.testing.assert_array_equal(found.predictions, predictions)
    assert found.predictions.dtype == np.int32
    assert found.confusion.dtype == np.int64
    assert found.loss == pytest.approx(reference.cross_entropy(logits, labels), rel=1e-5)


@pytest.mark.parametrize(
    "count", [1, 2, EVALUATION_BATCH - 1, EVALUATION_BATCH, EVALUATION_BATCH + 1, 2 * EVALUATION_BATCH + 5]
)
def test_every_image_of_a_dense_split_counts_exactly_once(count: int) -> None:
    split = dense_split(count)
    found = evaluate(Brightness("dense"), split)
    predictions = split.images[..., 0].astype(int)
    assert_equals_the_loops(found, predictions, split.labels, known_logits(predictions))
    assert (found.speckles, found.speckle_sites) == reference.speckle(split.labels, predictions)
    summary = found.summary()
    assert summary["loss"] == found.loss
    assert summary["accuracy"] == pytest.approx(reference.accuracy(split.labels, predictions))
    assert summary["mean_iou"] == pytest.approx(reference.mean_iou(split.labels, predictions, CLASSES))
    assert summary["speckle"] == found.speckles / found.speckle_sites


def test_of_large_images_there_are_fewer_in_a_batch(monkeypatch) -> None:
    split = dense_split(7)
    monkeypatch.setattr(metrics, "_PIXELS", 3 * math.prod(split.images.shape[1:3]) + 1)
    assert [len(images) for _, _, (images, _) in metrics._batches(split, None)] == [3, 3, 3]
    found = evaluate(Brightness("dense"), split)
    predictions = split.images[..., 0].astype(int)
    assert_equals_the_loops(found, predictions, split.labels, known_logits(predictions))
    monkeypatch.setattr(metrics, "_PIXELS", 1)
    assert [len(images) for _, _, (images, _) in metrics._batches(split, None)] == [1] * 7


@pytest.mark.parametrize("count", [1, EVALUATION_BATCH + 3])
def test_every_image_of_a_classification_split_counts_exactly_once(count: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, CLASSES, count)
    images = np.broadcast_to(values[:, None, None, None], (count, 3, 4, 2)).astype(np.uint8)
    split = Split(images, rng.integers(0, CLASSES, count).astype(np.int32))
    found = evaluate(Brightness("classification"), split)
    assert_equals_the_loops(found, values, split.labels, known_logits(values))
    assert (found.speckles, found.speckle_sites) == (0, 0)
    assert set(found.summary()) == {"loss", "accuracy"}
    assert found.summary()["accuracy"] == pytest.approx(reference.accuracy(split.labels, values))


@pytest.mark.parametrize("margin", [1, 2])
def test_a_network_that_shrinks_the_map_is_held_against_the_labels_under_it(margin: int) -> None:
    split = dense_split(EVALUATION_BATCH + 2, (8, 9))
    found = evaluate(Brightness("dense", margin), split)
    inner = np.s_[:, margin:-margin, margin:-margin]
    predictions, labels = split.images[..., 0][inner].astype(int), split.labels[inner]
    assert_equals_the_loops(found, predictions, labels, known_logits(predictions))
    assert (found.speckles, found.speckle_sites) == reference.speckle(labels, predictions)


def with_ignored(split: Split, share: float, seed: int = 5) -> Split:
    ignored = np.random.default_rng(seed).random(split.labels.shape) < share
    return Split(split.images, np.where(ignored, IGNORE, split.labels).astype(np.int32), split.strata)


@pytest.mark.parametrize("margin", [0, 1])
def test_a_pixel_without_a_label_counts_nowhere(margin: int) -> None:
    split = with_ignored(dense_split(EVALUATION_BATCH + 3, (7, 8)), 0.3)
    found = evaluate(Brightness("dense", margin), split)
    inner = np.s_[:, margin : 7 - margin, margin : 8 - margin]
    predictions, labels = split.images[..., 0][inner].astype(int), split.labels[inner]
    counted = labels != IGNORE
    table = reference.counted_confusion(labels, predictions, counted, CLASSES)
    np.testing.assert_array_equal(found.confusion, table)
    assert found.confusion.sum() == counted.sum() < counted.size
    np.testing.assert_array_equal(found.predictions, predictions)
    loss = reference.cross_entropy(known_logits(predictions[counted]), labels[counted])
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert (found.speckles, found.speckle_sites) == reference.speckle(labels, predictions, IGNORE)
    assert 0 < found.speckles < found.speckle_sites
    assert found.summary()["accuracy"] == pytest.approx(
        reference.accuracy(labels[counted], predictions[counted])
    )


def test_an_image_class_of_the_value_of_ignore_is_a_class() -> None:
    labels = np.full(4, IGNORE, np.int32)
    assert not Split(np.zeros((4, 2, 2, 1), np.uint8), labels).ignores
    maps = np.zeros((4, 2, 2), np.int32)
    assert not Split(np.zeros((4, 2, 2, 1), np.uint8), maps).ignores
    maps[3, 1, 1] = IGNORE
    assert Split(np.zeros((4, 2, 2, 1), np.uint8), maps).ignores


@pytest.mark.parametrize("background", [None, 0, 2])
@pytest.mark.parametrize("margin", [0, 2])
def test_the_iou_of_a_stratum_is_that_of_its_pixels(margin: int, background: int | None) -> None:
    plain = dense_split(EVALUATION_BATCH + 5, (9, 8))
    strata = np.random.default_rng(6).integers(0, 2, plain.labels.shape).astype(np.uint8)
    strata[0, 4, 4:6] = 2
    split = with_ignored(Split(plain.images, plain.labels, strata), 0.1)
    names = ("near", "far", "rare", "absent")
    graph, state = nnx.split(Brightness("dense", margin))
    found = evaluator(graph, normalise, CLASSES, names, background)(state, split)
    inner = np.s_[:, margin : 9 - margin, margin : 8 - margin]
    predictions, labels, strata = split.images[..., 0][inner].astype(int), split.labels[inner], strata[inner]
    summary = found.summary()
    without = evaluate(Brightness("dense", margin), Split(split.images, split.labels)).summary()
    assert {name: value for name, value in summary.items() if not name.startswith("iou_")} == without
    assert set(summary) - set(without) == {f"iou_{name}" for name in names}
    for position, name in enumerate(names):
        counted = (strata == position) & (labels != IGNORE)
        table = reference.counted_confusion(labels, predictions, counted, CLASSES)
        np.testing.assert_array_equal(found.strata[name], table)
        if name == "absent":
            assert np.isnan(summary["iou_absent"])
            continue
        expected = reference.mean_iou(labels[counted], predictions[counted], CLASSES, background)
        assert summary[f"iou_{name}"] == pytest.approx(expected)


def test_one_evaluator_serves_states_and_splits_of_different_sizes() -> None:
    model = Brightness("dense")
    graph, state = nnx.split(model)
    evaluate = evaluator(graph, normalise, CLASSES)
    small, large = dense_split(3, seed=2), dense_split(EVALUATION_BATCH + 1, seed=3)
    assert evaluate(state, small).confusion.sum() == 3 * 30
    assert evaluate(state, large).confusion.sum() == (EVALUATION_BATCH + 1) * 30
    model.scale[...] = jnp.full((), -1.0)  # now the farthest class wins
    turned = evaluate(nnx.state(model), small)
    assert np.array_equal(turned.predictions, np.argmax(-known_logits(small.images[..., 0]), axis=-1))


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6), present=st.integers(1, 6))
def test_accuracy_and_mean_iou_equal_the_loops(seed: int, classes: int, present: int) -> None:
    rng = np.random.default_rng(seed)
    # Where fewer are present than there are, the absent classes are left out of the mean.
    labels, predictions = rng.integers(0, min(classes, present), (2, 3, 4, 5))
    table = reference.confusion(labels, predictions, classes)
    assert accuracy(table) == pytest.approx(reference.accuracy(labels, predictions))
    assert mean_iou(table) == pytest.approx(reference.mean_iou(labels, predictions, classes))


def test_mean_iou_by_hand_a_class_predicted_and_never_true_counts_as_zero() -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    assert mean_iou(confusion) == pytest.approx((3 / 4 + 0) / 2)
    assert accuracy(confusion) == 3 / 4


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(3, 3), (4, 6), (7, 5), (3, 8)]),
    classes=st.integers(1, 4),
)
def test_speckle_maps_equal_the_loops(seed: int, size: tuple[int, int], classes: int) -> None:
    labels, predictions = np.random.default_rng(seed).integers(0, classes, (2, 2, *size))
    speckled, sites = speckle_maps(jnp.asarray(predictions), jnp.asarray(labels))
    assert speckled.shape == sites.shape == (2, size[0] - 2, size[1] - 2)
    assert (int(speckled.sum()), int(sites.sum())) == reference.speckle(labels, predictions)


def blobs(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Label maps with regions, not single pixels."""
    maps = rng.integers(0, CLASSES, (count, -(-size[0] // 3), -(-size[1] // 4)))
    return maps.repeat(3, axis=1).repeat(4, axis=2)[:, : size[0], : size[1]].astype(np.int32)


@pytest.mark.parametrize(("share", "margin"), [(0, 0), (0, 1), (0.15, 0), (0.6, 2)])
def test_boundary_iou_equals_the_loops_over_the_whole_split(share: float, margin: int) -> None:
    rng = np.random.default_rng(8)
    labels = blobs(rng, EVALUATION_BATCH + 2, (9, 10))
    moved = np.where(rng.random(labels.shape) < 0.1, blobs(rng, *labels.shape[:1], labels.shape[1:]), labels)
    images = np.roll(moved, 1, axis=2)[..., None].astype(np.uint8)
    split = with_ignored(Split(images, labels), share)
    found = evaluate(Brightness("dense", margin), split)
    inner = np.s_[:, margin : 9 - margin, margin : 10 - margin]
    expected = reference.boundary_iou(
        split.labels[inner], split.images[..., 0][inner].astype(int), BAND, IGNORE
    )
    assert 0 < expected < 1
    assert found.summary()["boundary_iou"] == pytest.approx(expected)


def test_the_band_is_two_pixels_of_the_chessboard_and_the_frame_is_no_boundary() -> None:
    maps = np.zeros((1, 9, 9), np.int32)
    maps[0, 4, 4] = 1
    expected = np.zeros((9, 9), bool)
    expected[2:7, 2:7] = True
    np.testing.assert_array_equal(near_boundary(jnp.asarray(maps))[0], expected)


def test_maps_of_one_class_have_no_boundary_iou_and_equal_maps_a_whole_one() -> None:
    one = Split(np.ones((2, 5, 5, 1), np.uint8), np.ones((2, 5, 5), np.int32))
    assert np.isnan(evaluate(Brightness("dense"), one).summary()["boundary_iou"])
    two = np.indices((5, 5))[0][None] // 3
    same = Split(two[..., None].astype(np.uint8), two.astype(np.int32))
    assert evaluate(Brightness("dense"), same).summary()["boundary_iou"] == 1


class Halved(nnx.Module):
    """Half of each channel; `margin` crops the maps as VALID layers do."""

    def __init__(self, margin: int):
        self.scale, self.margin = nnx.Param(jnp.full((), 0.5)), margin

    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = x.shape[1:3]
        return self.scale[...] * x[:, self.margin : height - self.margin, self.margin : width - self.margin]


@pytest.mark.parametrize(("count", "margin"), [(3, 0), (EVALUATION_BATCH + 5, 2)])
def test_errors_of_regression_equal_numpy_over_the_whole_split(count: int, margin: int) -> None:
    rng = np.random.default_rng(9)
    images = rng.integers(0, 256, (count, 7, 8, 2)).astype(np.uint8)
    targets = (200 * rng.random(images.shape)).astype(np.float32)
    graph, state = nnx.split(Halved(margin))
    found = regression_evaluator(graph, normalise, peak=200)(state, Split(images, targets))
    inner = np.s_[:, margin : 7 - margin, margin : 8 - margin]
    errors = images[inner].astype(np.float64) / 2 - targets[inner]
    np.testing.assert_allclose(found.predictions, images[inner] / 2)
    squared = np.mean(errors**2)
    expected = {"loss": squared, "psnr": 20 * np.log10(200) - 10 * np.log10(squared)}
    assert found.summary() == pytest.approx({**expected, "mae": np.mean(np.abs(errors))}, rel=1e-5)


def test_a_regression_without_any_error_has_no_finite_psnr() -> None:
    images = np.full((2, 3, 3, 1), 4, np.uint8)
    graph, state = nnx.split(Halved(0))
    split = Split(images, np.full(images.shape, 2, np.float32))
    assert regression_evaluator(graph, normalise, peak=1)(state, split).summary()["psnr"] == np.inf


def counts(predictions: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    speckled, sites = speckle_maps(jnp.asarray(predictions)[None], jnp.asarray(labels)[None])
    return int(speckled.sum()), int(sites.sum())


CHECKERBOARD = np.indices((6, 7)).sum(axis=0) % 2
FLAT = np.zeros((6, 7), int)


def test_a_checkerboard_predicted_on_a_flat_truth_is_all_speckle() -> None:
    assert counts(CHECKERBOARD, FLAT) == (20, 20)


def test_a_true_checkerboard_has_no_site_and_a_right_prediction_no_speckle() -> None:
    assert counts(CHECKERBOARD, CHECKERBOARD) == (0, 0)
    assert counts(FLAT, FLAT) == (0, 20)


def test_one_lone_pixel_is_one_speckle_and_its_neighbours_are_none() -> None:
    predictions = FLAT.copy()
    predictions[2, 3] = 1
    assert counts(predictions, FLAT) == (1, 20)
    assert counts(predictions, predictions) == (0, 19)  # a truly lone pixel is no site


def test_two_touching_pixels_are_no_speckle_but_two_on_a_diagonal_are() -> None:
    touching, diagonal = FLAT.copy(), FLAT.copy()
    touching[2, 3:5] = 1
    diagonal[2, 3] = diagonal[3, 4] = 1
    assert counts(touching, FLAT)[0] == 0
    assert counts(diagonal, FLAT)[0] == 2


@pytest.mark.parametrize("place", [(0, 0), (0, 3), (5, 3), (2, 0), (2, 6)])
def test_a_lone_pixel_on_the_border_is_not_counted(place: tuple[int, int]) -> None:
    predictions = FLAT.copy()
    predictions[place] = 1
    assert counts(predictions, FLAT) == (0, 20)


@pytest.mark.parametrize("place", [(1, 1), (1, 5), (4, 1), (4, 5)])
def test_a_lone_pixel_one_inside_the_border_is_counted(place: tuple[int, int]) -> None:
    predictions = FLAT.copy()
    predictions[place] = 1
    assert counts(predictions, FLAT) == (1, 20)


def test_maps_without_an_inside_have_no_speckle_number() -> None:
    found = Evaluation(np.eye(2, dtype=np.int64), 0.0, 0, 0, np.zeros((1, 2, 1), np.int32))
    assert np.isnan(found.summary()["speckle"])

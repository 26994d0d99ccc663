"""Losses by name against sums over pixels, and what does not fit the data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from hdc.errors import InputError
from hdc.lab.config import TrainConfig
from hdc.lab.data.dataset import IGNORE, Dataset, Split
from hdc.lab.losses import class_counts, loss_of

CLASSES = 4
generator = np.random.default_rng(0)
LOGITS = generator.normal(size=(3, 5, 6, CLASSES)).astype(np.float32) * 3
LABELS = generator.choice(CLASSES, p=(0.6, 0.3, 0.1, 0), size=LOGITS.shape[:3]).astype(np.int32)
IGNORED = np.where(generator.random(LABELS.shape) < 0.3, IGNORE, LABELS).astype(np.int32)


def dataset(labels: np.ndarray, task: str = "dense") -> Dataset:
    split = Split(np.zeros((len(labels), 5, 6, 1), np.uint8), labels)
    return Dataset("noise", task, ("a", "b", "c", "d"), split, split, split)  # type: ignore[arg-type]


def found(config: TrainConfig, data: Dataset, logits: np.ndarray, labels: np.ndarray):
    """Loss, accuracy and the gradient of the logits."""
    both = jax.jit(jax.value_and_grad(loss_of(config, data), has_aux=True))
    (loss, hits), slopes = both(jnp.asarray(logits), jnp.asarray(labels))
    return loss, hits, np.asarray(slopes)


def balanced(labels: np.ndarray) -> list[float]:
    """As scikit-learn's compute_class_weight."""
    counts = {c: np.sum(labels == c) for c in set(labels.tolist())}
    return [labels.size / len(counts) / counts[c] if c in counts else 0 for c in range(CLASSES)]


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.0, 7.0), "balanced"])
@pytest.mark.parametrize(
    ("kind", "smoothing", "labels"),
    [
        ("cross_entropy", 0.0, LABELS),
        ("cross_entropy", 0.0, IGNORED),
        ("cross_entropy", 0.2, LABELS[:, :, 0].ravel()),
        ("cross_entropy", 0.2, IGNORED),
        ("focal", 0.0, LABELS[:, :, 0].ravel()),
        ("focal", 0.0, IGNORED),
        ("dice", 0.0, LABELS),
        ("dice", 0.0, IGNORED),
    ],
)
def test_losses_equal_the_sums_over_pixels_and_what_is_ignored_has_no_gradient(
    kind, smoothing, labels, weights
):
    one_each = labels.ndim == 1
    logits = LOGITS[:, :, 0].reshape(-1, CLASSES) if one_each else LOGITS
    config = TrainConfig(loss=kind, class_weights=weights, label_smoothing=smoothing)
    data = dataset(labels, "classification" if one_each else "dense")
    loss, hits, slopes = found(config, data, logits, labels)
    counted = labels != IGNORE
    weights = balanced(labels[counted]) if weights == "balanced" else weights
    assert loss == pytest.approx(
        reference.class_loss(logits, labels, kind, weights, smoothing, IGNORE), rel=1e-4
    )
    assert hits == pytest.approx(np.mean(logits.argmax(-1)[counted] == labels[counted]), rel=1e-6)
    assert np.isfinite(slopes).all()
    assert (slopes[~counted] == 0).all()
    assert np.abs(slopes[counted]).max() > 0


def test_without_ignored_pixels_dice_is_that_of_optax_over_the_whole_batch():
    loss, *_ = found(TrainConfig(loss="dice"), dataset(LABELS), LOGITS, LABELS)
    logits, truth = LOGITS.reshape(1, -1, CLASSES), jax.nn.one_hot(LABELS, CLASSES).reshape(1, -1, CLASSES)
    assert loss == pytest.approx(float(optax.losses.dice_loss(logits, truth)[0]), rel=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "dice"])
def test_where_nothing_counts_the_loss_is_zero_without_a_gradient(kind):
    config, data = TrainConfig(loss=kind, class_weights=(0.0, 1.0, 1.0, 1.0)), dataset(IGNORED)
    loss, hits, slopes = found(config, data, LOGITS, np.full(LABELS.shape, IGNORE))
    assert hits == 0
    assert loss == 0
    assert (slopes == 0).all()
    loss, _, slopes = found(config, data, LOGITS, np.zeros(LABELS.shape, int))  # labels of weight 0 alone
    assert np.isfinite(loss) and np.isfinite(slopes).all()


def test_balanced_weights_count_every_label_of_the_training_split_once():
    assert class_counts(dataset(IGNORED).train, CLASSES) == [np.sum(c == IGNORED) for c in range(CLASSES)]
    images = np.array([0, 2, 2, 3], np.int32)
    assert class_counts(dataset(images, "classification").train, CLASSES) == [1, 0, 2, 1]


TARGETS = Split(np.zeros((2, 5, 6, 1), np.uint8), np.zeros((2, 5, 6, 1), np.float32))
VALUES = Dataset("values", "regression", ("grey",), TARGETS, TARGETS, TARGETS)


@pytest.mark.parametrize(
    ("keys", "data", "message"),
    [
        (
            {"loss": "l2"},
            dataset(LABELS),
            "train.loss=l2 does not fit noise: use one of cross_entropy, focal, dice",
        ),
        ({"loss": "focal"}, VALUES, "train.loss=focal does not fit values: use one of l2, l1"),
        ({"loss": "dice"}, dataset(LABELS[:, 0, 0], "classification"), "noise has one label per image"),
        (
            {"class_weights": (1.0,)},
            dataset(LABELS),
            "class_weights must have 4 numbers, one for each class of noise, got 1",
        ),
        ({"class_weights": "balanced"}, VALUES, "train.class_weights is for classes, and values has none"),
        ({"label_smoothing": 0.1}, VALUES, "train.label_smoothing is for classes, and values has none"),
    ],
)
def test_a_loss_that_does_not_fit_is_one_line(keys, data, message):
    with pytest.raises(InputError, match=message) as caught:
        loss_of(TrainConfig(**keys), data)
    assert "\n" not in str(caught.value)


def test_label_smoothing_with_another_loss_is_one_line():
    with pytest.raises(InputError, match=r"label_smoothing=0\.1 has no effect with loss=focal"):
        TrainConfig(loss="focal", label_smoothing=0.1)

"""Random changes of training images: labels follow, places and orientations are as likely, the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hdc.errors import InputError
from hdc.lab.augment import augment_of
from hdc.lab.config import choose, from_dict
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.metrics import evaluator_of
from hdc.lab.training import Trainer

COUNT = 1200
PLACES = np.arange(256).reshape(16, 16)  # a pixel's value says where it was


def dataset(images: np.ndarray, labels: np.ndarray, task: str = "dense", classes: int = 256) -> Dataset:
    split = Split(images, labels)
    return Dataset("places", task, tuple(map(str, range(min(classes, 255)))), split, split, split)  # type: ignore[arg-type]


def augmented(values: np.ndarray, labels: np.ndarray | None = None, task: str = "dense", **keys):
    """What becomes of images `[n, h, w]` and their labels, by default the same numbers."""
    images = values[..., None].astype(np.uint8)
    labels = values.astype(np.int32) if labels is None else labels
    data = dataset(images, labels, task, labels.shape[-1] if task == "regression" else 255)
    augment = jax.jit(augment_of(choose("data", name="terrain", **{"flips": [], **keys}), data))
    return [np.asarray(one) for one in augment(jnp.asarray(images), jnp.asarray(labels), jax.random.key(3))]


def test_labels_follow_and_each_place_and_orientation_is_as_frequent():
    flips = ["horizontal", "vertical"]
    images, labels = augmented(np.tile(PLACES, (COUNT, 1, 1)), crop=12, flips=flips, rotations=True)
    assert images.dtype == np.uint8 and images.shape == (COUNT, 12, 12, 1)
    np.testing.assert_array_equal(images[..., 0], labels)
    rows, columns = labels // 16, labels % 16
    top, left = rows.min(axis=(1, 2)), columns.min(axis=(1, 2))
    forms = [(flip, turn) for flip in (False, True) for turn in range(4)]
    seen = np.zeros(8, int)
    for found, y, x in zip(labels, top, left, strict=True):
        window = PLACES[y : y + 12, x : x + 12]
        turned = [np.rot90(window[:, ::-1] if flip else window, turn) for flip, turn in forms]
        seen[[np.array_equal(one, found) for one in turned].index(True)] += 1
    assert np.abs(seen - COUNT / 8).max() < 50  # four standard deviations
    for places in (top, left):
        assert np.abs(np.bincount(places, minlength=5) - COUNT / 5).max() < 60


def test_rotations_alone_are_the_four_turns():
    images, labels = augmented(np.tile(PLACES, (COUNT, 1, 1)), rotations=True)
    np.testing.assert_array_equal(images[..., 0], labels)
    seen = [int((labels == np.rot90(PLACES, turn)).all(axis=(1, 2)).sum()) for turn in range(4)]
    assert sum(seen) == COUNT and np.abs(np.array(seen) - COUNT / 4).max() < 60


@pytest.mark.parametrize("axis", [1, 2])
def test_scaled_labels_are_those_of_the_nearest_pixel(axis):
    ramp = (
        np.tile(np.arange(40), (300, 40, 1)) if axis == 2 else np.tile(np.arange(40)[:, None], (300, 1, 40))
    )
    images, labels = augmented(ramp, crop=16, scale=[0.5, 2])
    assert images.shape == (300, 16, 16, 1) and labels.shape == (300, 16, 16)
    lines = (images[..., 0] if axis == 2 else images[..., 0].transpose(0, 2, 1))[:, 5]
    nearest = (labels if axis == 2 else labels.transpose(0, 2, 1))[:, 5]
    inside = (lines > 2) & (lines < 37)  # at the frame the ramp is flat
    assert np.abs(nearest - lines)[inside].max() <= 0.5 + 1e-3
    slopes = np.array(
        [np.diff(line[good]).mean() for line, good in zip(lines, inside, strict=True) if good.sum() > 4]
    )
    factors = 1 / slopes
    assert 0.5 - 1e-3 <= factors.min() < 0.6 and 1.9 < factors.max() <= 2 + 1e-3
    assert abs(factors.mean() - 1.25) < 0.1


def test_targets_of_regression_are_scaled_as_their_images():
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 24))
    images, targets = augmented(
        values,
        (values[..., None] / 255).astype(np.float32),
        "regression",
        crop=10,
        scale=[0.5, 1.5],
        rotations=True,
    )
    np.testing.assert_allclose(images / 255, targets, atol=1e-5)


def test_brightness_multiplies_and_contrast_spreads_around_the_mean():
    values = np.random.default_rng(1).integers(100, 140, (COUNT, 8, 8))
    light, labels = augmented(values, brightness=0.3)
    np.testing.assert_array_equal(labels, values)
    factors = light[..., 0] / values
    assert np.ptp(factors, axis=(1, 2)).max() < 1e-4
    assert 0.7 <= factors.min() < 0.72 and 1.28 < factors.max() <= 1.3 + 1e-5
    spread, _ = augmented(values, contrast=0.5)
    mean = values.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(spread.mean(axis=(1, 2, 3)), mean.ravel(), rtol=1e-5)
    ratios = (spread[..., 0] - mean).std(axis=(1, 2)) / values.std(axis=(1, 2))
    assert 0.5 <= ratios.min() < 0.53 and 1.47 < ratios.max() <= 1.5 + 1e-4
    bright, _ = augmented(np.full((50, 4, 4), 250), brightness=1.0)
    assert bright.max() == 255 and bright.min() >= 0


def test_one_label_per_image_stays():
    labels = np.arange(6, dtype=np.int32)
    images, same = augmented(np.tile(PLACES, (6, 1, 1)), labels, "classification", crop=4, rotations=True)
    assert images.shape == (6, 4, 4, 1)
    np.testing.assert_array_equal(same, labels)


ALL = {"crop": 12, "scale": [0.8, 1.5], "rotations": True, "brightness": 0.2, "contrast": 0.2}  # of data


def trainer() -> Trainer:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    values = {"schedule": {"rates": [1, 2], "repeat": 1}, "net": {"width": 4}, "optim": {"warmup_steps": 2}}
    values |= {"train": {"epochs": 2, "batch_size": 8}, "data": ALL, "seeds": [0, 1]}
    return Trainer(from_dict(values), dataset(images, (images[..., 0] // 86).astype(np.int32), classes=3))


def leaves(state) -> list[np.ndarray]:
    return [
        np.asarray(leaf)
        for leaf in jax.tree.leaves(state)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


def test_seeds_and_resumed_runs_give_the_bits_of_one_run_and_whole_images_are_evaluated():
    one = trainer()
    snapshots = []
    whole = [*one.fit([0], watch=snapshots.append), *one.fit([1])]
    middle = snapshots[-1]  # within an epoch
    assert 0 < middle.step < one.steps_per_epoch
    resumed = list(one.fit([0, 1], resume=one.snapshot(middle.about(), middle.arrays())))
    for epoch, same in ((whole[1], resumed[-3]), (whole[3], resumed[-1])):
        assert (epoch.seed, epoch.number, epoch.loss) == (same.seed, same.number, same.loss)
        for a, b in zip(leaves(epoch.state), leaves(same.state), strict=True):
            np.testing.assert_array_equal(a, b)
    together = {(e.seed, e.number): e for e in one._fit(one._begin([0, 1]), lambda _: None)}
    for epoch in whole:
        twin = together[epoch.seed, epoch.number]
        assert twin.loss == pytest.approx(epoch.loss, rel=1e-4)
        for a, b in zip(leaves(epoch.state), leaves(twin.state), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    evaluate = evaluator_of(one.graph, one.normalise, one.dataset)
    assert evaluate(whole[-1].state, one.dataset.test).predictions.shape == (24, 16, 16)
    np.testing.assert_array_equal(one.seen(one.dataset.test.images), one.dataset.test.images[:, 2:14, 2:14])


WIDE = np.zeros((2, 16, 20), np.int32)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"crop": 17}, "data.crop=17 is larger than the 16 x 20 images of places"),
        ({"rotations": True}, "data.rotations=true needs square images, and those of places are 16 x 20"),
        ({"scale": [0.5, 1]}, "training sees 16 x 20 of them"),
        ({"scale": [0.5, 1], "crop": 9}, "images of 8 x 10 pixels, and training sees 9 x 9"),
    ],
)
def test_what_does_not_fit_the_images_is_one_line(keys, message):
    with pytest.raises(InputError, match=message) as caught:
        augmented(WIDE, **keys)
    assert "\n" not in str(caught.value)


def test_brightness_of_a_regression_and_a_crop_that_a_network_does_not_take_are_one_line():
    with pytest.raises(InputError, match=r"data\.contrast changes images and not the targets of places"):
        augmented(WIDE, np.zeros((2, 16, 20, 1), np.float32), "regression", contrast=0.1)
    images = np.zeros((8, 16, 16, 3), np.uint8)
    data = dataset(images, np.zeros(8, np.int32), "classification", 2)
    values = {"net": {"name": "lei2019"}, "data": {"name": "terrain_patches", "crop": 8}}
    values |= {"schedule": {"rates": [1, 1], "repeat": 1}, "optim": {"warmup_steps": 0}}
    with pytest.raises(
        InputError, match=r"data\.crop=8 makes images of 8 x 8, which net=lei2019 does not take"
    ) as caught:
        Trainer(from_dict(values), data)
    assert "\n" not in str(caught.value)

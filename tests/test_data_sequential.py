"""Digits as signals, on digits of our own: pixels in order, one permutation for all, the same splits."""

import numpy as np
import pytest

from hdc.errors import InputError
from hdc.lab import parts
from hdc.lab.config import choose
from hdc.lab.data import idx
from hdc.lab.data.dataset import Dataset, Split


@pytest.fixture(autouse=True)
def digits(monkeypatch) -> Dataset:
    generator = np.random.default_rng(0)
    splits = (
        Split(generator.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8), np.arange(count) % 10)
        for count in (12, 3, 5)
    )
    made = Dataset("mnist10k", "classification", tuple("0123456789"), *splits)
    monkeypatch.setattr(idx, "dataset", {"mnist10k": made, "fashion_mnist": made}.__getitem__)
    return made


def load(**values):
    return parts.dataset(choose("data", name="sequential", **values))


@pytest.mark.parametrize("of", ["mnist10k", "fashion_mnist"])
def test_a_step_is_a_pixel_row_by_row(digits, of):
    found = load(of=of)
    assert (found.name, found.kind, found.task) == ("sequential", "signals", "classification")
    assert (found.image_shape, found.classes) == ((784, 1), digits.classes)
    for name, split in found.splits.items():
        np.testing.assert_array_equal(split.labels, digits.splits[name].labels)
        for step in (0, 27, 28, 500, 783):
            pixels = digits.splits[name].images[:, step // 28, step % 28, 0]
            np.testing.assert_array_equal(split.images[:, step, 0], pixels)


@pytest.mark.parametrize("downsample", [1, 2])
def test_permuted_steps_are_the_same_ones_in_an_order_that_all_signals_share(downsample):
    plain, permuted, again = (load(permuted=on, downsample=downsample) for on in (False, True, True))
    order = [int(np.flatnonzero((plain.train.images == column[:, None]).all((0, 2)))[0]) for column in
             permuted.train.images.swapaxes(0, 1)]  # fmt: skip
    assert sorted(order) == [*range(len(order))] and order != [*range(len(order))]
    for name, split in permuted.splits.items():
        np.testing.assert_array_equal(split.images, plain.splits[name].images[:, order])
        np.testing.assert_array_equal(split.images, again.splits[name].images)


@pytest.mark.parametrize("side", [2, 4])
def test_a_downsampled_step_is_the_mean_of_a_square(digits, side):
    found = load(downsample=side).test.images
    assert found.shape == (5, (28 // side) ** 2, 1)
    for step in (0, 1, 28 // side, (28 // side) ** 2 - 1):
        row, column = divmod(step, 28 // side)
        square = digits.test.images[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
        np.testing.assert_allclose(found[:, step, 0], square.mean((1, 2, 3)), atol=0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"of": "cifar10"}, "data.of must be one of mnist10k, mnist, fashion_mnist, got 'cifar10'"),
        ({"downsample": 3}, "data.downsample must divide 28, got 3"),
        ({"downsample": 0}, "data.downsample must divide 28, got 0"),
    ],
)
def test_what_cannot_be_used_is_one_line(values, message):
    with pytest.raises(InputError, match=message):
        load(**values)

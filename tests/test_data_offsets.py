"""The positive control: what the labels say, and that networks learn exactly the offsets they can see."""

import numpy as np
import pytest
import reference

from hdc.errors import InputError
from hdc.lab import metrics, parts
from hdc.lab.config import choose, from_dict
from hdc.lab.data.dataset import IGNORE
from hdc.lab.training import Trainer


def load(**values):
    return parts.dataset(choose("data", name="offsets", **{"tile": 32, "flips": (), **values}))


@pytest.mark.parametrize(("tile", "offset"), [(32, 0), (32, 1), (16, 7), (9, 8)])
def test_a_label_is_the_pixel_at_the_offset_and_none_outside(tile, offset):
    dataset = load(tile=tile, offset=offset)
    assert (dataset.task, dataset.classes) == ("dense", ("black", "white"))
    assert dataset.image_shape == (tile, tile, 1)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [2000, 200, 400]
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.ignores == (offset > 0)
        assert (split.labels[:, :, tile - offset :] == IGNORE).all()
        for n, y, x in ((0, 0, 0), (7, tile - 1, 1 if offset < tile - 1 else 0), (199, 4, tile - offset - 1)):
            assert 255 * split.labels[n, y, x] == split.images[n, y, x + offset, 0]


def test_images_are_fair_coins_the_same_for_every_offset_and_other_ones_in_every_split():
    near, far = load(offset=1), load(offset=20)
    np.testing.assert_array_equal(near.train.images, far.train.images)
    coins = near.train.images // 255
    assert set(np.unique(near.train.images)) == {0, 255}
    assert abs(coins.mean() - 0.5) < 0.002
    everything = np.concatenate([split.images for split in (near.train, near.validation, near.test)])
    assert len(np.unique(everything.reshape(len(everything), -1), axis=0)) == 2600


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"offset": 32}, "data.offset=32 must be less than data.tile=32"),
        ({"tile": 8, "offset": 9}, "data.offset=9 must be less than data.tile=8"),
        ({"flips": ("horizontal",)}, r"data.flips must be \[\] for offsets, got \['horizontal'\]"),
        ({"offset": -1}, "data.offset must be at least 0, got -1"),
    ],
)
def test_what_cannot_be_used_is_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        load(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("rates", "offset"), [([4], 3), ([4], 2), ([4], 5), ([2, 2], 5), ([2, 2], 6)])
def test_a_network_learns_the_offsets_in_its_support_and_no_other(rates, offset):
    """VALID layers: what a pixel can see does not depend on how near the border it is."""
    config = from_dict(
        {
            "data": {"name": "offsets", "tile": 32, "offset": offset, "flips": []},
            "net": {"padding": "VALID"},
            "schedule": {"rates": rates, "repeat": 1},
            "train": {"epochs": 1},
        }
    )
    dataset = parts.dataset(config.data)
    trainer = Trainer(config, dataset)
    (epoch,) = trainer.fit([0])
    evaluate = metrics.evaluator(trainer.graph, trainer.normalise, 2)
    accuracy = evaluate(epoch.state, dataset.test).summary()["accuracy"]
    if offset in reference.support([1, *rates], 3):
        assert accuracy > 0.99
    else:
        assert abs(accuracy - 0.5) < 0.02

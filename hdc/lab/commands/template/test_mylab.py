import numpy as np
import pytest
from flax import nnx
from hdc import DilationSchedule, registry
from hdc.registry import Images

from mylab import DiscsOptions, TowerOptions, discs, tower


def test_parts_are_registered():
    assert registry.find("network", "mylab_tower").make is tower
    assert registry.find("dataset", "mylab_discs").make is discs


def test_network_returns_one_logit_for_each_class_and_pixel():
    images = Images(height=12, width=16, channels=3, classes=4, task="dense")
    schedule = DilationSchedule((1, 2, 5))
    model = tower(TowerOptions(width=2), schedule, images, rngs=nnx.Rngs(0))
    assert model(np.zeros((2, 12, 16, 3), np.float32)).shape == (2, 12, 16, 4)
    assert len(model.layers) == 3


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="width must be between 1 and 256, got 0"):
        TowerOptions(width=0)
    with pytest.raises(ValueError, match="noise must be between 0 and 255, got -1"):
        DiscsOptions(noise=-1)


def test_labels_mark_the_bright_discs():
    made = discs(DiscsOptions(side=16, noise=0.0))
    assert [len(split) for split in (made.train, made.validation, made.test)] == [120, 30, 30]
    for split in (made.train, made.validation, made.test):
        assert set(np.unique(split.labels)) == {0, 1}
        assert (split.images[..., 0] == np.where(split.labels == 1, 160, 100)).all()

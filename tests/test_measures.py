"""Our own measures, against what the network says image by image."""

import numpy as np
import pytest

from hdc.lab import parts, trained
from hdc.lab.config import from_dict
from hdc.lab.training import Trainer


@pytest.mark.parametrize("size", [None, 40])
def test_training_accuracy_is_that_of_the_network_on_its_own_training_images(tmp_path, monkeypatch, size):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = from_dict(
        {
            "data": {"name": "points", "label": "voronoi", "tile": 8, "train_size": size},
            "net": {"width": 4},
            "schedule": {"rates": [1], "repeat": 1},
            "measures": ["train_accuracy"],
        }
    )
    data = parts.dataset(config.data)
    trainer = Trainer(config, data)
    shown = []
    for seed in (0, 1):  # the second with the first one's compiled program
        model = trained.nnx.merge(trainer.graph, trainer.start(seed))
        about = (data.classes, data.image_shape, config, seed)
        network = trained.Trained(model, trainer.normalise, *about, dataset=data)
        (found,) = parts.measured(config.measures, network, data.test.images[:2]).items()
        right = [
            np.asarray(network(data.train.images[start : start + 500])).argmax(-1)
            == data.train.labels[start : start + 500]
            for start in range(0, len(data.train), 500)
        ]
        assert found == ("train_accuracy", pytest.approx(np.concatenate(right).mean(), abs=1e-12))
        shown.append(found[1])
    assert shown[0] != shown[1]
    assert size is None or len(data.train) == size

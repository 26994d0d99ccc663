"""Copy memory: a label is the symbol a pause and ten steps before; networks learn it where they see it."""

import numpy as np
import pytest

from hdc.errors import InputError
from hdc.lab import metrics, parts
from hdc.lab.config import choose, from_dict
from hdc.lab.data import copy_memory
from hdc.lab.data.dataset import IGNORE
from hdc.lab.training import Trainer


def load(**values):
    return parts.dataset(choose("data", name="copy_memory", **values))


@pytest.mark.parametrize("steps", [1, 30, 200])
def test_signals_are_those_of_the_paper_and_labels_come_from_one_place(steps):
    dataset = load(steps=steps)
    assert (dataset.task, dataset.classes) == ("dense", tuple("12345678"))
    assert dataset.image_shape == (steps + 20, 1)
    assert [len(split) for split in dataset.splits.values()] == list(copy_memory.ITEMS.values())
    for split in dataset.splits.values():
        for signal, labels in zip(split.images[:3, :, 0].tolist(), split.labels[:3].tolist(), strict=True):
            assert {*signal[:10]} <= {*range(1, 9)}
            assert signal[10:] == [0] * (steps - 1) + [9] * 11
            assert labels[: steps + 10] == [IGNORE] * (steps + 10)
            for place in range(steps + 10, steps + 20):
                assert int(dataset.classes[labels[place]]) == signal[place - steps - 10]


def test_no_signal_is_in_two_splits_and_symbols_are_equally_likely_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "one"))
    dataset = load(steps=2)
    shown = np.concatenate([split.images[:, :10, 0] for split in dataset.splits.values()])
    assert len(np.unique(shown, axis=0)) == len(shown) == sum(copy_memory.ITEMS.values())
    assert dataset.repeated == {}
    for place in shown.T:
        np.testing.assert_allclose(np.bincount(place, minlength=9)[1:] / len(place), 1 / 8, atol=0.02)
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "other"))
    again, longer = load(steps=2), load(steps=5)
    np.testing.assert_array_equal(again.train.images, dataset.train.images)
    np.testing.assert_array_equal(longer.test.labels[:, -10:], dataset.test.labels[:, -10:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "data.steps must be between 1 and 10000, got 0"),
        ({"steps": 10_001}, "data.steps must be between 1 and 10000, got 10001"),
        ({"flips": ("time",)}, r"data.flips must be \[\] for copy_memory, got \['time'\]"),
    ],
)
def test_what_cannot_be_used_is_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        load(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [11, 6])
def test_a_network_learns_it_where_it_sees_that_step(rate, monkeypatch):
    """11 steps before: two layers of rate 11 see it, those of rate 6 see 6 and 12 steps before."""
    items = {"train": 1000, "validation": 10, "test": 300}
    monkeypatch.setattr(copy_memory, "ITEMS", items)
    config = from_dict(
        {
            "data": {"name": "copy_memory", "steps": 1},
            "net": {"name": "tcn", "dropout": 0.0},
            "schedule": {"rates": [rate, rate], "repeat": 1},
            "optim": {"learning_rate": 0.01},
            "train": {"epochs": 8, "batch_size": 16, "devices": 1},
        }
    )
    dataset = parts.dataset(config.data)
    trainer = Trainer(config, dataset)
    *_, epoch = trainer.fit([0])
    evaluate = metrics.evaluator(trainer.graph, trainer.normalise, 8)
    accuracy = evaluate(epoch.state, dataset.test).summary()["accuracy"]
    assert copy_memory.offset(1) == 11
    assert accuracy > 0.99 if rate == 11 else abs(accuracy - 1 / 8) < 0.03

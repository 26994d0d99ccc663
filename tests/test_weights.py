"""Exported weights: the same network comes back, and nothing else does."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from test_training import dense_dataset

from hdc.errors import InputError
from hdc.lab import store
from hdc.lab import trained as networks
from hdc.lab.config import Config, from_dict
from hdc.lab.training import Trainer


def trained(config: Config):
    trainer = Trainer(config, dense_dataset())
    (epoch,) = trainer.fit(config.seeds)
    return trainer, epoch


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    values = {
        "net": {"width": 4, "norm": "batch"},
        "schedule": {"rates": [1, 2], "repeat": 1},
        "train": {"epochs": 1, "batch_size": 8},
        "optim": {"warmup_steps": 1},
        "seeds": [4],
    }
    config = from_dict(values)
    trainer, epoch = trained(config)
    about = {
        "config": config.to_dict(),
        "seed": 4,
        "task": "dense",
        "classes": ["low", "middle", "high"],
        "image_shape": [16, 16, 3],
    }
    path = tmp_path_factory.mktemp("weights") / "weights-seed4.safetensors"
    path.write_bytes(networks.export(epoch.state, about, trainer.normalise))
    return trainer, epoch, path


def test_a_loaded_network_gives_the_same_logits(exported):
    trainer, epoch, path = exported
    back = networks.load(path)
    images = dense_dataset().test.images
    expected = nnx.merge(trainer.graph, epoch.state)(trainer.normalise(images))
    np.testing.assert_array_equal(back(images), expected)
    np.testing.assert_array_equal(back.model(back.normalise(images)), expected)
    assert back.config == trainer.config
    assert (back.seed, back.classes, back.image_shape) == (4, ("low", "middle", "high"), (16, 16, 3))


def test_the_file_is_plain_safetensors(exported):
    arrays = safetensors.numpy.load_file(exported[2])
    assert arrays["stem.conv.kernel"].shape == (3, 3, 3, 4)
    assert "stem.norm.mean" in arrays
    assert all(array.dtype == np.float32 for array in arrays.values())
    named = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(exported[1].state)}
    assert named >= set(arrays)


def test_any_changed_bit_or_missing_end_is_named(exported, tmp_path):
    content = exported[2].read_bytes()
    path = tmp_path / "w.safetensors"
    # Any bit of an 8-byte length, the header's and the arrays' ends, and here and there between them.
    places = [*range(0, 64), *range(64, len(content), 97), len(content) - 1]
    refused = 0
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            networks.load(path)
        except InputError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            refused += 1
    assert refused == len(places)
    for length in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"w\.safetensors cannot be read"):
            networks.load(path)


def test_what_was_not_exported_here_is_refused(exported, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        networks.load(path)
    arrays, about = store.read_safetensors(exported[2])
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(InputError, match="was not written by hdc"):
        networks.load(path)
    for change in (
        {"task": "none"},
        {"config": {**about["config"], "net": {**about["config"]["net"], "width": 5}}},
        {"config": {"nett": {}}},
        {"config": None},
        {"image_shape": [16]},
        {"classes": ["a"]},
        {"classes": 3},
        {"offset": "x"},
        {"offset": [1.0]},
        {"seed": "x"},
    ):
        path.write_bytes(store.to_safetensors(arrays, {**about, **change}))
        with pytest.raises(InputError) as refused:
            networks.load(path)
        assert str(path) in str(refused.value), change
    path.write_bytes(store.to_safetensors(arrays, {key: about[key] for key in about if key != "seed"}))
    with pytest.raises(InputError, match="seed"):
        networks.load(path)


def test_the_header_is_json_that_others_can_read(exported):
    with safetensors.safe_open(exported[2], framework="numpy") as file:
        about = json.loads(file.metadata()["hdc"])
    assert about["config"]["net"]["width"] == 4
    assert set(about) == {
        "config",
        "seed",
        "task",
        "classes",
        "image_shape",
        "offset",
        "scale",
        "sha256",
    }
    assert jax.tree.leaves(about["offset"]) == about["offset"]

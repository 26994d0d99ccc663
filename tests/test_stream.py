"""Data larger than memory: the same bits as in memory, whatever interrupts; memory that does not grow."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from test_devices import same_bits
from test_training import config, dense_dataset

from hdc.lab import feed
from hdc.lab.config import Config
from hdc.lab.data import stream
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.training import Trainer


def streaming(chosen: Config, **keys: object) -> Config:
    return dataclasses.replace(chosen, train=dataclasses.replace(chosen.train, stream=True, **keys))


def on_disk(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with its arrays in files, labels as bytes."""
    splits = {}
    for name, split in dataset.splits.items():
        np.savez(folder / f"{name}.npz", images=split.images)
        np.save(folder / f"{name}.npy", np.asarray(split.labels).astype(np.uint8))
        images = stream.open_npz(folder / f"{name}.npz")["images"]
        splits[name] = Split(images, stream.open_npy(folder / f"{name}.npy", np.int32))
    return dataclasses.replace(dataset, **splits)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_stream_has_the_bits_of_the_data_in_memory(processes, tmp_path, monkeypatch):
    dataset = dense_dataset(train=61)
    chosen = config(train={"epochs": 3, "batch_size": 4}, net={"norm": "batch"})
    usual = list(Trainer(chosen, dataset).fit([3]))
    monkeypatch.setattr(feed, "_WINDOW", 3 * 4 * 16 * 16 * 7)  # three steps, of fifteen
    asked = streaming(chosen, readers=processes)
    same_bits(usual, list(Trainer(asked, on_disk(dataset, tmp_path)).fit([3])))

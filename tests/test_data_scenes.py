"""Scenes, composed of stand-ins whose grey value tells class and split."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hdc.errors import InputError
from hdc.lab import experiment, parts, records
from hdc.lab.config import choose, from_dict
from hdc.lab.data import idx, scenes
from hdc.lab.data.dataset import Dataset, Split

GREYS = {"train": 60, "validation": 140, "test": 220}  # of class 0; class c is c brighter


def items() -> Dataset:
    """Filled squares in the middle two thirds of the image, on black."""

    def split(name: str) -> Split:
        labels = (np.arange(40) % 10).astype(np.int32)
        images = np.zeros((40, 28, 28, 1), np.uint8)
        images[:, 4:24, 4:24, 0] = (GREYS[name] + labels)[:, None, None]
        return Split(images, labels)

    names = tuple(f"item {number}" for number in range(10))
    return Dataset("fashion_mnist", "classification", names, *(split(name) for name in GREYS))


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(idx, "dataset", lambda _: items())
    monkeypatch.setattr(scenes, "ITEMS", {"train": 24, "validation": 10, "test": 12})


def cells(split: Split):
    """Each cell's image, labels, and the side that its stratum says."""
    assert split.strata is not None
    for image, truth, strata in zip(split.images[..., 0], split.labels, split.strata, strict=True):
        for top, left in np.ndindex(2, 2):
            quadrant = np.s_[32 * top : 32 * top + 32, 32 * left : 32 * left + 32]
            assert len(np.unique(strata[quadrant])) == 1
            side = (8, 16, 32)[strata[quadrant][0, 0]]
            for y, x in np.ndindex(32 // side, 32 // side):
                cell = np.s_[y * side : (y + 1) * side, x * side : (x + 1) * side]
                yield image[quadrant][cell], truth[quadrant][cell], side


def test_every_cell_holds_one_item_of_its_own_split_and_its_size():
    dataset = parts.dataset(choose("data", name="scenes"))
    assert dataset.classes == ("background", *items().classes)
    assert (dataset.task, dataset.image_shape) == ("dense", (64, 64, 1))
    assert (dataset.strata, dataset.background) == (("small", "medium", "large"), 0)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [24, 10, 12]
    extents: dict[int, set[int]] = {8: set(), 16: set(), 32: set()}
    places: dict[int, set[tuple]] = {8: set(), 16: set(), 32: set()}
    for name in GREYS:
        for image, truth, side in cells(getattr(dataset, name)):
            (label,) = set(np.unique(truth)) - {0}
            assert image.max() == GREYS[name] + label - 1
            np.testing.assert_array_equal(truth != 0, image > 25)
            rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
            assert rows[-1] - rows[0] == columns[-1] - columns[0]
            extents[side].add(len(rows))
            places[side].add((rows[0], columns[0]))
    for (side, found), least in zip(extents.items(), (7, 14, 28), strict=True):
        # The square takes 20 of 28 pixels of an item; a pixel on its edge may go either way.
        assert min(found) >= 20 / 28 * least - 2
        assert max(found) <= 20 / 28 * side + 2
        assert len(found) > 1 or side == 8
        assert len(places[side]) > 2


def test_all_sizes_and_classes_occur_and_the_scenes_are_always_the_same(monkeypatch, tmp_path):
    first = parts.dataset(choose("data", name="scenes"))
    assert set(np.unique(first.test.strata)) == {0, 1, 2}
    assert set(np.unique(first.test.labels)) == set(range(11))
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "another"))
    again = parts.dataset(choose("data", name="scenes"))
    np.testing.assert_array_equal(first.test.images, again.test.images)
    np.testing.assert_array_equal(first.train.labels, again.train.labels)


def test_small_items_are_averaged_not_picked():
    """Of a one-pixel chequerboard, a third of the size, grey is left where picking leaves black and white."""
    board = np.zeros((1, 28, 28, 1), np.uint8)
    board[0, ::2, ::2] = board[0, 1::2, 1::2] = 255
    split = scenes._compose(Split(board, np.zeros(1, np.int32)), 6, np.random.default_rng(0))
    inner = [image[2:-2, 2:-2] for image, _, side in cells(split) if side == 8]
    assert inner
    assert np.concatenate([part.ravel() for part in inner]).std() < 40


def test_train_size_cuts_the_strata_as_well():
    cut = parts.dataset(choose("data", name="scenes", train_size=5))
    whole = parts.dataset(choose("data", name="scenes"))
    np.testing.assert_array_equal(cut.train.strata, whole.train.strata[:5])
    assert len(cut.train) == 5


def test_a_run_records_the_iou_of_each_size(tmp_path):
    config = from_dict(
        {
            "data": {"name": "scenes", "flips": ["horizontal"]},
            "net": {"width": 2},
            "schedule": {"rates": [2], "repeat": 1},
            "optim": {"warmup_steps": 1},
            "train": {"epochs": 1, "batch_size": 8},
            "gridding": {"images": 2},
        }
    )
    experiment.data_of.cache_clear()
    (run,) = records.plan(tmp_path / "results", [config])
    experiment.run(run, Console(quiet=True))
    experiment.data_of.cache_clear()
    rows = run.metrics().rows(named=True)
    for split in ("validation", "test"):
        found = {row["metric"]: row["value"] for row in rows if row["split"] == split}
        assert all(0 <= found[f"iou_{size}"] <= 1 for size in ("small", "medium", "large"))


def test_without_fashion_mnist_it_says_how_to_get_it(monkeypatch):
    def unprepared(_: str) -> Dataset:
        raise InputError("fashion_mnist is not prepared: run 'hdc data prepare fashion_mnist'")

    monkeypatch.setattr(idx, "dataset", unprepared)
    with pytest.raises(InputError, match="hdc data prepare fashion_mnist"):
        parts.dataset(choose("data", name="scenes"))


@pytest.mark.parametrize("tile", [32, 128])
def test_another_tile_is_refused(tile):
    with pytest.raises(InputError, match=f"data.tile={tile}: scenes are 64 x 64"):
        parts.dataset(choose("data", name="scenes", tile=tile))


@pytest.mark.parametrize(
    "strata", [np.zeros((2, 4, 4), np.int32), np.zeros((2, 4, 3), np.uint8), np.zeros((1, 4, 4), np.uint8)]
)
def test_strata_that_do_not_fit_the_images_are_a_fault(strata):
    with pytest.raises(ValueError, match="do not fit images"):
        Split(np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 4, 4), np.int32), strata)


def test_names_of_strata_without_their_maps_are_a_fault():
    split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 4, 4), np.int32))
    with pytest.raises(ValueError, match="need a map in every split"):
        Dataset("odd", "dense", ("a", "b"), split, split, split, strata=("near",))
    mapped = Split(split.images, split.labels, np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="need a map in every split"):
        Dataset("odd", "dense", ("a", "b"), mapped, mapped, mapped)
    with pytest.raises(ValueError, match="256 classes"):
        Dataset("odd", "dense", tuple(map(str, range(256))), split, split, split)

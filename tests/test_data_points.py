"""Points of one pixel: the labels computed pixel by pixel, and what a network with holes makes of them."""

import numpy as np
import pytest
from rich.console import Console

from hdc.errors import InputError
from hdc.lab import experiment, parts, records
from hdc.lab.config import choose, from_dict
from hdc.lab.data import points
from hdc.lab.report.figures import style


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(points, "ITEMS", {"train": 24, "validation": 8, "test": 10})


def load(**values):
    return parts.dataset(choose("data", name="points", **values))


def distances(image: np.ndarray, y: int, x: int) -> dict[tuple[int, int], float]:
    """How far each point of an image is from a pixel."""
    return {(row, column): np.hypot(row - y, column - x) for row, column in np.argwhere(image.any(axis=-1))}


@pytest.mark.parametrize("tile", [64, 17])
def test_a_pixel_is_inside_where_a_point_is_at_most_ten_pixels_away(tile):
    dataset = load(tile=tile)
    assert (dataset.name, dataset.task, dataset.classes) == ("points", "dense", ("outside", "inside"))
    assert dataset.image_shape == (tile, tile, 1)
    assert [len(split) for split in dataset.splits.values()] == [24, 8, 10]
    for split in dataset.splits.values():
        assert not split.ignores
        assert set(np.unique(split.images)) == {0, 255}
        assert ((split.images > 0).sum(axis=(1, 2, 3)) == 6).all()
    for image, truth in zip(dataset.test.images[:2], dataset.test.labels, strict=False):
        for y, x in np.ndindex(tile, tile):
            assert truth[y, x] == (min(distances(image, y, x).values()) <= 10)


def test_a_pixel_has_the_colour_of_the_nearest_point():
    dataset = load(label="voronoi", tile=32)
    assert dataset.classes == ("blue", "green", "yellow", "orange")
    assert dataset.image_shape == (32, 32, 3)
    for split in dataset.splits.values():
        assert (split.images.any(axis=-1).sum(axis=(1, 2)) == 24).all()
        assert not split.ignores
    colours = list(points.COLOURS.values())
    for image, truth in zip(dataset.validation.images[:2], dataset.validation.labels, strict=False):
        for y, x in np.ndindex(32, 32):
            found = distances(image, y, x)
            nearest = {place for place, far in found.items() if far == min(found.values())}
            assert colours[truth[y, x]] in {tuple(image[place]) for place in nearest}
    assert set(np.unique(dataset.train.labels)) == {0, 1, 2, 3}


def test_a_class_has_its_points_colour_in_figures():
    hexadecimal = ["#" + bytes(colour).hex().upper() for colour in points.COLOURS.values()]
    assert hexadecimal == list(style.COLOURS[:4])


@pytest.mark.parametrize("label", points.LABELS)
def test_the_tiles_are_always_the_same_and_no_two_are_alike(label, tmp_path, monkeypatch):
    first, cached = load(label=label), load(label=label)
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "another"))
    again = load(label=label)
    for name, split in first.splits.items():
        for other in (cached, again):
            np.testing.assert_array_equal(split.images, other.splits[name].images)
            np.testing.assert_array_equal(split.labels, other.splits[name].labels)
    everything = np.concatenate([split.images for split in first.splits.values()])
    assert len(np.unique(everything.reshape(len(everything), -1), axis=0)) == 42


def test_the_splits_are_drawn_independently(tmp_path, monkeypatch):
    """The test tiles do not depend on how many there are to train on."""
    before = load()
    monkeypatch.setattr(points, "ITEMS", points.ITEMS | {"train": 5})
    after = load()
    assert len(after.train) == 5
    np.testing.assert_array_equal(after.train.images, before.train.images[:5])
    np.testing.assert_array_equal(after.test.images, before.test.images)
    np.testing.assert_array_equal(load(train_size=3).train.labels, before.train.labels[:3])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "disks"}, "data.label must be one of discs, voronoi, got 'disks'"),
        ({"label": 1}, "data.label must be str, got 1"),
        ({"tile": 16.0}, "data.tile must be int, got 16.0"),
        ({"tile": 7}, "data.tile must be at least 8, got 7"),
        ({"tile": 257}, "data.tile=257 is too large for points, at most 256 is allowed"),
        ({"train_size": 25}, "data.train_size=25 is more than the 24 training items of points"),
    ],
)
def test_what_cannot_be_used_is_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        load(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", points.LABELS)
def test_it_trains(label, tmp_path):
    config = from_dict(
        {
            "data": {"name": "points", "label": label, "tile": 16},
            "net": {"width": 2},
            "schedule": {"rates": [2], "repeat": 1},
            "optim": {"warmup_steps": 1},
            "train": {"epochs": 1},
            "gridding": {"images": 2},
        }
    )
    experiment.data_of.cache_clear()
    (run,) = records.plan(tmp_path / "results", [config])
    experiment.run(run, Console(quiet=True))
    experiment.data_of.cache_clear()
    assert run.state == "done"
    assert run.info["data"]["items"] == points.ITEMS

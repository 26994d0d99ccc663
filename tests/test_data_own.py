"""Data of one's own: folders of images and .npz files come out as they were written, and are told apart."""

import hashlib
import os
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from hdc.errors import InputError
from hdc.lab import experiment, records, trained
from hdc.lab.commands.main import main
from hdc.lab.config import choose, from_dict
from hdc.lab.data import arrays, folder, pictures
from hdc.lab.data.dataset import IGNORE, Dataset, Split
from hdc.lab.data.stream import Rows, open_npy
from hdc.lab.parts import dataset as made
from hdc.lab.report import tables
from hdc.lab.trained import normaliser

WITH_PROGRAMS = os.environ["HDC_CACHE_DIR"]  # the tests' own, which has the native library
CLASSES = ("sea", "land", "ice")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def drawn(count: int, seed: int = 0, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return images, generator.integers(0, 3, (count, size, size), dtype=np.uint8)


def masked(root: Path, count: int = 30, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A folder with images and masks, and what was written by name."""
    images, masks = drawn(count, seed)
    masks[:, 0, 0] = 255
    names = [f"tile {number:02}" for number in range(count)]
    for name, image, mask in zip(names, images, masks, strict=True):
        save(root / "images" / f"{name}.png", image)
        save(root / "masks" / f"{name}.tif", mask)
    return dict(zip(names, zip(images, masks, strict=True), strict=True))


def split_of(name: str) -> str:
    """As docs/data.md says it."""
    u = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64
    return "test" if u < 0.15 else "validation" if u < 0.3 else "train"


def assert_split(split: Split, written: list[tuple[np.ndarray, np.ndarray]]) -> None:
    np.testing.assert_array_equal(split.images, np.stack([image for image, _ in written]), strict=True)
    np.testing.assert_array_equal(split.labels, np.stack([mask for _, mask in written]).astype(np.int32))
    assert split.labels.dtype == np.int32


def test_images_and_masks_come_out_as_they_were_written_in_splits_by_name(tmp_path):
    written = masked(tmp_path / "photos")
    found = made(choose("data", name="folder", path=str(tmp_path / "photos")))
    for name, split in found.splits.items():
        assert_split(split, [one for key, one in written.items() if split_of(key) == name])
    assert (found.task, found.classes) == ("dense", ("0", "1", "2"))
    assert found.train.ignores
    before = {name: len(split) for name, split in found.splits.items()}
    save(tmp_path / "photos" / "images" / "tile 99.png", np.zeros((6, 6, 3), np.uint8))
    save(tmp_path / "photos" / "masks" / "tile 99.png", np.zeros((6, 6), np.uint8))
    more = folder.dataset(tmp_path / "photos")
    grown = {name: len(split) - before[name] for name, split in more.splits.items()}
    assert {name for name, count in grown.items() if count} == {split_of("tile 99")}


@pytest.mark.parametrize("nested", ["{split}/{part}", "{part}/{split}"])
def test_subfolders_are_splits_and_without_validation_some_training_images_are_held_out(tmp_path, nested):
    images, masks = drawn(40)
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        split = "val" if number >= 30 else "train"
        save(tmp_path / nested.format(split=split, part="images") / f"{number:02}.png", image)
        save(tmp_path / nested.format(split=split, part="masks") / f"{number:02}.png", mask)
    found = folder.dataset(tmp_path)
    kept = {number: split_of(f"{number:02}") == "validation" for number in range(30)}
    np.testing.assert_array_equal(found.test.images, images[30:])
    np.testing.assert_array_equal(found.train.images, images[[n for n in kept if not kept[n]]])
    np.testing.assert_array_equal(found.validation.images, images[[n for n in kept if kept[n]]])


def test_a_file_says_the_splits(tmp_path):
    written = masked(tmp_path, 6)
    kinds = ["train", "test", "val", "train", "test", "train"]
    lines = [f"{name},{kind}" for name, kind in zip(written, kinds, strict=True)]
    (tmp_path / "splits.csv").write_text("\n".join(["name,split", *reversed(lines)]))
    found = folder.dataset(tmp_path)
    order = list(reversed(list(zip(written.values(), kinds, strict=True))))
    assert_split(found.train, [one for one, kind in order if kind == "train"])
    assert_split(found.validation, [one for one, kind in order if kind == "val"])
    assert_split(found.test, [one for one, kind in order if kind == "test"])


@pytest.mark.parametrize("names", [None, ("wood", "field")])
def test_a_subfolder_per_class(tmp_path, names):
    images, _ = drawn(12)
    for number, image in enumerate(images):
        place = tmp_path / ("train", "test", "val")[number % 3] / ("field", "wood")[number // 6]
        save(place / f"{number}.png", image)
    if names:
        (tmp_path / "classes.txt").write_text("wood\nfield\n\n")
    found = folder.dataset(tmp_path)
    assert (found.task, found.classes) == ("classification", names or ("field", "wood"))
    np.testing.assert_array_equal(found.train.images, images[[0, 3, 6, 9]])
    assert [found.classes[label] for label in found.train.labels] == ["field", "field", "wood", "wood"]


def test_class_names_come_from_a_file_and_masks_may_be_palettes(tmp_path):
    written = masked(tmp_path)
    for name, (_, mask) in written.items():
        (tmp_path / "masks" / f"{name}.tif").unlink()
        image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
        image.putpalette(bytes(range(256)) * 3)
        image.save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    found = folder.dataset(tmp_path)
    assert found.classes == CLASSES
    assert_split(found.train, [one for key, one in written.items() if split_of(key) == "train"])


@pytest.mark.parametrize(("ignore", "labels"), [(None, {0: 0, 255: 1}), (0, {0: IGNORE, 3: 3})])
def test_black_and_white_masks_and_another_value_without_a_label(tmp_path, ignore, labels):
    written = masked(tmp_path)
    low, high = labels
    for name, (_, mask) in written.items():
        save(tmp_path / "masks" / f"{name}.tif", np.where(mask == 1, high, low).astype(np.uint8))
    found = folder.dataset(tmp_path, folder.FolderOptions(ignore=ignore))
    masks = np.stack([mask for name, (_, mask) in written.items() if split_of(name) == "test"])
    np.testing.assert_array_equal(found.test.labels, np.where(masks == 1, labels[high], labels[low]))


def test_images_of_any_size_are_resized_where_that_is_asked_for(tmp_path):
    written = masked(tmp_path)
    first = next(iter(written))
    save(tmp_path / "images" / f"{first}.png", drawn(1, 5, 9)[0][0])
    save(tmp_path / "masks" / f"{first}.tif", drawn(1, 5, 9)[1][0])
    with pytest.raises(
        InputError, match=r"is 6 x 6 pixels, but .* is 9 x 9: give data.size=\[HEIGHT,WIDTH\]"
    ):
        folder.dataset(tmp_path)
    found = folder.dataset(tmp_path, folder.FolderOptions(size=(4, 5)))
    assert found.image_shape == (4, 5, 3)
    image, mask = next(one for name, one in written.items() if split_of(name) == "test" and name != first)
    place = [name for name in written if split_of(name) == "test"].index(
        next(name for name in written if split_of(name) == "test" and name != first)
    )
    expected = Image.fromarray(image).resize((5, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.test.images[place], np.asarray(expected))
    rows, columns = (np.arange(4) + 0.5) * 6 / 4, (np.arange(5) + 0.5) * 6 / 5
    np.testing.assert_array_equal(
        found.test.labels[place], mask[np.ix_(rows.astype(int), columns.astype(int))]
    )


def test_images_are_cropped_or_padded_without_distortion(tmp_path):
    generator = np.random.default_rng(0)
    for number, (height, width) in enumerate([(8, 16), (16, 8), (9, 9), (16, 16)] * 4):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        save(tmp_path / "images" / f"{number:02}.png", image)
        save(tmp_path / "masks" / f"{number:02}.png", np.full((height, width), 1 + number % 2, np.uint8))
    names = {split: [] for split in ("train", "validation", "test")}
    for number in range(16):
        names[split_of(f"{number:02}")].append(number)

    def read(**options):
        return folder.dataset(tmp_path, folder.FolderOptions(size=(16, 16), **options))

    padded, cropped = read(fit="pad"), read(fit="crop")
    for split, numbers in names.items():
        for place, number in enumerate(numbers):
            image = np.asarray(Image.open(tmp_path / "images" / f"{number:02}.png"))
            height, width = image.shape[:2]
            here, labels = padded.splits[split].images[place], padded.splits[split].labels[place]
            mirrored = [np.minimum(at := np.arange(16), 2 * side - 1 - at) for side in (height, width)]
            np.testing.assert_array_equal(here, image[np.ix_(*mirrored)])
            np.testing.assert_array_equal(labels[:height, :width], 1 + number % 2)
            assert (labels == IGNORE).sum() == 256 - height * width
            if height == width:
                continue
            middle = image[:, 4:12] if width > height else image[4:12]
            twice = Image.fromarray(middle).resize((16, 16), Image.Resampling.BILINEAR)
            # At the cut, interpolation sees the pixels beyond it.
            found = cropped.splits[split].images[place].astype(int)
            inside = (slice(2, -2), slice(2, -2))
            np.testing.assert_array_equal(found[inside], np.asarray(twice)[inside])
    assert not cropped.train.ignores
    with pytest.raises(InputError, match=r"it is 8 x 16 pixels, larger than data.size=\[8, 8\]"):
        folder.dataset(tmp_path, folder.FolderOptions(size=(8,), fit="pad"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "fill", "size": (4,)}, "fit must be one of resize, crop, pad, got 'fill'"),
        ({"fit": "crop"}, r"fit=crop needs a size to which images are brought"),
        ({"fit": "pad", "size": (4,), "ignore": None}, "fit=pad needs a value of ignore"),
        ({"peak": float("nan")}, "peak must be a number above 0, got nan"),
    ],
)
def test_options_of_a_folder_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        folder.FolderOptions(**options)


@pytest.mark.parametrize(("kind", "largest"), [("uint8", 255), ("uint16", 65535), ("float32", 1)])
def test_targets_in_a_folder_are_a_regression(tmp_path, kind, largest):
    written = {}
    generator = np.random.default_rng(0)
    for number in range(30):
        target = (generator.random((6, 5)) * (largest if largest > 1 else 3)).astype(kind)
        save(tmp_path / "images" / f"{number}.png", generator.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        save(tmp_path / "targets" / f"{number}.tif", target)
        written[f"{number}"] = target.astype(np.float64) / largest
    options = {"name": "folder", "path": str(tmp_path), "peak": 3.0}
    found = made(choose("data", **options))
    assert (found.task, found.classes, found.peak) == ("regression", ("0",), 3.0)
    for split, some in found.splits.items():
        names = sorted(name for name in written if split_of(name) == split)
        expected = np.stack([written[name] for name in names])[..., None]
        np.testing.assert_allclose(some.labels, expected, rtol=1e-6)
    with pytest.raises(InputError, match="pad is not for the targets"):
        made(choose("data", **options, size=(8,), fit="pad"))
    save(tmp_path / "masks" / "0.png", np.zeros((6, 5), np.uint8))
    with pytest.raises(InputError, match="has both masks/ and targets/"):
        made(choose("data", **options))


@pytest.mark.parametrize("kind", ["masks", "targets", "classes"])
def test_a_folder_larger_than_a_quarter_of_the_memory_is_read_file_by_file_and_is_the_same(
    tmp_path, monkeypatch, kind
):
    root = tmp_path / "photos"
    for name, (image, mask) in masked(root).items():
        if kind == "classes":
            save(root / str(mask[1, 1]) / f"{name}.png", image)
        elif kind == "targets":
            save(root / "targets" / f"{name}.tif", mask)
    for other in {"masks", "images" if kind == "classes" else "masks"} - {kind}:
        shutil.rmtree(root / other)
    whole = folder.dataset(root)
    monkeypatch.setattr(folder.memory, "limit", lambda: 4000)
    streamed = folder.dataset(root)
    assert isinstance(streamed.train.images, Rows)
    assert isinstance(streamed.train.labels, Rows) == (kind != "classes")
    assert (whole.task, whole.classes, whole.fingerprint) == (
        streamed.task,
        streamed.classes,
        streamed.fingerprint,
    )
    for split, one in whole.splits.items():
        other = streamed.splits[split]
        np.testing.assert_array_equal(np.asarray(other.images), one.images, strict=True)
        np.testing.assert_array_equal(np.asarray(other.labels), one.labels, strict=True)
    (path, *_) = (one for one in sorted(root.rglob("*.png")) if "masks" not in one.parts)
    os.utime(path, (0, 0))
    with pytest.raises(InputError, match=f"{path.name} has changed since it was listed"):
        [np.asarray(split.images) for split in streamed.splits.values()]


def test_deep_images_are_resized_without_losing_depth():
    image = (np.arange(64).reshape(8, 8, 1) * 1000).astype(np.uint16)
    halved = pictures.fitted(image, [4])
    assert halved.dtype == np.uint16
    exact = image.reshape(4, 2, 4, 2).mean((1, 3))
    assert np.abs(halved[1:-1, 1:-1, 0] - exact[1:-1, 1:-1]).max() <= 1
    assert pictures.fitted(image.astype(np.float32), [4]).dtype == np.float32


def test_pages_of_a_tiff_are_channels(tmp_path):
    bands = np.random.default_rng(0).integers(0, 65536, (13, 7, 5), dtype=np.uint16)
    pages = [Image.fromarray(band) for band in bands]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    found = pictures.image((tmp_path / "x.tif").read_bytes(), tmp_path / "x.tif")
    np.testing.assert_array_equal(found, np.moveaxis(bands, 0, -1), strict=True)


@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [
        *(("L", 1, "uint8"), ("1", 1, "uint8"), ("RGB", 3, "uint8"), ("RGBA", 4, "uint8"), ("P", 3, "uint8")),
        *(("CMYK", 3, "uint8"), ("I;16", 1, "uint16"), ("I", 1, "uint16"), ("F", 1, "float32")),
    ],
)
def test_kinds_of_images(tmp_path, mode, channels, dtype):
    path = tmp_path / "x.tif"
    Image.new(mode, (5, 4), 1 if mode != "CMYK" else (1, 2, 3, 4)).save(path)
    found = pictures.image(path.read_bytes(), path)
    assert (found.shape, found.dtype) == ((4, 5, channels), dtype)
    if mode in ("1", "F"):
        assert (found == (255 if mode == "1" else 1.0)).all()


def test_what_is_cached_is_the_content_wherever_it_lies(tmp_path, monkeypatch, cache):
    masked(tmp_path / "a")
    masked(tmp_path / "b")
    first = folder.dataset(tmp_path / "a")
    decoded = []
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "image", lambda *it, image=pictures.image: decoded.append(it) or image(*it))
        again = folder.dataset(tmp_path / "b")
    assert len(decoded) == 1  # whose size says whether all fit into memory
    assert first.fingerprint == again.fingerprint
    changed = tmp_path / "b" / "images" / "tile 03.png"
    with Image.open(changed) as image:
        pixels = np.array(image)
    pixels[2, 2, 2] ^= 1
    save(changed, pixels)
    other = folder.dataset(tmp_path / "b").fingerprint
    save(tmp_path / "b" / "masks" / "tile 03.tif", np.zeros((6, 6), np.uint8))
    assert len({first.fingerprint, other, folder.dataset(tmp_path / "b").fingerprint}) == 3
    assert len(list(cache.glob("folder-*.safetensors"))) == 3


def test_arrays_come_out_as_they_are(tmp_path):
    images, masks = drawn(10)
    parts = {"train": slice(0, 5), "val": slice(5, 7), "test": slice(7, 10)}
    written = {f"{split}_images": images[at] for split, at in parts.items()}
    written |= {f"{split}_labels": masks[at].astype(np.int64) for split, at in parts.items()}
    np.savez_compressed(tmp_path / "x.npz", classes=np.array(CLASSES), **written)
    found = made(choose("data", name="npz", path=str(tmp_path / "x.npz")))
    for split, part in zip(found.splits.values(), parts.values(), strict=True):
        assert_split(split, list(zip(images[part], masks[part], strict=True)))
    assert (found.task, found.classes) == ("dense", CLASSES)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_of_any_type_and_number_of_channels(tmp_path, dtype):
    images = np.random.default_rng(0).integers(0, 200, (60, 5, 4)).astype(dtype)
    labels = np.arange(60) % 300
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels)
    found = arrays.dataset(tmp_path / "x.npz")
    assert (found.task, found.image_shape) == ("classification", (5, 4, 1))
    assert found.classes == tuple(map(str, range(60)))
    for name, split in found.splits.items():
        chosen = [place for place in range(60) if split_of(str(place)) == name]
        np.testing.assert_array_equal(split.images, images[chosen][..., None], strict=True)
        np.testing.assert_array_equal(split.labels, labels[chosen])


def one_split(labels: np.ndarray, images: np.ndarray | None = None) -> Split:
    return Split(np.zeros((*labels.shape[:1], 4, 4, 1), np.uint8) if images is None else images, labels)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16, np.uint64])
def test_labels_of_other_integers_are_converted(dtype):
    split = one_split(np.array([0, 1, 2], dtype))
    assert split.labels.dtype == np.int32
    assert split.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (np.array([0, 3]), "classification", "the test split of x has the label 3, but classes are 0 to 2"),
        (np.array([0, -1]), "classification", "has the label -1"),
        (np.array([0, 255]), "classification", "has the label 255"),
        (
            np.full((2, 4, 4), -1),
            "dense",
            "has the label -1, but classes are 0 to 2, and 255 is a pixel without",
        ),
        (np.array([0, 1]), "dense", r"has labels \[2\], not those of dense"),
        (np.zeros((2, 4, 4), int), "classification", r"has labels \[2, 4, 4\], not those of classification"),
        (np.array([0, 2**40]), "classification", "must fit into int32"),
        (np.array([0.0, 1.0]), "classification", "labels float64"),
        (np.zeros(0, int), "classification", "the test split of x is empty"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, task, message):
    good = one_split(np.zeros((2, 4, 4) if task == "dense" else 2, np.int32))
    with pytest.raises(InputError, match=message):
        Dataset("x", task, CLASSES, good, good, one_split(labels))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 5, 4, 1), np.uint8), "images of 5 x 4 x 1 uint8, the train split of 4 x 4 x 1 uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "images of 4 x 4 x 3 uint8"),
        (np.zeros((2, 4, 4, 1), np.uint16), "images of 4 x 4 x 1 uint16"),
        (np.zeros((2, 4, 4, 1), np.float64), r"must be uint8, uint16, float32 \[n, h, w, c\], got float64"),
        (np.full((2, 4, 4, 1), np.nan, np.float32), "must be finite"),
        (np.zeros((2, 4, 4), np.uint8), "signals of 4 x 4 uint8, the train split of 4 x 4 x 1 uint8"),
        (np.zeros((2, 4), np.uint8), r"got uint8 \[2, 4\]"),
        (np.zeros((3, 4, 4, 1), np.uint8), "do not fit images"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message):
    good = one_split(np.zeros(2, np.int32))
    with pytest.raises(InputError, match=message):
        Dataset("x", "classification", CLASSES, good, good, one_split(np.zeros(2, np.int32), images))


def test_an_image_in_two_splits_is_counted():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    images[15:17] = images[0]  # in the test split, and one of them in validation
    images[12] = images[15]
    splits = [one_split(np.zeros(len(part), np.int32), part) for part in np.split(images, [10, 14])]
    found = Dataset("x", "classification", CLASSES, *splits)
    assert found.repeated == {("validation", "train"): 1, ("test", "train"): 2, ("test", "validation"): 2}
    splits[0] = one_split(np.zeros(9, np.int32), images[1:10])
    assert Dataset("x", "classification", CLASSES, *splits).repeated == {("test", "validation"): 2}


@settings(max_examples=25)
@given(st.sampled_from(["train", "test"]), st.booleans(), st.integers(0, 6 * 6 * 2 - 1), st.integers(1, 2))
def test_the_fingerprint_tells_every_pixel_and_label(name, of_labels, place, step):
    images, masks = drawn(6)
    names = ("train", "validation", "test")
    whole = {
        one: Split(images[at : at + 2], masks[at : at + 2]) for at, one in zip((0, 2, 4), names, strict=True)
    }
    first = Dataset("x", "dense", CLASSES, **whole).fingerprint
    assert Dataset("y", "dense", CLASSES, **whole).fingerprint == first
    split = whole[name]
    pixels, labels = split.images.copy(), split.labels.copy()
    target = labels if of_labels else pixels[..., 0]
    target.flat[place] = (int(target.flat[place]) + step) % 3 if of_labels else int(target.flat[place]) ^ step
    assert Dataset("x", "dense", CLASSES, **whole | {name: Split(pixels, labels)}).fingerprint != first


def test_what_is_read_from_a_file_has_the_same_fingerprint_as_in_memory(tmp_path):
    images, masks = drawn(70)
    np.save(tmp_path / "x.npy", images)
    splits = {}
    for kind in (lambda: open_npy(tmp_path / "x.npy"), lambda: images):
        split = Split(kind(), masks)
        splits[len(splits)] = Dataset("x", "dense", CLASSES, split, split, split)
    assert splits[0].fingerprint == splits[1].fingerprint
    assert splits[0].repeated == splits[1].repeated
    assert splits[0].repeated["test", "train"] == 70


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_type_is_normalised_by_the_channels_of_the_training_split(tmp_path, dtype):
    scale = {np.uint8: 40, np.uint16: 9000, np.float32: 1e-3}[dtype]
    images = (np.random.default_rng(0).random((90, 5, 4, 3)) * scale * [1, 2, 3] + scale).astype(dtype)
    found = normaliser(images)
    np.testing.assert_allclose(found.offset, images.mean((0, 1, 2), np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.scale, 1 / images.std((0, 1, 2), dtype=np.float64), rtol=1e-5)
    np.save(tmp_path / "x.npy", images)
    streamed = normaliser(open_npy(tmp_path / "x.npy"))
    np.testing.assert_allclose(streamed.scale, found.scale, rtol=1e-6)
    constant = normaliser(np.full((3, 2, 2, 1), scale / 3, np.float32))
    assert constant.scale == 1


def test_uint8_is_normalised_to_the_bit_as_ever():
    images = np.random.default_rng(3).integers(0, 90, (7, 5, 4, 2), dtype=np.uint8)
    values = np.arange(256)
    for channel, (offset, scale) in enumerate(zip(*vars(normaliser(images)).values(), strict=True)):
        count = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = np.average(values, weights=count)
        assert offset == np.float32(mean)
        assert scale == np.float32(
            1 / np.sqrt(np.maximum(np.average((values - mean) ** 2, weights=count), 1.0))
        )


@pytest.mark.parametrize(
    ("kind", "images", "message"),
    [
        ("uint8", np.full((1, 4, 4, 2), 0.5), r"float64 from 0 to 1, .* uint8 from 0 to 255: multiply"),
        ("uint16", np.full((1, 4, 4, 2), 0.5, np.float32), "uint16 from 0 to 65535"),
        ("uint8", np.zeros((1, 4, 4, 3), np.uint8), r"\[1, 4, 4, 3\], but .* \[b, h, w, 2\], images of 2"),
        ("uint8", np.zeros((4, 4, 2), np.uint8), r"images are \[4, 4, 2\]"),
    ],
)  # fmt: skip
def test_a_trained_network_refuses_images_of_another_kind(kind, images, message):
    network = trained_on(kind)
    with pytest.raises(InputError, match=message):
        network(images)


@pytest.mark.parametrize(
    ("kind", "images"),
    [
        ("uint8", np.full((1, 4, 4, 2), 77.0)),
        ("uint8", np.zeros((1, 4, 4, 2))),
        ("uint8", np.ones((1, 4, 4, 2), np.uint8)),
        ("float32", np.full((1, 4, 4, 2), 0.5, np.float32)),
    ],
)
def test_a_trained_network_takes_the_images_it_was_trained_on(kind, images):
    network = trained_on(kind)
    np.testing.assert_array_equal(network(images), jax.jit(network)(images))


def trained_on(kind: str) -> trained.Trained:
    same = trained.Normaliser(np.zeros(2, np.float32), np.ones(2, np.float32))
    return trained.Trained(lambda x: x * 2, same, ("a", "b"), (4, 4, 2), from_dict({}), 0, kind)  # type: ignore[arg-type]


def about(fingerprint: str | None, **data: object) -> dict:
    found = {"task": "dense", **data} | ({} if fingerprint is None else {"fingerprint": fingerprint})
    return {"data": found}


def finished(results: Path, fingerprint: str | None, **groups: dict) -> records.RunFolder:
    (run,) = records.plan(results / "mine", [from_dict(groups)])
    with run.start(about(fingerprint)) as writer:
        writer.log(seed=0, step=1, epoch=1, split="test", metrics={"accuracy": 0.5})
        writer.done()
    return run


@pytest.mark.parametrize(
    ("first", "second", "groups", "refused"),
    [
        ("a" * 16, "b" * 16, {"net": {"width": 4}}, True),
        ("a" * 16, "a" * 16, {"net": {"width": 4}}, False),
        ("a" * 16, None, {"net": {"width": 4}}, False),  # a record of an older version
        ("a" * 16, "b" * 16, {"data": {"train_size": 9}}, False),
        ("a" * 16, "b" * 16, {"data": {"name": "coast"}}, False),
    ],
)
def test_a_table_refuses_rows_of_the_same_data_with_other_content(tmp_path, first, second, groups, refused):
    runs = [finished(tmp_path, first), finished(tmp_path, second, **groups)]
    if refused:
        match = f"{runs[0].run_id} and {runs[1].run_id} have the same data=terrain, but other .*aaaa and bbbb"
        match = match.replace("aaaa", first).replace("bbbb", str(second))
        with pytest.raises(InputError, match=match):
            tables.build(tables.TableConfig(study="mine"), runs)
        return
    notes = tables.build(tables.TableConfig(study="mine"), runs).notes
    assert not any("fingerprint" in note for note in notes)


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    run = finished(tmp_path, "a" * 16)
    run.refuse_other_data("a" * 16)
    with pytest.raises(InputError, match=r"was made with data of fingerprint a{16}, now it is b{16}"):
        run.refuse_other_data("b" * 16)
    (planned,) = records.plan(tmp_path / "mine", [from_dict({"net": {"width": 8}})])
    planned.refuse_other_data("b" * 16)


def test_the_tutorial_runs_as_it_is_written_but_for_less_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "tutorial" / "own-data.md").read_text()
    for asked, less in (
        ("train.epochs=20", "train.epochs=2"),
        ("[0,1,2,3,4,5,6,7,8,9]", "[0,1]"),
        ("\\\n", ""),
    ):
        assert asked in page
        page = page.replace(asked, less)
    monkeypatch.setenv("HDC_CACHE_DIR", WITH_PROGRAMS)
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(compile(text, "own-data.md", "exec"), {})
        for command in text.splitlines() if language == "bash" else ():
            program, *arguments = shlex.split(command)
            assert program == "hdc"
            assert main(arguments) == 0, command
    said = capsys.readouterr().out
    assert "background" in said
    assert "difference to 1-1-1, paired by seed" in said
    assert size_of("cells.png") > (800, 600)
    runs = records.load("cells")
    assert [run.state for run in runs] == ["done"] * 3
    assert runs[0].info["data"]["classes"] == ["background", "small", "large"]
    assert Path("results/cells/figures/panels.png").exists()


@pytest.mark.parametrize(
    ("kind", "task"), [("classes", "classification"), ("float", "dense"), ("many", "dense")]
)
def test_every_kind_of_data_set_is_described_and_shown(tmp_path, monkeypatch, capsys, kind, task):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).random((9, 6, 8, 2 if kind == "float" else 5), np.float32)
    labels = np.arange(9) % 3 if kind == "classes" else np.arange(9 * 48).reshape(9, 6, 8) % 40
    labels = labels if kind == "classes" else np.where(labels == 39, 255, labels)
    parts = {
        f"{split}_{what}": array[at : at + 3]
        for what, array in (("images", images), ("labels", labels))
        for at, split in ((0, "train"), (3, "val"), (6, "test"))
    }
    np.savez("x.npz", **parts)
    assert main(["data", "info", "npz", "path=x.npz"]) == 0
    said = capsys.readouterr().out
    assert f"npz: {task}, images of 6 x 8 x {images.shape[3]} float32" in said
    mean, deviation = images[:3, ..., 1].mean(), images[:3, ..., 1].std()
    (line,) = (line for line in said.splitlines() if "channel 1 " in line)
    assert [float(word) for word in line.split()[2:]] == pytest.approx([mean, deviation], rel=1e-4)
    if kind == "classes":
        assert [line.split() for line in said.splitlines() if line.split()[:1] == ["2"]] == [
            ["2", *["33.33"] * 3]
        ]
    else:
        share = 100 * (labels[:3] == 255).mean()
        (line,) = (line for line in said.splitlines() if "no label" in line)
        assert float(line.split()[2]) == pytest.approx(share, abs=0.005)
    assert main(["data", "show", "npz", "path=x.npz", "--out", "deep/sheet.png"]) == 0
    assert size_of("deep/sheet.png") > (800, 300)


@pytest.mark.parametrize(("low", "high", "warned"), [(0, 1, False), (3, 255, True), (-1, 1, True)])
def test_targets_are_described_by_their_own_range(tmp_path, monkeypatch, capsys, low, high, warned):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (12, 6, 6), dtype=np.uint8)
    targets = np.linspace(low, high, 12 * 36, dtype=np.float32).reshape(12, 6, 6, 1)
    order = np.random.default_rng(1).permutation(12)
    for name, rows in (("all", slice(None)), ("own", order)):
        parts = {"train": (0, 6), "val": (6, 9), "test": (9, 12)}
        np.savez(
            f"{name}.npz",
            **{f"{split}_images": images[a:b] for split, (a, b) in parts.items()},
            **{f"{split}_labels": targets[rows][a:b] for split, (a, b) in parts.items()},
        )
        assert main(["data", "info", "npz", f"path={name}.npz"]) == 0
        said = capsys.readouterr().out
        assert f"targets: 0, from {low} to {high}; data.peak=1\n" in said
        assert ("warning: the PSNR is for targets from 0 to data.peak=1" in said) == warned
    assert main(["data", "info", "npz", "path=all.npz", "peak=255"]) == 0
    assert ("warning: the PSNR" in capsys.readouterr().out) == (low < 0)


@pytest.mark.parametrize("dense", [False, True])
def test_classes_that_are_not_trained_on_are_named(tmp_path, monkeypatch, capsys, dense):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (12, 4, 4), dtype=np.uint8)
    labels = np.array([0, 1, 1, 0, 3, 0, 0, 4, 3, 1, 5, 0])
    labels = np.where(np.eye(4, dtype=bool), labels[:, None, None], 255) if dense else labels
    names = ["sea", "land", "never", "ice", "rock", "sand"]
    parts = {"train": slice(0, 6), "val": slice(6, 9), "test": slice(9, 12)}
    arrays_of = {f"{split}_images": images[one] for split, one in parts.items()}
    arrays_of |= {f"{split}_labels": labels[one] for split, one in parts.items()}
    np.savez("x.npz", **arrays_of, classes=names)
    assert main(["data", "info", "npz", "path=x.npz"]) == 0
    said = "no training label is of these classes, which occur in other splits: rock, sand"
    assert f"warning: {said}\n" in capsys.readouterr().out
    config = from_dict({"data": {"name": "npz", "path": "x.npz"}, "schedule": {"rates": [1], "repeat": 1}})
    found = experiment.data_of(config.data)
    warned = experiment.warnings(config, found, InputError("not analysed"))
    assert [one for one in warned if "training label" in one] == [f"data: {said}"]
    trained_alike = Dataset("x", found.task, found.classes, found.test, found.test, found.test)
    assert trained_alike.untrained == []
    monkeypatch.setattr("hdc.lab.memory.limit", lambda: 64)
    assert isinstance((streamed := arrays.dataset(Path("x.npz"))).test.labels, Rows)
    assert streamed.untrained == ["rock", "sand"]


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "folder", "pth=x"], "unknown key 'pth'; did you mean path?"),
        (["info", "folder", "path"], "'path' is not KEY=VALUE"),
        (["info", "folder"], "data.path is empty: give data=folder data.path=DIR"),
        (["info", "npz", "size=[4]"], "unknown key 'size'"),
        (["info", "folder", "size=x"], "size"),
        (["info", "folder", "size=32"], "size=32: size is a list, write size=[32]"),
        (["info", "folder", "size=[0]"], "data.size must be at least 1, got 0"),
        (["show", "terrain", "--out", "x.jpg"], "--out x.jpg must end in .png"),
        (["prepare", "folder"], "folder is your own data and needs no preparing"),
    ],
)
def test_what_the_commands_cannot_do_is_one_line(arguments, message, capsys):
    assert main(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train_labels": np.arange(9) * 10**7},
            "x.npz: train_labels has the value 80000000, but labels are the numbers of classes, 0 to 65535",
        ),
        (
            {"train_labels": np.arange(9) % 2 * 2**32},
            "x.npz: train_labels has the value 4294967296, which does not fit into int32",
        ),
        (
            {"train_labels": np.arange(9, dtype=np.uint64) + 2**63},
            f"x.npz: train_labels has the value {2**63 + 8}, which does not fit into int32",
        ),
        ({"valid_images": np.arange(3)}, "x.npz: unknown array 'valid_images'; did you mean val_images?"),
        ({"train_label": np.arange(3)}, "x.npz: unknown array 'train_label'; did you mean train_labels?"),
        (
            {
                "test_images": np.where(np.arange(3 * 36).reshape(3, 6, 6) == 2 * 36 + 8, np.inf, 0).astype(
                    "f4"
                )
            },
            "x.npz: test_images must be finite, but has NaN or infinity, first at [2, 1, 2]",
        ),
    ],
)
def test_what_does_not_fit_in_an_npz_file_is_named(tmp_path, monkeypatch, changed, message):
    monkeypatch.chdir(tmp_path)
    splits = {"train": 9, "test": 3}
    parts = {f"{split}_images": np.zeros((count, 6, 6), np.float32) for split, count in splits.items()}
    parts |= {f"{split}_labels": np.arange(count) % 2 for split, count in splits.items()}
    np.savez("x.npz", **parts | changed)
    with pytest.raises(InputError, match=re.escape(message)) as line:
        arrays.dataset(Path("x.npz"))
    assert "\n" not in str(line.value)
    if "train_labels" in changed and changed["train_labels"].max() < 2**31:
        np.savez("x.npz", **parts | {"train_labels": np.arange(9) * 8191})
        assert len(arrays.dataset(Path("x.npz")).classes) == 65529


@pytest.mark.parametrize("part", ["images", "targets"])
def test_a_value_that_is_not_finite_in_a_folder_is_named_with_its_file(tmp_path, part):
    for number in range(12):
        for one in ("images", "targets"):
            values = np.full((6, 6), 0.5, np.float32)
            values[1, 2] = np.nan if (one, number) == (part, 7) else 0
            save(tmp_path / one / f"{number}.tif", values)
    place = re.escape(str(tmp_path / part / "7.tif"))
    with pytest.raises(InputError, match=f"^{place} has NaN or infinity: {part} must be finite$"):
        folder.dataset(tmp_path)


def test_a_launch_on_changed_data_ends_with_one_line_and_changes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    masked(tmp_path / "photos", 40)
    values = {
        "data": {"name": "folder", "path": "photos"},
        "net": {"width": 2},
        "train": {"batch_size": 2, "epochs": 9},
        "ops": {"backend": "lax"},
    }
    run = finished(tmp_path, "a" * 16, **values)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    arguments = [
        "data=folder",
        "data.path=photos",
        "ops.backend=lax",
        "net.width=2",
        "train.batch_size=2",
        "train.epochs=9",
    ]
    assert main(["train", *arguments, "name=mine", f"results={tmp_path}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert f"{run.run_id}/run.json was made with data of fingerprint aaaa" in line
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def classified(root: Path, names: str = "ab") -> Path:
    """A folder with 12 images in each class."""
    for name in names:
        for number, image in enumerate(drawn(12)[0]):
            save(root / name / f"{number}.png", image)
    return root


def test_files_that_windows_writes_into_folders_are_ignored(tmp_path):
    root = classified(tmp_path / "photos")
    expected = folder.dataset(root).fingerprint
    for place in (root, root / "a"):
        for name in ("Thumbs.db", "desktop.ini", "Desktop.ini", ".DS_Store"):
            (place / name).write_bytes(b"x")
    assert folder.dataset(root).fingerprint == expected


@pytest.mark.parametrize("limit", [None, 2000])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_all_files_that_cannot_be_read_are_counted_and_five_are_named(tmp_path, monkeypatch, count, limit):
    root = classified(tmp_path / "photos")
    if limit:
        monkeypatch.setattr(folder.memory, "limit", lambda: limit)
    order = sorted(root.rglob("*.png"))
    train = [path for path in order if split_of(f"{path.parent.name}/{path.stem}") == "train"]
    for path in (broken := train[:count]):
        path.write_bytes(b"no image" if path is not broken[-1] else path.read_bytes()[:90])
    with pytest.raises(InputError) as caught:
        folder.dataset(root)
    said = str(caught.value)
    assert said.startswith(f"{broken[0]} ")
    more = " and 2 more" if count == 7 else ""
    listed = f" ({count} files cannot be read: {', '.join(map(str, broken[:5]))}{more})"
    assert said.endswith(listed) == (count > 1)


def test_how_to_convert_a_grey_image_among_coloured_ones_is_said(tmp_path):
    root = classified(tmp_path / "photos")
    grey = root / "b" / "7.png"
    colours = folder.dataset(root).image_shape
    with Image.open(grey) as image:
        image.convert("L").save(grey)
    with pytest.raises(InputError, match=r"has 1 uint8 channel, but .* all must be alike; PIL") as caught:
        folder.dataset(root)
    command = re.search("; PIL[.](.*) gives a file 3 channels$", str(caught.value))
    assert command
    exec(command[1], {"Image": Image, "FILE": grey})
    assert folder.dataset(root).image_shape == colours


@pytest.mark.parametrize("command", ["data info folder path={}", "train data=folder data.path={}"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("one", "one has only one subfolder of a class, a: classification needs at least two"),
        ("nope", "data.path=nope is not there"),
    ],
)
def test_a_single_class_or_no_folder_is_refused(tmp_path, monkeypatch, capsys, command, place, message):
    monkeypatch.chdir(tmp_path)
    classified(Path("one"), "a")
    assert main(command.format(place).split()) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line
    assert not Path("results").exists()


@pytest.mark.parametrize("name", ["my textures (2024)", "a,b", 'it\'s "ü" [{x}] \\ (d\\'])
def test_how_to_quote_a_path_that_hydra_does_not_take_is_said(capsys, name):
    assert main(["train", "--cfg", "job", "data=folder", f"data.path={name}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    asked = re.search("(?:type|text) ('.*')(?:, and a sweep needs -m)?$", line)
    assert asked
    (override,) = shlex.split(asked[1])
    assert main(["train", "--cfg", "job", "data=folder", override]) == 0
    assert OmegaConf.create(capsys.readouterr().out).data.path == name


@pytest.mark.parametrize("axes", [1, 3, 4])
def test_an_npz_larger_than_a_quarter_of_the_memory_is_read_row_by_row_and_is_the_same(
    tmp_path, monkeypatch, axes
):
    images, maps = drawn(30)
    labels = {1: np.arange(30) % 3, 3: np.where(maps == 2, 255, maps), 4: maps[..., None] / np.float32(2)}[
        axes
    ]
    grey = images[..., 0]  # without an axis of channels
    path = tmp_path / "own.npz"
    cuts = {"train": slice(20), "val": slice(20, 25), "test": slice(25, None)}
    parts = {
        f"{split}_{what}": array[cut]
        for split, cut in cuts.items()
        for what, array in (("images", grey), ("labels", labels))
    }
    np.savez(path, classes=["sea", "land", "ice"][: 1 if axes == 4 else 3], **parts)
    whole = arrays.dataset(path)
    monkeypatch.setattr(arrays.memory, "limit", lambda: 4000)
    streamed = arrays.dataset(path)
    assert isinstance(streamed.train.images, Rows)
    assert isinstance(streamed.test.labels, Rows)
    assert (whole.task, whole.classes) == (streamed.task, streamed.classes)
    assert whole.fingerprint == streamed.fingerprint
    for split in ("train", "validation", "test"):
        one, other = whole.splits[split], streamed.splits[split]
        for mine, theirs in ((one.images, other.images), (one.labels, other.labels)):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(np.asarray(theirs), mine)
    np.testing.assert_array_equal(whole.train.images[..., 0], grey[:20])
    np.testing.assert_array_equal(whole.train.labels, labels[:20])
    np.savez_compressed(path, **parts)
    monkeypatch.setattr(arrays.memory, "limit", lambda: 900)
    with pytest.raises(InputError, match=r"more than the 900 of memory: .*np\.savez"):
        arrays.dataset(path)


def test_a_streamed_label_that_does_not_fit_into_int32_is_named(tmp_path, monkeypatch):
    images, _ = drawn(3)
    split = {"images": images, "labels": np.array([0, 2**32, 1])}
    names = {f"{one}_{what}": array for one in ("train", "val", "test") for what, array in split.items()}
    np.savez(tmp_path / "own.npz", **names)
    monkeypatch.setattr(arrays.memory, "limit", lambda: 100)
    with pytest.raises(InputError, match="train_labels has the value 4294967296"):
        arrays.dataset(tmp_path / "own.npz")


def test_targets_in_an_npz_are_a_regression_with_a_peak(tmp_path):
    images, maps = drawn(30)
    np.savez(tmp_path / "own.npz", train_images=images, train_labels=maps[..., None].astype(np.float32))
    found = made(choose("data", name="npz", path=str(tmp_path / "own.npz"), peak=2.0))
    assert (found.task, found.classes, found.peak) == ("regression", ("0",), 2.0)
    assert sum(map(len, found.splits.values())) == 30
    with pytest.raises(InputError, match="peak must be a number above 0, got 0"):
        choose("data", name="npz", path="x", peak=0)

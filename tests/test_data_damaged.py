"""Damaged data of one's own: each is one line that names the file, exit code 2, and leaves nothing behind.

Fifty kinds of damage, each ten times: to another file, in another format, at another place.
"""

import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdc.lab.commands.main import main

TIMES = 10
KINDS: list[Callable] = []
FORMATS = ("png", "tif", "webp", "jpg")


def kind(function: Callable) -> Callable:
    KINDS.append(function)
    return function


class Case:
    """A whole folder and a whole .npz file, to be damaged; `named` is what the line has to name."""

    def __init__(self, root: Path, number: int):
        self.root, self.number = root, number
        self.random = np.random.default_rng(number)
        self.suffix = FORMATS[number % len(FORMATS)]
        self.split = ("train", "val", "test")[number % 3]
        self.options: list[str] = []
        self.named = ""
        self.name = "folder"
        self.path = root / "photos"
        for split in ("train", "val", "test"):
            for stem in "abc":
                save(self.path / split / "images" / f"{stem}.{self.suffix}", self.pixels(8, 8, 3))
                mask = self.random.integers(0, 3, (8, 8), dtype=np.uint8)
                save(self.path / split / "masks" / f"{stem}.png", mask)
        (self.path / "classes.txt").write_text("sea\nland\nice\n")

    def pixels(self, *shape: int, dtype: type = np.uint8) -> np.ndarray:
        return self.random.integers(0, 256, shape).astype(dtype)

    def image(self) -> Path:
        return self._name(self.path / self.split / "images" / f"{'abc'[self.number % 3]}.{self.suffix}")

    def mask(self) -> Path:
        return self._name(self.path / self.split / "masks" / f"{'abc'[self.number % 3]}.png")

    def either(self) -> Path:
        return self.image() if self.number % 2 else self.mask()

    def _name(self, path: Path) -> Path:
        self.named = str(path)
        return path

    def flat(self) -> None:
        """Put all images into one folder, for `splits.csv`."""
        for part in ("images", "masks"):
            (self.path / part).mkdir()
            for file in list(self.path.glob(f"*/{part}/*")):
                file.rename(self.path / part / f"{file.parts[-3]} {file.name}")
        for split in ("train", "val", "test"):
            shutil.rmtree(self.path / split)

    def classes(self) -> None:
        """A subfolder per class in place of masks."""
        for split in ("train", "val", "test"):
            shutil.rmtree(self.path / split / "masks")
            (self.path / split / "images").rename(self.path / split / "sea")
            shutil.copytree(self.path / split / "sea", self.path / split / "land")
        (self.path / "classes.txt").unlink()

    def npz(self, **changes: np.ndarray | None) -> Path:
        """Write an .npz file with some arrays replaced or left out."""
        arrays = {"classes": np.array(["sea", "land", "ice"])}
        for split in ("train", "val", "test"):
            arrays[f"{split}_images"] = self.pixels(4, 8, 8, 3)
            arrays[f"{split}_labels"] = self.random.integers(0, 3, (4, 8, 8))
        arrays |= changes
        self.name, self.path = "npz", self._name(self.root / "tiles.npz")
        found = {name: array for name, array in arrays.items() if array is not None}
        (np.savez_compressed if self.number % 2 else np.savez)(self.path, allow_pickle=True, **found)
        return self.path

    @property
    def part(self) -> str:
        return f"{self.split}_{('images', 'labels')[self.number // 3 % 2]}"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def png_of(width: int, height: int, depth: int, colours: int, rows: bytes) -> bytes:
    """A PNG file written by hand."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    whole = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


# Files of a folder.


@kind
def truncated(case: Case) -> None:
    path = case.either()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * case.random.uniform(0.02, 0.7))])


@kind
def empty_file(case: Case) -> None:
    case.either().write_bytes(b"")


@kind
def garbage(case: Case) -> None:
    case.either().write_bytes(case.random.bytes(400))


@kind
def another_kind_of_file(case: Case) -> None:
    case.either().write_bytes(
        (b"%PDF-1.7\n", b"GIF89a", b"<svg/>", b"version https://git-lfs")[case.number % 4]
    )


@kind
def noise_after_the_signature(case: Case) -> None:
    path = case.image()
    content = path.read_bytes()
    path.write_bytes(content[:16] + case.random.bytes(len(content)))


@kind
def mask_of_another_size(case: Case) -> None:
    save(case.mask(), np.zeros((8, 7 - case.number % 4), np.uint8))


@kind
def image_of_another_size(case: Case) -> None:
    path, size = case.image(), 9 + case.number % 4
    save(path, case.pixels(8, size, 3))
    save(path.parent.parent / "masks" / f"{path.stem}.png", np.zeros((8, size), np.uint8))


@kind
def unknown_class(case: Case) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[case.number % 8, 3] = 3 + 20 * case.number
    save(case.mask(), mask)


@kind
def other_channels(case: Case) -> None:
    path = case.image().with_suffix(".png")
    case.image().unlink()
    case.named = str(case.path)  # the odd one may come first, then the other one is named
    save(path, case.pixels(8, 8, 4))


@kind
def other_depth(case: Case) -> None:
    path = case.image().with_suffix(".tif")
    case.image().unlink()
    case.named = str(case.path)
    save(path, case.pixels(8, 8, dtype=(np.uint16, np.float32)[case.number % 2]))


@kind
def colours_for_a_mask(case: Case) -> None:
    save(case.mask(), case.pixels(8, 8, 3 + case.number % 2))


@kind
def fractions_for_a_mask(case: Case) -> None:
    path = case.mask()
    path.unlink()
    case.named = str(path.with_suffix(".tif"))
    save(path.with_suffix(".tif"), case.pixels(8, 8, dtype=np.float32))


@kind
def jpeg_for_a_mask(case: Case) -> None:
    path = case.mask()
    path.unlink()
    case.named = str(path.with_suffix((".jpg", ".JPEG")[case.number % 2]))
    save(Path(case.named), np.zeros((8, 8), np.uint8))


@kind
def colours_of_16_bits(case: Case) -> None:
    case.image().unlink()
    path = case._name(case.image().with_suffix(".png"))
    path.write_bytes(png_of(8, 8, 16, (2, 6)[case.number % 2], b"\0" * 8 * (1 + 8 * (6, 8)[case.number % 2])))


@kind
def more_pixels_than_there_is_memory(case: Case) -> None:
    case.image().unlink()
    path = case._name(case.image().with_suffix(".png"))
    path.write_bytes(png_of(60_000 + case.number, 60_000, 8, 2, b""))


@kind
def several_frames(case: Case) -> None:
    case.image().unlink()
    path = case._name(case.image().with_suffix((".png", ".webp")[case.number % 2]))
    frames = [Image.fromarray(case.pixels(8, 8, 3)) for _ in range(2 + case.number % 3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@kind
def pages_of_several_sizes(case: Case) -> None:
    case.image().unlink()
    path = case._name(case.image().with_suffix(".tif"))
    pages = [Image.fromarray(case.pixels(8, 8 + place)) for place in range(2 + case.number % 3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


@kind
def image_without_mask(case: Case) -> None:
    case.mask().unlink()
    case.image()


@kind
def mask_without_image(case: Case) -> None:
    case.image().unlink()
    case.mask()


@kind
def two_of_one_name(case: Case) -> None:
    path = case.either()
    twin = path.with_suffix(".jpeg" if case.number % 2 else ".tiff")
    shutil.copy(path, twin)
    case.named = str(path.with_suffix(""))


@kind
def no_image_at_all(case: Case) -> None:
    path = case._name(case.either().parent)
    shutil.rmtree(path)
    path.mkdir()


@kind
def missing_folder(case: Case) -> None:
    path = case._name(case.either().parent)
    shutil.rmtree(path)


@kind
def file_for_a_folder(case: Case) -> None:
    path = case.either().parent
    shutil.rmtree(path)
    path.write_text("x")
    case.named = str(case.path)


@kind
def folder_among_the_images(case: Case) -> None:
    path = case._name(case.either().parent / ("more", "d.png")[case.number % 2])
    path.mkdir()


@kind
def symlink_loop(case: Case) -> None:
    path = case.either()
    path.unlink()
    path.symlink_to(path.name)


@kind
def folders_that_loop(case: Case) -> None:
    path = case._name(case.either().parent / "again")
    path.symlink_to(("..", "../..", ".")[case.number % 3])


@kind
def link_to_nothing(case: Case) -> None:
    path = case.either()
    path.unlink()
    path.symlink_to(f"nowhere{case.number}.png")


@kind
def pipe(case: Case) -> None:
    path = case.either()
    path.unlink()
    os.mkfifo(path)


@kind
def other_files(case: Case) -> None:
    path = case.either().parent / ("notes.txt", "x.gif", "x.npy", "x", "Thumbs.dbx")[case.number % 5]
    case._name(path).write_bytes(b"x")


@kind
def hostile_name(case: Case) -> None:
    path = case.image().parent / ("a\nb.png", "\x1b[31mred.png", "a\rb.png", "\u202ex.png")[case.number % 4]
    path.write_bytes(b"x")
    case.named = str(path.parent)


@kind
def class_names(case: Case) -> None:
    path = case._name(case.path / "classes.txt")
    path.write_bytes(
        (b"", b"\n\n", b"a\na\nb", b"a\n\nb\nc", b"\xff\xfe\x00", b"a\n b \nb\nc")[case.number % 6]
    )


@kind
def too_few_class_names(case: Case) -> None:
    (case.path / "classes.txt").write_text("sea\n")
    case.named = str(case.path / "train" / "masks")


@kind
def subfolders_and_class_names_differ(case: Case) -> None:
    case.classes()
    case._name(case.path / "classes.txt").write_text(
        ("sea\n", "sea\nland\nice", "Sea\nland")[case.number % 3]
    )


@kind
def image_beside_the_classes(case: Case) -> None:
    case.classes()
    save(case._name(case.path / case.split / "x.png"), case.pixels(8, 8, 3))


@kind
def empty_class(case: Case) -> None:
    case.classes()
    case._name(case.path / case.split / "rock").mkdir()


@kind
def masks_in_some_splits(case: Case) -> None:
    shutil.rmtree(case.path / case.split / "masks")
    (case.path / case.split / "images").rename(case.path / case.split / "sea")
    case.named = str(case.path)


@kind
def listed_splits(case: Case) -> None:
    case.flat()
    names = [file.stem for file in sorted((case.path / "images").iterdir())]
    lines = [f"{name},{name.split()[0]}" for name in names]
    bad = case.number % 5
    if bad == 4:
        lines.pop()
    else:
        lines[case.number % 9] = (
            f"{names[0]},dev",
            "nobody,train",
            f"{names[5]}",
            f"{names[case.number % 9 - 1]},val",
        )[bad]
    case._name(case.path / "splits.csv").write_text("\n".join(lines))


@kind
def splits_both_ways(case: Case) -> None:
    (case.path / "splits.csv").write_text("a,train\n")
    case.named = str(case.path)


@kind
def not_enough_splits(case: Case) -> None:
    case.named = str(case.path)
    if case.number % 2:
        shutil.rmtree(case.path / "train")
    else:
        (case.path / "validation").mkdir()
        shutil.copytree(case.path / "val" / "images", case.path / "validation" / "images")
        case.named = "validation"


@kind
def no_data_there(case: Case) -> None:
    place = case.root / ("nowhere", "empty", "file", "loop", "empty/deep")[case.number % 5]
    (case.root / "empty").mkdir()
    (case.root / "file").write_text("x")
    (case.root / "loop").symlink_to("loop")
    case.path = case._name(place)


@kind
def far_away(case: Case) -> None:
    scheme = ("s3", "gs", "az", "hf", "https", "ftp")[case.number % 6]
    case.name = ("folder", "npz")[case.number % 2]
    case.options = [f"path={scheme}://bucket/data"]
    case.named = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub"}.get(scheme, "fsspec")


# Arrays.


@kind
def npz_cut_off(case: Case) -> None:
    path = case.npz()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * (case.number / 12))])  # from nothing on


@kind
def npz_of_something_else(case: Case) -> None:
    path = case.npz()
    path.unlink()
    made: list[Callable] = [
        path.mkdir,
        lambda: path.symlink_to(path.name),
        lambda: path.write_text("hello"),
        lambda: path.write_bytes(b"\x93NUMPY\x01\0"),
        lambda: os.mkfifo(path),
        lambda: zipfile.ZipFile(path, "w").writestr("train_images.npy", "x"),
    ]
    made[case.number % len(made)]()


@kind
def npz_with_a_flipped_bit(case: Case) -> None:
    path = case.npz()
    with zipfile.ZipFile(path) as archive:
        entry = archive.infolist()[1 + case.number % 6]
    content = bytearray(path.read_bytes())
    content[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 1 << case.number % 8
    path.write_bytes(content)


@kind
def npz_with_objects(case: Case) -> None:
    case.npz(**{case.part: np.array([{"a": 1}, None, "x", 3], dtype=object)})


@kind
def npz_that_claims_too_much(case: Case) -> None:
    path = case.npz()
    buffer = io.BytesIO()
    shape = (10**6, 10**4, 10**3, 3) if case.number % 2 else (4, 8, 8, 4)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{('more', 'val_more')[case.number % 2]}.npy", buffer.getvalue() + b"\0" * 20)


@kind
def npz_without_an_array(case: Case) -> None:
    case.npz(**{case.part: None})


@kind
def npz_of_another_type(case: Case) -> None:
    dtype = (np.float64, np.complex64, "U3", np.float16)[case.number % 4]
    shape = (4, 8, 8, 3) if case.part.endswith("images") else (4, 8, 8)
    case.npz(**{case.part: np.ones(shape).astype(dtype)})


@kind
def npz_of_another_shape(case: Case) -> None:
    shape = ((4, 8, 7), (3, 8, 8), (4, 8, 8, 1, 1), (0, 8, 8), (4, 64))[case.number % 5]
    shape = shape if case.part.endswith("labels") else (*shape, 3)
    dtype = np.int64 if case.part.endswith("labels") else np.uint8
    case.npz(**{case.part: np.zeros(shape, dtype)})


@kind
def npz_with_labels_out_of_range(case: Case) -> None:
    labels = np.zeros((4, 8, 8), np.int64)
    labels[3, 2, 1] = (3, -1, 254, 2**40, -(2**31), 256)[case.number % 6]
    case.npz(**{f"{case.split}_labels": labels})


@kind
def npz_with_bad_names(case: Case) -> None:
    names = (["a", "a", "b"], ["a"], [["a", "b", "c"]], [b"a", b"b", b"c"], [])[case.number % 5]
    case.npz(classes=np.array(names))


@kind
def npz_that_is_not_finite(case: Case) -> None:
    images = {
        f"{split}_images": case.pixels(4, 8, 8, 1).astype(np.float32) for split in ("train", "val", "test")
    }
    images[f"{case.split}_images"][case.number % 4, 3, 3] = (np.nan, np.inf, -np.inf)[case.number % 3]
    case.npz(**images)


def test_there_are_five_hundred() -> None:
    assert len(KINDS) * TIMES >= 500


@pytest.mark.parametrize("damage", KINDS, ids=lambda one: one.__name__)
def test_damage_is_one_line_that_names_the_file_and_leaves_nothing(damage, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "cache"))
    for number in range(TIMES):
        root = tmp_path / str(number)
        case = Case(root, number)
        damage(case)
        before = sorted(root.rglob("*"))
        arguments = case.options or [f"path={case.path}"]
        assert main(["data", "info", case.name, *arguments]) == 2, number
        captured = capsys.readouterr()
        assert captured.out == "", number
        (line,) = captured.err.splitlines()
        assert line.startswith("hdc data: error: ")
        assert case.named in line, number
        assert "\x1b" not in line
        assert len(line) < 600
        assert sorted(root.rglob("*")) == before
        assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_what_was_damaged_is_read_when_it_is_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "cache"))
    for number in range(4):
        case = Case(tmp_path / str(number), number)
        assert main(["data", "info", "folder", f"path={case.path}"]) == 0, capsys.readouterr().err
        case.npz()
        assert main(["data", "info", "npz", f"data.path={case.path}"]) == 0, capsys.readouterr().err
        captured = capsys.readouterr()
        assert "fingerprint" in captured.out
        assert captured.err == ""

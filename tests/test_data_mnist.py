"""MNIST and Fashion-MNIST on small stand-ins: prepared, verified, read back; no network, no TensorFlow."""

import functools
import gzip
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered
from tensorflow_datasets.core.download.checksums import UrlInfo

from hdc.errors import InputError
from hdc.lab.data import idx

RNG = np.random.default_rng(7)
IMAGES = {"train": RNG.integers(0, 256, (60, 28, 28), dtype=np.uint8),
          "t10k": RNG.integers(0, 256, (10, 28, 28), dtype=np.uint8)}  # fmt: skip
LABELS = {part: (np.arange(len(IMAGES[part])) % 10).astype(np.uint8) for part in IMAGES}


def to_idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


FILES = {f"{part}-images-idx3-ubyte": to_idx(IMAGES[part]) for part in IMAGES} | {
    f"{part}-labels-idx1-ubyte": to_idx(LABELS[part]) for part in LABELS
}


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets of 60 and 10 images instead of 60,000 and 10,000; returns the folder of prepared data sets."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("HDC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sums = {stem: hashlib.sha256(content).hexdigest() for stem, content in FILES.items()}
    monkeypatch.setattr(idx, "PAYLOADS", {"mnist": sums, "fashion_mnist": sums})
    monkeypatch.setattr(idx, "EXAMPLES", {"train": 60, "test": 10})
    monkeypatch.setattr(idx, "VALIDATION", 5)
    return tmp_path / "tfds"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for stem, content in FILES.items():
        (folder / f"{stem}.gz").write_bytes(gzip.compress(content, mtime=0))
    return folder


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_prepare_from_a_folder_then_load(name: str, source: Path, small: Path) -> None:
    assert not idx.is_prepared(name)
    folder = idx.prepare(name, source)
    assert folder == small / name / "3.0.1"
    assert idx.is_prepared(name)
    dataset = idx.dataset(name)
    assert (dataset.name, dataset.task, dataset.image_shape) == (name, "classification", (28, 28, 1))
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [55, 5, 10]
    assert dataset.classes[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[name]
    together = [
        np.concatenate([getattr(dataset.train, part), getattr(dataset.validation, part)])
        for part in ("images", "labels")
    ]
    assert pairs(*together) == pairs(IMAGES["train"], LABELS["train"])
    assert pairs(dataset.test.images, dataset.test.labels) == pairs(IMAGES["t10k"], LABELS["t10k"])


def test_the_stock_data_source_reads_it_and_validation_is_its_tail(source: Path, small: Path) -> None:
    idx.prepare("mnist", source)
    stock = tfds.data_source("mnist", split="train", data_dir=small)
    dataset = idx.dataset("mnist")
    for index, example in enumerate(stock):
        split, at = (dataset.train, index) if index < 55 else (dataset.validation, index - 55)
        np.testing.assert_array_equal(split.images[at], example["image"], strict=True)
        assert split.labels[at] == example["label"]


def test_files_without_gzip_and_with_another_gzip_header(source: Path) -> None:
    first, second, *_ = FILES
    (source / f"{first}.gz").unlink()
    (source / first).write_bytes(FILES[first])
    (source / f"{second}.gz").write_bytes(gzip.compress(FILES[second], compresslevel=1, mtime=1))
    idx.prepare("mnist", source)
    assert len(idx.dataset("mnist").test) == 10


def another(content: bytes) -> bytes:
    return gzip.compress(content[:-1] + bytes([content[-1] ^ 1]))


def short(content: bytes) -> bytes:
    return gzip.compress(content)[:-20]


@pytest.mark.parametrize(
    ("change", "message"),
    [(another, "not the original file"), (short, "damaged gzip"), (lambda _: None, "has neither")],
)
@pytest.mark.parametrize("stem", FILES)
def test_a_wrong_file_is_refused(stem: str, change, message: str, source: Path, small: Path) -> None:
    content = change(FILES[stem])
    (source / f"{stem}.gz").unlink()
    if content is not None:
        (source / f"{stem}.gz").write_bytes(content)
    with pytest.raises(InputError, match=f"{stem}.*{message}|{message}.*{stem}") as caught:
        idx.prepare("mnist", source)
    assert "\n" not in str(caught.value)
    assert not idx.is_prepared("mnist")
    assert written(small) == []


def test_an_interrupted_preparation_leaves_nothing(source: Path, small: Path, monkeypatch) -> None:
    def interrupted(*payloads: bytes) -> Iterator[object]:
        examples = real(*payloads)
        yield next(examples)
        raise KeyboardInterrupt

    real = idx._examples
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(idx, "_examples", interrupted)
        idx.prepare("mnist", source)
    assert not idx.is_prepared("mnist")
    assert written(small) == []
    idx.prepare("mnist", source)
    assert len(idx.dataset("mnist").train) == 55


def test_the_process_that_comes_second_takes_the_first_ones_result(source: Path, monkeypatch) -> None:
    with registered.skip_registration():

        class Second(idx.Mnist):
            name = "mnist"

            def download_and_prepare(self, **options) -> None:
                super().download_and_prepare(**options)
                raise OSError("Directory not empty")

    monkeypatch.setitem(idx._BUILDERS, "mnist", Second)
    assert idx.prepare("mnist", source).exists()


def test_an_incomplete_folder_is_named(source: Path, small: Path) -> None:
    (small / "mnist" / "3.0.1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"3\.0\.1 exists and is not complete"):
        idx.prepare("mnist", source)


def test_a_folder_that_cannot_be_written(source: Path, small: Path) -> None:
    small.write_text("a file where the folder should be")
    with pytest.raises(InputError, match="mnist cannot be prepared"):
        idx.prepare("mnist", source)


def test_damaged_or_incomplete_prepared_files_are_named(source: Path, small: Path, monkeypatch) -> None:
    folder = idx.prepare("mnist", source)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="60 instead of 61 images"):
        patch.setattr(idx, "EXAMPLES", {"train": 61, "test": 10})
        idx.dataset("mnist")
    (shard,) = folder.glob("*train*")
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(InputError, match=r"3\.0\.1 is damaged .* delete it and prepare it again") as caught:
        idx.dataset("mnist")
    assert "\n" not in str(caught.value)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`source` behind a local server, whose files tensorflow-datasets knows with size and checksum."""
    handler = functools.partial(Quiet, directory=str(source))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        use_url(f"http://127.0.0.1:{server.server_port}/", source, monkeypatch)
        yield source
        server.shutdown()
        thread.join()


def use_url(url: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infos = {}
    for path in source.iterdir():
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        size = tfds.core.utils.Size(path.stat().st_size)
        infos[url + path.name] = UrlInfo(size=size, checksum=checksum, filename=path.name)
    with registered.skip_registration():

        class Local(idx.Mnist):
            name = "mnist"
            URL = url
            url_infos = infos

    monkeypatch.setitem(idx._BUILDERS, "mnist", Local)


def test_load_downloads_what_is_not_prepared(served: Path, small: Path, caplog) -> None:
    with caplog.at_level("INFO", "hdc"):
        assert len(idx.dataset("mnist").train) == 55
    assert "mnist is not prepared: downloading" in caplog.text
    assert [path.name for path in small.iterdir()] == ["mnist"]  # the downloads are gone


def test_a_download_with_the_wrong_checksum_is_refused_and_can_be_repeated(served: Path, small: Path) -> None:
    stem = "t10k-labels-idx1-ubyte"
    (served / f"{stem}.gz").write_bytes(another(FILES[stem]))
    with pytest.raises(
        InputError, match=f"mnist cannot be prepared: .*{stem}.* has wrong checksum"
    ) as caught:
        idx.prepare("mnist")
    assert "\n" not in str(caught.value)
    assert not idx.is_prepared("mnist")
    assert written(small) == []
    (served / f"{stem}.gz").write_bytes(gzip.compress(FILES[stem], mtime=0))
    assert len(idx.dataset("mnist").test) == 10


def test_a_missing_file_on_the_server(served: Path) -> None:
    for path in served.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="mnist cannot be downloaded: 404"):
        idx.prepare("mnist")


def test_without_a_network_load_says_what_to_do_at_once(source: Path, monkeypatch) -> None:
    with socket.socket() as unused:  # bound and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        use_url(f"http://127.0.0.1:{unused.getsockname()[1]}/", source, monkeypatch)
        start = time.monotonic()
        with pytest.raises(InputError) as caught:
            idx.dataset("mnist")
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("mnist is not prepared: run 'hdc data prepare mnist' where there is a network")
    assert "hdc data prepare mnist --from DIR" in message
    assert "data=terrain needs no download" in message


def test_the_stock_builders_have_the_same_version_and_know_every_download() -> None:
    infos = tfds.core.download.checksums.get_all_url_infos()
    for builder in (idx.Mnist, idx.FashionMnist):
        assert {builder.url(stem) for stem in FILES} <= set(infos)
        assert tfds.builder(builder.name).info.full_name == f"{builder.name}/{builder.VERSION}"


def test_preparing_and_loading_do_not_import_tensorflow(source: Path, tmp_path: Path) -> None:
    stub = tmp_path / "stub" / "tensorflow"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    program = f"""
import sys
from hdc.lab.data import idx
idx.PAYLOADS, idx.EXAMPLES, idx.VALIDATION = {idx.PAYLOADS!r}, {idx.EXAMPLES!r}, 5
from pathlib import Path
idx.prepare("mnist", Path({str(source)!r}))
assert len(idx.dataset("mnist").train) == 55
assert "tensorflow" not in sys.modules
import tensorflow
assert tensorflow.__file__.startswith({str(tmp_path)!r})
"""
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{stub.parent}{os.pathsep}{root}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

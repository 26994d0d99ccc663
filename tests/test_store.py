"""The store: what is written is whole, what is read is what was written, and nothing else is replaced."""

import hashlib
import json
import os
import socket
import stat
import threading

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import synthetic

from hdc.errors import InputError
from hdc.lab import records, store
from hdc.lab.store import Unwritable

ARRAYS = {
    "b.c/['d']": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a": np.array(7, np.int64),
    "flags": np.array([True, False, True]),
    "none": np.zeros((0, 3), np.float16),
    "é": np.arange(5, dtype=np.uint16)[::-1],
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_arrays_come_back_and_others_can_read_them(tmp_path):
    path = tmp_path / "x.safetensors"
    store.write_safetensors(path, ARRAYS, {"number": 1.5, "text": "é\n"})
    assert path.read_bytes() == store.to_safetensors(ARRAYS, {"number": 1.5, "text": "é\n"})
    found, about = store.read_safetensors(path)
    assert about == {"number": 1.5, "text": "é\n"}
    assert_same(found, ARRAYS)
    assert all(array.flags.aligned and array.flags.writeable for array in found.values())
    assert_same(safetensors.numpy.load_file(path), ARRAYS)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["hdc"])["number"] == 1.5
    assert list(tmp_path.iterdir()) == [path]


def test_every_type_that_jax_computes_in_is_kept(tmp_path):
    import ml_dtypes

    path = tmp_path / "x.safetensors"
    names = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64"
    arrays = {name: np.ones(3, name) for name in names.split()}
    arrays["bfloat16"] = np.arange(3).astype(ml_dtypes.bfloat16)
    store.write_safetensors(path, arrays, {})
    assert_same(store.read_safetensors(path)[0], arrays)


def older(arrays, about) -> bytes:
    """A file as it was written before: each array hashed in one piece, by the package safetensors."""
    hashed = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        hashed.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        hashed.update(arrays[name].tobytes())
    header = json.dumps({**about, "sha256": hashed.hexdigest()}, sort_keys=True)
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(plain, {"hdc": header})


@pytest.mark.parametrize("piece", [7, 16, 2**24])
def test_older_files_and_arrays_of_many_pieces_are_read(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(store, "_PIECE", piece)
    monkeypatch.setattr(store._digest, "__defaults__", (piece,))
    path = tmp_path / "x.safetensors"
    arrays = {name: array for name, array in ARRAYS.items() if array.ndim}
    path.write_bytes(older(arrays, {"number": 1}))
    assert_same(store.read_safetensors(path)[0], arrays)
    store.write_safetensors(path, ARRAYS, {"number": 1})
    assert_same(store.read_safetensors(path)[0], ARRAYS)
    content = path.read_bytes()
    for place in range(8 + int.from_bytes(content[:8], "little"), len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"x\.safetensors is damaged"):
            store.read_safetensors(path)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 6]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},  # which NumPy takes for any
        {"dtype": "U8", "shape": [8], "data_offsets": [-8, 8]},
        {"dtype": "U8", "shape": [8], "data_offsets": [-8, 0]},
        {"dtype": "F64", "shape": [2**62, 4], "data_offsets": [0, 8]},
        {"dtype": "F9", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "U8", "shape": [8], "data_offsets": [0, "x"]},
        {"dtype": "U8", "shape": "x", "data_offsets": [0, 8]},
        {"dtype": "U8", "shape": [8], "data_offsets": [0]},
        {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},  # not all that there is
        {"dtype": "U8", "shape": [10**400], "data_offsets": [0, 8]},
        [],
        None,
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_is_one_line(tmp_path, tensor):
    header = json.dumps({"__metadata__": {"hdc": "{}"}, "x": tensor}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(InputError, match=r"x\.safetensors cannot be read: ") as caught:
        store.read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_arrays_that_overlap_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    store.write_safetensors(path, {"a": np.arange(8, dtype=np.float32), "b": np.ones(8, np.float32)}, {})
    content = path.read_bytes()
    assert content.count(b"[32,64]") == 1
    path.write_bytes(content.replace(b"[32,64]", b"[16,48]"))  # the sum of all bytes is right
    with pytest.raises(InputError, match="is damaged: its content is not what was written"):
        store.read_safetensors(path)


def test_of_several_files_all_are_written_or_none(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"before")
    second.mkdir()
    (second / "inside").touch()
    with pytest.raises(Unwritable, match="second cannot be written: "):
        store.write_all({second: b"x", first: b"after"})
    assert first.read_bytes() == b"before"
    store.write_all({first: b"after", tmp_path / "new" / "third": b"3"})
    assert first.read_bytes() == b"after"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["first", "inside", "new", "second", "third"]


def test_a_link_is_followed_and_kept(tmp_path):
    target, link, dangling = tmp_path / "folder" / "file", tmp_path / "link", tmp_path / "dangling"
    target.parent.mkdir()
    target.write_bytes(b"before")
    link.symlink_to(target)
    dangling.symlink_to("folder/new")
    store.write_out(link, b"after")
    store.write_out(dangling, b"new")
    assert target.read_bytes() == b"after"
    assert (tmp_path / "folder" / "new").read_bytes() == b"new"
    assert link.is_symlink() and dangling.is_symlink()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(Unwritable, match="loop cannot be written: "):
        store.write_out(loop, b"x")
    assert loop.is_symlink()


def test_our_own_files_replace_a_link(tmp_path):
    """A planted link must not make a run write elsewhere."""
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "link"
    elsewhere.write_bytes(b"before")
    link.symlink_to(elsewhere)
    store.write(link, b"after")
    assert elsewhere.read_bytes() == b"before"
    assert not link.is_symlink()


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to_and_stays(tmp_path, linked):
    pipe, path = tmp_path / "pipe", tmp_path / "path"
    os.mkfifo(pipe)
    path.symlink_to(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    content = bytes(range(256)) * 1000  # more than a pipe holds
    store.write_out(path if linked else pipe, content)
    reader.join(60)
    assert read == [content]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [path, pipe]


def test_a_device_is_written_to_and_a_full_one_is_an_error(tmp_path):
    full, null = tmp_path / "full", tmp_path / "null"
    try:  # the numbers of /dev/full and /dev/null
        os.mknod(full, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
        os.mknod(null, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        null.write_bytes(b"")
    except OSError:
        pytest.skip("this system lets no test make a device")
    for content in (b"x", bytes(1 << 20)):
        with pytest.raises(Unwritable, match="full cannot be written: No space left on device"):
            store.write_out(full, content)
        store.write_out(null, content)
    assert all(stat.S_ISCHR(path.stat().st_mode) for path in (full, null))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_socket_and_a_folder_are_refused_and_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (tmp_path / "folder").mkdir()
        for name, message in (("socket", "it is not a file, a pipe"), ("folder", "Is a directory")):
            with pytest.raises(Unwritable, match=f"{name} cannot be written: {message}"):
                store.write_out(tmp_path / name, b"x")
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "number", ["1" + "0" * 400, "9" * 5000, str(2**63), str(-(2**63) - 1), "1e400", "-1e999"]
)
def test_a_number_that_no_column_holds_is_refused_with_the_file(tmp_path, number):
    (run,) = records.plan(tmp_path / "study", [synthetic.configuration("hdc", [0])])
    synthetic.finish(run, "hdc")
    done = run.folder / "done.json"
    done.write_text(f'{{"finished": "2026-01-01T00:00:00", "seconds": {number}}}')
    (run,) = records.load("study", tmp_path)
    with pytest.raises(InputError, match=r"done\.json cannot be read: ") as caught:
        _ = run.seconds
    assert len(str(caught.value)) < 200 + len(str(tmp_path))


def test_numbers_at_the_ends_of_their_ranges_are_read(tmp_path):
    path = tmp_path / "x.json"
    ends = {"a": 2**63 - 1, "b": -(2**63), "c": 1.7976931348623157e308, "d": 5e-324}
    path.write_bytes(store.to_json(ends))
    assert store.read_json(path) == ends

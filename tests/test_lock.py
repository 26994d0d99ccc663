"""One process at a run: taken once, given back, taken over from the dead."""

import json
import os
import subprocess
import sys
import time

import pytest

from hdc.lab import locks as lock
from hdc.lab.locks import Lock, Taken, live_owner

HOLD = (
    "import pathlib, sys, time\n"
    "from hdc.lab.locks import Lock\n"
    "Lock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)\n"
)


def test_a_lock_is_taken_once_and_given_back(tmp_path):
    first = Lock(tmp_path)
    assert first.held
    with pytest.raises(Taken, match=f"process {os.getpid()} on "):
        Lock(tmp_path)
    first.release()
    assert not list(tmp_path.iterdir())
    assert not first.held
    second = Lock(tmp_path)
    first.release()  # again: the second keeps it
    assert second.held
    second.release()


def test_a_killed_owner_does_not_block(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Taken):
            Lock(tmp_path)
        process.kill()
    assert live_owner(tmp_path) is None
    Lock(tmp_path).release()


def test_a_process_number_used_again_is_not_the_owner(tmp_path):
    Lock(tmp_path)
    path = tmp_path / lock.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"begun": "1"}))
    assert live_owner(tmp_path) is None


def test_an_owner_elsewhere_lives_as_long_as_its_heart_beats(tmp_path):
    Lock(tmp_path)
    path = tmp_path / lock.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": "another", "host": "far"}))
    with pytest.raises(Taken, match="on far"):
        Lock(tmp_path)
    os.utime(path, (time.time() - lock.STALE + 20,) * 2)
    assert live_owner(tmp_path) is not None
    os.utime(path, (time.time() - lock.STALE - 1,) * 2)
    assert live_owner(tmp_path) is None
    Lock(tmp_path).release()


def test_the_heart_beats_and_does_not_touch_what_another_has(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    path = tmp_path / lock.FILE
    first = Lock(tmp_path)
    os.utime(path, (1000, 1000))
    deadline = time.monotonic() + 30
    while path.stat().st_mtime == 1000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"token": "other"}))
    time.sleep(0.05)
    os.utime(path, (1000, 1000))
    time.sleep(0.1)
    assert path.stat().st_mtime == 1000
    first.release()
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"pid": "x"}', b'{"machine": [1]}'])
def test_a_lock_that_says_nothing_lasts_no_longer_than_a_heartbeat(tmp_path, content):
    path = tmp_path / lock.FILE
    path.write_bytes(content)
    os.utime(path, (1000, 1000))
    Lock(tmp_path).release()


def test_of_many_at_once_one_takes_it(tmp_path):
    code = (
        "import sys, pathlib, time\n"
        "from hdc.lab.locks import Lock, Taken\n"
        "sys.stdin.readline()\n"
        "try:\n    Lock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.readline()\n"
        "except Taken:\n    print('taken', flush=True)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate("end\n")
    assert sorted(said) == ["held", *["taken"] * 5]

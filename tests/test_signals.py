"""A signal is acted on however the run ends, and a second Ctrl-C ends the process at once."""

import errno
import os
import pty
import signal
import subprocess
import sys

import pytest
from rich.console import Console
from test_training import config, dense_dataset

from hdc.lab import experiment, records, signals
from hdc.lab.records import Unwritable
from hdc.lab.training import NonFiniteLoss


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.deferred() as asked:
            os.kill(os.getpid(), signal.SIGINT)
        assert asked.name is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


CLEANING_UP = """
import os, signal, threading
from hdc.lab import signals
lock = threading.Lock()

def clean_up():
    print("cleaning up", flush=True)
    {clean_up}

with signals.deferred() as asked:
    asked.clean_up = clean_up
    os.kill(os.getpid(), signal.SIGINT)
    print(asked.name, flush=True)
    with lock:
        os.kill(os.getpid(), signal.SIGINT)
        print("not reached")
"""


@pytest.mark.parametrize(
    "clean_up", ["", "1 / 0", "lock.acquire()"], ids=("well", "raises", "waits for ever")
)
def test_a_second_ctrl_c_ends_at_once_however_the_clean_up_goes(clean_up):
    program = [sys.executable, "-c", CLEANING_UP.format(clean_up=clean_up)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stdout == "SIGINT\ncleaning up\n"
    assert done.stderr == "hdc: interrupted at once\n"


def test_ctrl_c_while_importing_ends_at_once_and_else_raises(tmp_path):
    (tmp_path / "slow.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT); print('no')")
    program = """
import os, signal
from hdc.lab import signals
signals.install()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("raised", flush=True)
import slow
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "raised\n", "hdc: interrupted at once\n")


def test_a_terminal_that_closes_is_a_signal_and_what_is_said_after_it_is_no_error():
    program = """
import os, time
from hdc.lab import signals
os.open(os.ttyname(1), os.O_RDWR)  # the first terminal of a session is the one that it hears of
with signals.deferred() as asked:
    print("ready", flush=True)
    while asked.name is None:
        time.sleep(0.01)
    print("saved", flush=True)
"""
    terminal, its = pty.openpty()
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    assert process.wait(60) == 143


def test_after_ctrl_c_the_shutdown_ends_with_130_at_its_start():
    program = """
import atexit, os, signal, sys
from hdc.lab import signals
atexit.register(print, "not reached")
signals.ending()
os.kill(os.getpid(), signal.SIGINT)
print("ending")
sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "ending\n", "")


ENDS = [
    (NonFiniteLoss(0, 1, float("nan")), "failed"),
    (Unwritable(errno.ENOSPC, "No space left on device", "metrics.jsonl"), "interrupted"),
]


@pytest.mark.parametrize(("end", "state"), ENDS, ids=("failed", "interrupted"))
@pytest.mark.parametrize(("number", "raised"), [("SIGINT", KeyboardInterrupt), ("SIGHUP", SystemExit)])
def test_no_run_begins_after_a_signal(tmp_path, monkeypatch, number, raised, end, state):
    def ends(*_: object) -> None:
        os.kill(os.getpid(), getattr(signal, number))
        raise end

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(experiment, "data_of", lambda _: dense_dataset())
    monkeypatch.setattr(experiment._Session, "_train", ends)
    (run,) = records.plan(tmp_path, [config()])
    with pytest.raises(raised):
        experiment.run(run, Console(quiet=True))
    assert run.state == state
    assert not (run.folder / "lock.json").exists()
    assert signal.getsignal(signal.SIGTERM) is before

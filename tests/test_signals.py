"""A signal that has come is obeyed, however the run that it has come in ends."""

import errno
import os
import signal

import pytest
from rich.console import Console
from test_training import config, dense_dataset

from hdc.lab import experiment, records
from hdc.lab.records import Unwritable
from hdc.lab.training import NonFiniteLoss

ENDS = [
    (NonFiniteLoss(0, 1, float("nan")), "failed"),
    (Unwritable(errno.ENOSPC, "No space left on device", "metrics.jsonl"), "interrupted"),
]


@pytest.mark.parametrize(("end", "state"), ENDS, ids=("failed", "interrupted"))
@pytest.mark.parametrize(("number", "raised"), [("SIGINT", KeyboardInterrupt), ("SIGTERM", SystemExit)])
def test_no_run_begins_after_a_signal(tmp_path, monkeypatch, number, raised, end, state):
    def ends(*_: object) -> None:
        os.kill(os.getpid(), getattr(signal, number))
        raise end

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(experiment, "data_of", lambda _: dense_dataset())
    monkeypatch.setattr(experiment, "_seeds", ends)
    (run,) = records.plan(tmp_path, [config()])
    with pytest.raises(raised):
        experiment.run(run, Console(quiet=True))
    assert run.state == state
    assert not (run.folder / "lock.json").exists()
    assert signal.getsignal(signal.SIGTERM) is before

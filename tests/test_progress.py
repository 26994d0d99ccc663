"""Progress: the place of a run, a time left that rests on finished runs, what terminals and logs get."""

import io
import json
import os
import re
import time

import pytest
from rich.console import Console

from hdc.lab import progress
from hdc.lab.progress import Sweep


def finish(sweep, run_id, seconds, *, file="done.json", before=False) -> None:
    (sweep.folder / run_id).mkdir(exist_ok=True)
    path = sweep.folder / run_id / file
    path.write_text(json.dumps({"seconds": seconds}))
    if before:
        os.utime(path, (sweep.started - 10, sweep.started - 10))


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    work = {"a": 10, "b": 10, "c": 30, "d": 10}
    return Sweep(tmp_path, time.time() - 1, work, {one: f"1-2, net.width={one}" for one in work})


def test_nothing_is_said_before_a_run_of_this_launch_has_finished(sweep) -> None:
    assert sweep.left(1) is None
    finish(sweep, "a", 5, before=True)
    finish(sweep, "d", 5, file="failed.json")
    assert sweep.left(1) is None
    finish(sweep, "b", 20)
    assert sweep.left(1) == pytest.approx(60)  # only c is left: 30 epochs of 2 s
    finish(sweep, "c", 60)
    assert sweep.left(1) is None


def test_what_is_left_counts_work_workers_and_the_run_under_way(sweep) -> None:
    finish(sweep, "a", 20)
    assert sweep.left(1) == pytest.approx(2 * 50)
    assert sweep.left(2) == pytest.approx(2 * 50 / 2)
    assert sweep.left(1, {"c": 15}) == pytest.approx(2 * 35)
    finish(sweep, "b", 20)
    finish(sweep, "d", 20)
    assert sweep.left(2) == pytest.approx(2 * 30)  # one run is left: one worker


def test_a_sweep_reaches_the_processes_that_are_started(sweep, monkeypatch) -> None:
    monkeypatch.delenv("HDC_SWEEP", raising=False)
    assert Sweep.announced("a") is None
    monkeypatch.setenv("HDC_SWEEP", "")  # so that it is restored
    sweep.announce()
    again = Sweep.announced("a")
    assert again is not None and again == sweep and Sweep.announced("unknown") is None
    assert [again.place(one) for one in ("a", "d", "unknown")] == ["run 1 of 4", "run 4 of 4", ""]
    assert Sweep(sweep.folder, 0, {"a": 1}).place("a") == ""
    Sweep(sweep.folder, 0, sweep.work, dict.fromkeys(map(str, range(5000)), 20 * "x")).announce()
    assert len(os.environ["HDC_SWEEP"]) < 1000 and Sweep.announced("a").names == {}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "10 s"), (41, "50 s"), (89, "90 s"), (95, "2 min"), (3000, "50 min"), (5500, "1.5 h")],
)
def test_times_do_not_pretend(seconds, said) -> None:
    assert progress.about(seconds) == f"about {said}"


def test_a_log_gets_the_place_and_a_line_a_minute(monkeypatch) -> None:
    now, said = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.reported(Console(file=io.StringIO()), said.append, "1-2", 4, place="run 2 of 9") as report:
        for second in (30, 61, 90, 125):
            now[0] = second
            report.does("seed 1 of 2, training")
            report.does("seed 1 of 2, loss 0.5", advance=1)
    assert said == [
        "run 2 of 9",
        "2 of 4 epochs: seed 1 of 2, loss 0.5",
        "4 of 4 epochs: seed 1 of 2, loss 0.5",
    ]


@pytest.mark.parametrize("width", [30, 60, 120])
def test_a_terminal_gets_two_lines_that_fit_and_no_alarms(width, monkeypatch, capfd) -> None:
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    with progress.reported(console, print, "1-2 (abc)", 4, 1, lambda _: 700.0, "run 2 of 9") as report:
        report.does("seed 1 of 2, training, epoch 1 of 2, step 3 of 50, and more words", advance=1)
        assert isinstance(report, progress._Bar)
        report.refresh()
        os.write(2, b"E0101 slow_operation_alarm.cc:73] Constant folding is taking > 1s:\n  %pad\n")
        os.write(2, b"W0101 other.cc:1] something else\n")
    out = screen.getvalue()
    assert "run 2 of 9, about 12 min left" in out
    assert "something else" in out and "folding" not in out and "%pad" not in out
    lines = re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", out).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= max(width, len("W0101 other.cc:1] something else"))
    assert any(line.startswith("run 2") for line in lines) and any("seed 1" in line for line in lines)
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


def test_a_notebook_and_a_worker_get_lines(monkeypatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    with progress.reported(console, print, "1-2", 4) as report:
        assert isinstance(report, progress._Lines)
    monkeypatch.delenv("JPY_PARENT_PID")
    monkeypatch.setattr(progress, "current_process", lambda: type("Worker", (), {"name": "LokyProcess-1"}))
    with progress.reported(console, print, "1-2", 4) as report:
        assert isinstance(report, progress._Lines)

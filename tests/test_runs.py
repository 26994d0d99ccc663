"""`hdc runs`: every state is told, with what ended a run; the exit code says whether all are done."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import synthetic
from rich.console import Console

from hdc.lab import records
from hdc.lab.commands.main import main
from hdc.lab.records import packed as findings
from hdc.lab.records import status as runs

HOSTILE = "[bold]no[/bold] [/] \x1b[31mred"
SUMMARY = "5 runs: 1 done, 1 running, 1 interrupted, 1 failed, 1 planned"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A study with a run in each state, and one that is done."""
    monkeypatch.setenv("COLUMNS", "160")
    widths = (8, 16, 24, 32, 40)
    configs = [synthetic.configuration("plain", [0, 1, 2], net={"width": width}) for width in widths]
    done, running, interrupted, failed, _ = records.plan(tmp_path / "mixed", configs)
    synthetic.finish(done, "plain")
    for run, seed, epoch in ((interrupted, 1, 2), (failed, 0, 5)):
        with run.start({}) as writer:
            writer.log(seed=seed, step=1, epoch=epoch, split="train", metrics={"loss": 1.0})
            if run is failed:
                writer.failed(ValueError(HOSTILE), "Traceback ...")
    synthetic.measured(*records.plan(tmp_path / "good", [synthetic.configuration("hdc", [3])]), lambda _: {})
    with running.start({}):
        yield tmp_path


def told(results: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["runs", *arguments, "--results", str(results)])
    return code, capsys.readouterr().out


def states(results: Path, capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return json.loads(told(results, capsys, "mixed", "--json")[1])["runs"]


def test_every_run_is_a_line_with_its_state(results, capsys):
    code, out = told(results, capsys, "mixed")
    assert code == 1
    lines = [" ".join(line.split()) for line in out.splitlines() if "net.width" in line][:5]
    done, running, interrupted, failed, planned = (run.run_id for run in records.load("mixed", results))
    assert lines[0].startswith(f"1x6, net.width=8 {done} 0-2 done 8 of 8 3 of 3 took ")
    assert lines[1].startswith(f"1x6, net.width=16 {running} 0-2 running – – ")
    assert lines[2].startswith(f"1x6, net.width=24 {interrupted} 0-2 interrupted 2 of 8 2 of 3 ")
    assert lines[3].startswith(f"1x6, net.width=32 {failed} 0-2 failed 5 of 8 1 of 3 ")
    assert lines[4] == f"1x6, net.width=40 {planned} 0-2 planned – – –"
    assert all(lines[place].endswith(" ago") for place in (1, 2, 3))
    assert out.splitlines()[-1] == SUMMARY


@pytest.mark.parametrize("columns", ["40", "80", "160"])
@pytest.mark.parametrize("only", [(), ("--failed",)])
def test_errors_are_neither_markup_nor_steer_the_terminal(results, capsys, monkeypatch, columns, only):
    monkeypatch.setenv("COLUMNS", columns)
    _, out = told(results, capsys, "mixed", *only)
    assert r"[bold]no[/bold] [/] \x1b[31mred" in " ".join(out.split())
    assert "\x1b" not in out
    assert max(map(len, out.splitlines()[:-1])) <= int(columns)


def test_failed_ones_are_told_with_their_traceback(results, capsys):
    failed = records.load("mixed", results)[3]
    code, out = told(results, capsys, "mixed", "--failed")
    assert code == 1
    first, _, *path, summary = out.splitlines()
    assert first.startswith(f"1x6, net.width=32 ({failed.run_id}, seeds 0-2), epoch 5 of 8, seed 1 of 3")
    file = "".join(line.strip() for line in path).removeprefix("traceback: ")
    assert json.loads(Path(file).read_text())["traceback"] == "Traceback ..."
    assert summary == SUMMARY


def test_json_has_all_of_it(results, capsys):
    code, out = told(results, capsys, "mixed", "--json")
    assert code == 1
    values = json.loads(out)
    assert values["counts"] == {"done": 1, "running": 1, "interrupted": 1, "failed": 1, "planned": 1}
    done, _, interrupted, failed, planned = values["runs"]
    assert done["seconds"] >= 0
    assert done["keys"] == {"net.width": "8"}
    assert interrupted["reached"] == {"seed": 1, "epoch": 2}
    assert interrupted["epochs"] == 8
    assert datetime.now(UTC) - datetime.fromisoformat(interrupted["written"]) < timedelta(minutes=5)
    assert failed["error"] == HOSTILE
    assert Path(failed["traceback"]).exists()
    assert planned["reached"] is planned["written"] is planned["error"] is planned["traceback"] is None
    assert json.loads(told(results, capsys, "mixed", "--json", "--failed")[1])["runs"] == [failed]


def test_all_done_is_exit_code_0_and_bad_input_2(results, capsys, monkeypatch):
    assert told(results, capsys, "good")[0] == 0
    for arguments, message in (
        (["runs", "goods", "--results", str(results)], "there are good, mixed"),
        (["runs", "../good", "--results", str(results)], "study name '../good'"),
        (["runs", "good", "--results", str(results / "none")], "is not a folder"),
        (["runs", "--failed", "--results", str(results)], "--failed needs STUDY"),
        (["runs", "--results", str(results / "good")], "there is no study"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
    monkeypatch.chdir(results)
    assert main(["runs"]) == 2
    assert "nothing has been trained here yet" in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["40", "160"])
def test_without_a_study_all_are_counted(results, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    code, out = told(results, capsys)
    assert code == 1
    words = " ".join(out.replace(":", " ").split())
    assert "good 1 run 1 done" in words
    assert f"mixed {SUMMARY.replace(':', '')}" in words
    assert json.loads(told(results, capsys, "--json")[1])[0] == {"study": "good", "counts": {"done": 1}}


def test_a_damaged_file_is_told_and_hides_no_other_run(results, capsys):
    done, _, interrupted, failed, _ = (run.folder for run in records.load("mixed", results))
    (done / "done.json").write_text("{")
    (interrupted / "metrics.jsonl").write_text("{\n")
    (failed / "failed.json").write_text("[]")
    found = {one["state"]: one["error"] for one in states(results, capsys)}
    assert list(found) == ["done", "running", "interrupted", "failed", "planned"]
    for state, file in (("done", "done.json"), ("interrupted", "metrics.jsonl"), ("failed", "failed.json")):
        assert file in found[state]
    metrics = {"seed": 7, "step": 1, "epoch": 1, "split": "train", "metric": "loss", "value": 1.0}
    (interrupted / "metrics.jsonl").write_text(json.dumps({"run_id": interrupted.name, **metrics}) + "\n")
    assert "seed 7" in states(results, capsys)[2]["error"]
    (done / "run.json").write_text("{")
    code, out = told(results, capsys)
    assert code == 1
    assert "run.json" in out
    assert "1 run: 1 done" in out


def test_packed_findings_are_told_as_well(results, capsys, tmp_path_factory):
    synthetic.synthetic_study(results)
    packed = tmp_path_factory.mktemp("packed")
    findings.save(findings.pack(records.load("tiny", results), None), packed / "tiny")
    code, out = told(packed, capsys, "tiny")
    assert code == 1
    assert "the loss of seed 0 became nan at step 7" in out
    assert out.splitlines()[-1] == "3 runs: 2 done, 1 failed"
    assert "failed.json" not in told(packed, capsys, "tiny", "--failed")[1]


def test_any_state_is_told():
    counted = runs.counts(["running", "done", "planned", "done", "lost"])
    assert runs.summary(counted) == "5 runs: 2 done, 1 running, 1 planned, 1 lost"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")],
)
def test_durations_have_their_two_largest_units(results, seconds, text):
    (good,) = runs.standings("good", results)
    console = Console(width=160, file=io.StringIO())
    console.print(runs.report([replace(good, seconds=seconds)], datetime.now(UTC)))
    assert f"took {text} " in console.file.getvalue()


def test_it_answers_without_jax_or_scipy(results):
    program = """
import sys
from hdc.lab.commands.main import main
main(["runs", "mixed", "--results", sys.argv[1]])
slow = {"jax", "flax", "scipy", "tensorflow_datasets", "matplotlib"} & set(sys.modules)
assert not slow, slow
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", program, str(results)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "5 runs" in done.stdout

"""The run directory: nothing half-written, everything readable that was finished."""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import synthetic

from hdc.errors import InputError
from hdc.lab import locks, records
from hdc.lab import store as files
from hdc.lab.checkpoints import Checkpoints
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict
from hdc.lab.records import frames as together
from hdc.lab.report import tables


def planned(tmp_path, **values):
    (run,) = records.plan(tmp_path / "study", [from_dict(values)])
    return run


def test_states_follow_a_run_through_its_life(tmp_path):
    run = planned(tmp_path)
    assert run.state == "planned"
    with run.start({"network": {"parameters": 3}}) as writer:
        assert run.state == "running"
        writer.log(seed=0, step=4, epoch=1, split="train", metrics={"loss": 0.5})
        assert run.metrics().rows() == [(run.run_id, 0, 4, 1, "train", "loss", 0.5)]
    assert run.state == "interrupted"
    with run.start({"network": {"parameters": 4}}) as writer:
        writer.done()
        assert run.state == "done"
    assert run.info["network"] == {"parameters": 4}
    assert run.info["config"] == run.config.to_dict()
    assert not [path for path in run.folder.rglob("*") if path.name.startswith(".")]


def test_every_line_is_on_disk_before_the_next(tmp_path):
    run = planned(tmp_path)
    writer = run.start({})
    for step in range(3):
        writer.log(seed=0, step=step, epoch=0, split="train", metrics={"loss": 1.0, "accuracy": 0.0})
        assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 2 * (step + 1)


def test_failed_run_keeps_what_it_measured_and_starts_anew(tmp_path):
    run = planned(tmp_path)
    with run.start({}) as writer:
        writer.log(seed=0, step=1, epoch=1, split="train", metrics={"loss": 2.0})
        writer.artifact("gridding", 0, {"erf": np.ones(2)})
        writer.failed(ValueError("two\nlines"), "Traceback ...")
    assert run.state == "failed"
    assert run.failure["error"] == "two lines"
    assert run.failure["traceback"] == "Traceback ..."
    assert run.metrics().height == 1
    with run.start({}) as writer:
        assert run.metrics().height == 1
        writer.restart()
    assert run.state == "interrupted"
    assert run.metrics().height == 0
    with pytest.raises(InputError, match="is not there"):
        run.artifact("gridding", 0)


def test_torn_last_line_is_left_out_and_a_torn_middle_is_named(tmp_path):
    run = planned(tmp_path)
    writer = run.start({})
    for step in (1, 2):
        writer.log(seed=0, step=step, epoch=1, split="train", metrics={"loss": 0.5})
    path = run.folder / "metrics.jsonl"
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[1]) + 1):
        path.write_bytes(whole[:-cut])
        assert run.metrics()["step"].to_list() == [1]
    path.write_bytes(b"")
    assert run.metrics().height == 0
    path.write_bytes(b'{"run_id": "x", "se\n' + whole)
    with pytest.raises(InputError, match=r"metrics.jsonl is damaged"):
        run.metrics()


def test_values_that_are_not_finite_are_null(tmp_path):
    run = planned(tmp_path)
    run.start({}).log(seed=0, step=1, epoch=1, split="t", metrics={"a": math.nan, "b": math.inf, "c": 1.0})
    assert run.metrics()["value"].to_list() == [None, None, 1.0]
    for line in (run.folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_artifacts_come_back_and_damage_is_named(tmp_path):
    run = planned(tmp_path)
    writer = run.start({})
    arrays = {"erf": np.arange(6.0).reshape(2, 3), "classes": np.array(["a", "bc"])}
    writer.artifact("gridding", 2, arrays)
    back = run.artifact("gridding", 2)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    path = run.folder / "artifacts" / "gridding-seed2.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="is damaged"):
        run.artifact("gridding", 2)


def test_pickled_objects_are_neither_written_nor_read(tmp_path):
    run = planned(tmp_path)
    writer = run.start({})
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        writer.artifact("bad", 0, {"x": np.array([{}], dtype=object)})
    np.savez(run.folder / "artifacts-bad.npz", x=np.array([{}], dtype=object))
    (run.folder / "artifacts").mkdir(exist_ok=True)
    (run.folder / "artifacts-bad.npz").rename(run.folder / "artifacts" / "bad-seed0.npz")
    with pytest.raises(InputError, match="is damaged"):
        run.artifact("bad", 0)


def test_load_reads_back_every_run_in_the_order_of_planning(tmp_path):
    configs = [from_dict({"seeds": [seed]}) for seed in (5, 1, 3)]
    records.plan(tmp_path / "study", configs)
    records.plan(tmp_path / "study", configs[::-1])  # planning again changes nothing
    assert [run.config for run in records.load("study", tmp_path)] == configs


def test_a_run_that_is_deleted_while_it_is_trained_says_so(tmp_path):
    (run,) = records.plan(tmp_path / "study", [from_dict({})])
    with run.start({}) as writer:
        shutil.rmtree(tmp_path / "study")
        with pytest.raises(records.Unwritable, match=rf"{run.run_id} cannot be written: No such file"):
            writer.log(seed=0, step=1, epoch=1, split="test", metrics={"loss": 2.0})
        with pytest.raises(records.Unwritable, match="No such file"):
            Checkpoints(run.folder / "checkpoints")
        run.folder.mkdir(parents=True)
        with pytest.raises(records.Unwritable, match="it was removed"):
            writer.log(seed=0, step=1, epoch=1, split="test", metrics={"loss": 2.0})


def test_a_study_of_another_user_is_listed_with_the_reason(tmp_path, monkeypatch, capsys):
    records.plan(tmp_path / "mine", [from_dict({})])
    (tmp_path / "theirs").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "theirs" and access(path, mode))

    def refused(study, results):
        if study == "theirs":
            raise PermissionError(errno.EACCES, "Permission denied", "theirs/manifest.json")
        return load(study, results)

    load = records.load
    monkeypatch.setattr(records, "load", refused)  # root may read everything
    assert main(["runs", "--results", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "theirs/manifest.json: Permission denied" in said
    assert "1 planned" in said


def test_every_file_of_a_study_is_read_once(tmp_path, monkeypatch):
    synthetic.large_study(tmp_path, rows=20, runs_of_row=2, seeds=2, epochs=3)
    opened = []
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.is_relative_to(tmp_path):  # the heartbeat of another test's lock may still be read
            opened.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    runs = records.load("large", tmp_path)
    assert sorted(opened) == sorted((tmp_path / "large").glob("*/run.json"))
    opened.clear()
    tables.document(tables.build(tables.TableConfig(study="large"), runs))
    once = [
        path for name in ("metrics.jsonl", "done.json") for path in (tmp_path / "large").glob(f"*/{name}")
    ]
    assert sorted(opened) == sorted(once)
    opened.clear()
    frame = records.frame(runs)
    assert sorted(opened) == sorted(once)  # the digests again: a run may have been done anew
    assert frame["run_id"].unique(maintain_order=True).to_list() == [run.run_id for run in runs]


def test_measurements_read_together_are_those_read_one_by_one(tmp_path, monkeypatch):
    folder = synthetic.large_study(tmp_path, rows=5, seeds=2, epochs=3)
    records.plan(folder, [synthetic.configuration("hdc", [9])])  # without any
    runs = records.load("large", tmp_path)
    with (runs[1].folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"run_id": "torn')
    one_by_one = [run.metrics().with_columns(run=pl.lit(place)) for place, run in enumerate(runs)]
    for size in (1, 10**9):  # a part for each run, and one for all
        monkeypatch.setattr(together, "_BATCH", size)
        assert pl.concat(records.measurements(runs)).equals(pl.concat(one_by_one))
    (copied,) = (run.folder / "metrics.jsonl" for run in runs if run is runs[2])
    copied.write_bytes((runs[0].folder / "metrics.jsonl").read_bytes())
    with pytest.raises(InputError, match=rf"{runs[2].run_id}/metrics.jsonl is damaged: .*{runs[0].run_id}"):
        records.frame(runs)
    copied.write_bytes(b"{\n")
    with pytest.raises(InputError, match=rf"{runs[2].run_id}/metrics.jsonl is damaged"):
        records.frame(runs)
    assert records.frame([]).columns == records.frame(runs[:1]).columns


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="nothing has been run there yet"):
        records.load("study", tmp_path)
    run = planned(tmp_path)
    with pytest.raises(InputError, match="there are study"):
        records.load("stduy", tmp_path)
    path = run.folder / "run.json"
    synthetic.rewrite(path, config=run.config.to_dict() | {"seeds": [9]})
    with pytest.raises(InputError, match="named after"):
        records.load("study", tmp_path)
    for damaged in ("{", "[]", '"x"'):
        path.write_text(damaged)
        with pytest.raises(InputError, match=r"run\.json"):
            records.load("study", tmp_path)


@pytest.mark.parametrize("config", [None, [], {"nett": {}}, {"net": {"width": "x"}}])
def test_a_configuration_that_cannot_be_used_is_named_with_its_file(tmp_path, config):
    path = planned(tmp_path).folder / "run.json"
    synthetic.rewrite(path, config=config, planned=5)
    with pytest.raises(InputError, match=r"run\.json: "):
        records.load("study", tmp_path)


@pytest.mark.parametrize("content", ["{}", '{"finished": "x", "error": 5}', '{"finished": 7}'])
def test_ends_that_say_nothing_are_named(tmp_path, content):
    run = planned(tmp_path)
    run.start({}).done()
    (run.folder / "done.json").write_text(content)
    with pytest.raises(InputError, match=r"done\.json is damaged"):
        _ = run.seconds
    (run.folder / "failed.json").write_text(content)
    with pytest.raises(InputError, match=r"failed\.json is damaged: it has no error"):
        _ = run.failure


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "/abs", "a\\b", "a b", ".."])
def test_study_names_cannot_leave_the_results_folder(tmp_path, name):
    with pytest.raises(InputError, match="study name"):
        records.study_folder(tmp_path, name)


def test_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "results").write_text("a file is in the way")
    with pytest.raises(InputError, match=r"cannot be written: .+") as caught:
        records.plan(tmp_path / "results" / "study", [from_dict({})])
    assert "\n" not in str(caught.value)


def test_frame_has_every_run_with_its_schedule_and_state(tmp_path):
    runs = records.plan(
        tmp_path / "study",
        [from_dict({"schedule": {"rates": rates, "repeat": 2}}) for rates in ([1, 2], [2])],
    )
    for run in runs:
        with run.start({}) as writer:
            writer.log(seed=0, step=1, epoch=1, split="test", metrics={"accuracy": 0.5})
    frame = records.frame(runs)
    assert frame.select("label", "kind", "state", "value").rows() == [
        ("1-2x2", "hdc", "interrupted", 0.5),
        ("2x2", "dilated", "interrupted", 0.5),
    ]
    assert frame.schema["value"] == pl.Float64


def test_reading_and_tabulating_need_no_jax():
    program = (
        "import sys, hdc.lab.records, hdc.lab.report.tables as _; "
        + "print('jax' in sys.modules, 'tensorflow' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_a_run_that_another_process_has_taken_over_is_left_to_it(tmp_path):
    run = planned(tmp_path)
    first = run.start({})
    first.log(seed=0, step=1, epoch=1, split="test", metrics={"loss": 1.0})
    with pytest.raises(records.Taken, match=r"process \d+ on .+ is working on it"):
        run.start({})
    assert run.state == "running"
    (run.folder / "lock.json").unlink()  # as another does that has not heard from the first for too long
    second = run.start({})
    for write in (
        lambda: first.log(seed=1, step=1, epoch=1, split="test", metrics={"loss": 2.0}),
        lambda: first.artifact("gridding", 0, {"erf": np.ones(2)}),
        lambda: first.weights(0, b""),
        first.restart,
        lambda: first.resume({"metrics": 0, "seconds": 0.0}),
        first.position,
        lambda: first.failed(ValueError(), "Traceback"),
        first.done,
    ):
        with pytest.raises(records.Superseded, match="by another process"):
            write()
    second.restart()
    second.log(seed=0, step=1, epoch=1, split="test", metrics={"loss": 3.0})
    second.done()
    assert run.state == "done"
    assert run.metrics()["value"].to_list() == [3.0]
    second.close()
    with pytest.raises(records.Taken, match="just finished"):
        run.start({})


STOPPED = """
import os, pathlib, signal, sys
from hdc.lab import locks, records
from hdc.lab.checkpoints import Checkpoints
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict

locks.BEAT = 1000
(run,) = records.plan(pathlib.Path(sys.argv[1]), [from_dict({})])
writer = run.start({})
held = locks.Lock.held

def looks_and_is_stopped(lock):
    found = held.fget(lock)
    os.kill(os.getpid(), signal.SIGSTOP)
    return found

locks.Lock.held = property(looks_and_is_stopped)
writer.log(seed=0, step=1, epoch=1, split="test", metrics={"loss": 1.0})
locks.Lock.held = held
print("written", flush=True)
sys.stdin.read(1)
try:
    writer.log(seed=0, step=2, epoch=2, split="test", metrics={"loss": 1.0})
except records.Superseded:
    print("superseded", flush=True)
"""


def test_a_process_stopped_before_it_writes_is_not_taken_over(tmp_path, monkeypatch):
    run = planned(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path / "study")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None
        time.sleep(0.01)
    path = run.folder / locks.FILE  # as seen from another machine, whose owner has not been heard of for long
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": "another"}))
    os.utime(path, (time.time() - 2 * locks.STALE,) * 2)
    monkeypatch.setattr(locks, "_PATIENCE", 0.3)
    with pytest.raises(records.Taken, match="stopped while writing"):
        run.start({})
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == "written\n"
    with run.start({}) as second:
        second.restart()
        second.log(seed=0, step=1, epoch=1, split="test", metrics={"loss": 3.0})
        out, _ = process.communicate("x")
    assert out == "superseded\n"
    assert run.metrics()["value"].to_list() == [3.0]


def test_what_changed_between_start_and_end_is_kept_and_told(tmp_path):
    run = planned(tmp_path)
    for jax in ("1", "2", "2", "3"):
        about = {
            "data": {"task": "dense"},
            "versions": {"jax": jax},
            "git": {"commit": "a" * 40, "dirty": False},
        }
        with run.start(about) as writer:
            pass
    assert writer.changed == {"versions.jax": ["2", "3"]}
    with run.start(about) as writer:
        assert writer.changed == {}
        writer.log(seed=0, step=1, epoch=1, split="test", metrics={"accuracy": 0.5})
        writer.done()
    (run,) = records.load("study", tmp_path)
    assert run.info["changed"] == {"versions.jax": ["1", "3"]}
    table = tables.build(tables.TableConfig(study="study"), [run])
    assert any(
        "started with versions.jax=1, resumed with 3: " in note for note in tables.document(table).notes
    )
    assert json.loads((run.folder / "run.json").read_text())["resumed"]


def test_what_is_restarted_has_no_past(tmp_path):
    run = planned(tmp_path)
    with run.start({"versions": {"jax": "1"}}):
        pass
    with run.start({"versions": {"jax": "2"}}) as writer:
        assert writer.was_started
        writer.restart()
    values = json.loads((run.folder / "run.json").read_text())
    assert values["versions"] == {"jax": "2"}
    assert not {"resumed", "changed"} & set(values)


@pytest.mark.parametrize("name", [".", "/", ""])
def test_a_folder_is_no_file_to_write(name):
    with pytest.raises(InputError, match="not a file"):
        files.write(Path(name), b"")


def finished(tmp_path):
    (run,) = records.plan(tmp_path / "study", [synthetic.configuration("hdc", [0])])
    synthetic.finish(run, "hdc")
    return run


def flip(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("metrics.jsonl", b'"value": 0.', b'"value": 1.'),
        ("run.json", b"14470", b"14471"),
        ("done.json", b'"finished": "2', b'"finished": "1'),
        ("artifacts/gridding-seed0.npz", b"erf", b"erg"),
    ],
)
def test_a_digit_that_was_changed_is_found(tmp_path, name, old, new):
    run = finished(tmp_path)
    flip(run.folder / name, old, new)
    with pytest.raises(InputError, match=rf"{Path(name).name} is damaged: it is not as it was .*"):
        (loaded,) = records.load("study", tmp_path)
        _ = loaded.metrics(), loaded.info, loaded.artifact("gridding", 0)


def test_measurements_that_are_gone_are_missed(tmp_path):
    run = finished(tmp_path)
    (run.folder / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=r"metrics.jsonl is not there: the run is done"):
        run.metrics()
    (run.folder / "run.json").unlink()
    (run.folder / "done.json").rename(run.folder / "failed.json")
    with pytest.raises(InputError, match=r"a run was started there, and its run.json is gone"):
        records.load("study", tmp_path)


def test_records_without_digests_are_read_and_their_form_is_checked(tmp_path):
    run = finished(tmp_path)
    whole = run.metrics()
    for name in ("run.json", "done.json"):
        values = json.loads((run.folder / name).read_text())
        (run.folder / name).write_text(
            json.dumps({k: values[k] for k in values if k not in ("sha256", "files")})
        )
    (old,) = records.load("study", tmp_path)
    assert old.metrics().equals(whole)
    assert old.info["network"]["parameters"] == 14470
    values = files.read_json(run.folder / "run.json")
    for part, content in (
        *(("network", None), ("network", {"parameters": "x"}), ("device", {}), ("data", {}), ("data", [])),
        *(("git", {"commit": 5, "dirty": True}), ("git", []), ("command", []), ("versions", {"jax": 1})),
    ):
        (run.folder / "run.json").write_text(json.dumps(values | {part: content}))
        (old,) = records.load("study", tmp_path)
        with pytest.raises(InputError, match=rf"run.json is damaged: {part} is not what a run writes"):
            _ = old.info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_id": "x"}, "measurements of run x"),
        ({"seed": 7}, "seed 7 was not planned"),
        ({"seed": None}, "a measurement lacks one of run_id, seed"),
    ],
)
def test_measurements_of_something_else_are_refused(tmp_path, change, message):
    run = planned(tmp_path)
    with run.start({}) as writer:
        writer.log(seed=0, step=1, epoch=1, split="test", metrics={"loss": 1.0})
    path = run.folder / "metrics.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(InputError, match=rf"metrics.jsonl is damaged: .*{message}"):
        run.metrics()


@pytest.mark.parametrize(
    "content",
    ["[" * 5000, '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a": ' + "[" * 40 + "]" * 40 + "}"],
)
def test_json_that_no_run_writes_is_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"x\.json cannot be read") as caught:
        files.read_json(path)
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_only_from_what_it_wrote(tmp_path):
    run = planned(tmp_path)
    with run.start({}) as writer:
        writer.log(seed=0, step=1, epoch=1, split="test", metrics={"loss": 1.5})
        writer.artifact("gridding", 0, {"erf": np.ones(2)})
        position = writer.position()
        writer.log(seed=0, step=2, epoch=2, split="test", metrics={"loss": 2.5})
    with run.start({}) as writer:
        writer.resume(position)
        assert run.metrics()["value"].to_list() == [1.5]
    flip(run.folder / "metrics.jsonl", b"1.5", b"1.6")
    with run.start({}) as writer, pytest.raises(ValueError, match=r"metrics.jsonl is not as it was then"):
        writer.resume(position)


def test_what_was_measured_after_a_position_is_gone_once_it_goes_on_from_there(tmp_path):
    """Else the next position holds the digest of what will be measured again, maybe elsewhere."""
    run = planned(tmp_path)
    with run.start({}) as writer:
        writer.artifact("gridding", 0, {"erf": np.ones(2)})
        position = writer.position()
        writer.artifact("gridding", 1, {"erf": np.ones(2)})
        writer.weights(1, b"")
    with run.start({}) as writer:
        writer.resume(position)
        assert writer.position()["files"] == position["files"]
    assert [path.name for path in (run.folder / "artifacts").iterdir()] == ["gridding-seed0.npz"]


def test_folders_that_other_programs_hide_in_a_run_do_no_harm(tmp_path):
    run = planned(tmp_path)
    (run.folder / ".ipynb_checkpoints").mkdir()
    (run.folder / ".run.json.0123abcd").touch()
    with run.start({}) as writer:
        writer.done()
    assert run.state == "done"
    assert not (run.folder / ".run.json.0123abcd").exists()

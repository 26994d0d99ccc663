"""Packed findings: the same tables and pictures as the records, the same bytes every time, damage named."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.config import from_dict
from hdc.lab.records import packed as findings
from hdc.lab.records.run import METRICS, TIMES
from hdc.lab.report import figures, tables
from hdc.lab.report.figures import FigureConfig
from hdc.lab.report.tables import TableConfig, rendering


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    synthetic.synthetic_study(folder)
    return folder


@pytest.fixture
def packed(results, tmp_path):
    findings.save(findings.pack(records.load("tiny", results), None), tmp_path / "tiny")
    return tmp_path


def csv(folder) -> str:
    runs = records.load("tiny", folder)
    return rendering.to_text(tables.document(tables.build(TableConfig(study="tiny"), runs)), "csv")


def test_packed_runs_read_as_the_records_do(results, packed):
    before, after = records.load("tiny", results), records.load("tiny", packed)
    for one, other in zip(before, after, strict=True):
        for name in ("run_id", "config", "state", "seconds"):
            assert getattr(one, name) == getattr(other, name)
        assert one.info.get("network") == other.info.get("network")
    assert after[1].failure == {"error": "the loss of seed 0 became nan at step 7"}
    mean = before[2].seconds
    assert mean is not None and 0 < mean < 60


def test_no_run_is_planned_into_a_packed_study(packed):
    with pytest.raises(InputError, match="tiny holds a packed study: choose another name"):
        records.plan(packed / "tiny", [from_dict({})])


def test_table_and_figure_of_packed_findings_are_those_of_the_records(results, packed, tmp_path):
    assert csv(packed) == csv(results)
    drawn = []
    for folder in (results, packed):
        figure = figures.panels(FigureConfig(study="tiny"), records.load("tiny", folder))
        drawn.append(figures.save(figure, tmp_path / folder.name / "figures", "x", ("png", "svg")))
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]


def test_metrics_are_the_last_epoch_of_each_seed_and_the_seconds_of_all(packed):
    metrics = pl.read_csv(packed / "tiny" / "metrics.csv")
    assert set(metrics["epoch"]) == {3}
    assert "seconds" not in metrics["metric"].to_list()
    assert metrics.height == 2 * 3 * (1 + 1 + 5)  # runs, seeds, of train, validation and test
    assert metrics.rows() == sorted(metrics.rows(), key=lambda row: (row[0], row[1], row[4], row[5]))
    seconds = pl.read_csv(packed / "tiny" / "seconds.csv")
    assert sorted(seconds["value"].to_list()) == sorted(2 * 3 * [9.0, 2.0, 4.0])


def test_packing_again_and_packing_what_is_packed_give_the_same_bytes(results, packed):
    files = findings.pack(records.load("tiny", results), None)
    assert files == findings.pack(records.load("tiny", results), None)
    assert files == findings.pack(records.load("tiny", packed), None)


def test_training_again_later_gives_the_same_measurements(results, tmp_path):
    synthetic.synthetic_study(tmp_path)
    ours, again = (findings.pack(records.load("tiny", folder), None) for folder in (results, tmp_path))
    assert ours["metrics.csv"] == again["metrics.csv"]
    assert ours["artifacts.npz"] == again["artifacts.npz"]


def test_no_date_is_packed(results):
    runs = records.load("tiny", results)
    manifest = json.loads(findings.pack(runs, None)["manifest.json"])
    kept = {key for entry in manifest["runs"] for key in entry["info"]}
    assert not kept & {"started", "planned", "attempt"}
    assert [entry["run_id"] for entry in manifest["runs"]] == [run.run_id for run in runs]


def test_the_command_is_packed_without_the_folders_of_the_machine(tmp_path):
    (run,) = records.plan(tmp_path / "tiny", [synthetic.configuration("plain", [0])])
    run.start({"command": ["/home/me/experiments/train.py", "study=tiny", "results=/tmp/mine", "seeds=[0]"]})
    manifest = json.loads(findings.pack([run], None)["manifest.json"])
    assert manifest["runs"][0]["info"]["command"] == ["train.py", "study=tiny", "seeds=[0]"]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none(), min_size=1, max_size=20))
def test_every_value_comes_back_to_the_last_digit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("csv") / "metrics.csv"
    rows = [("1234567890", 0, 1, 1, "test", "loss", value) for value in values]
    path.write_bytes(pl.DataFrame(rows, schema=METRICS, orient="row").write_csv().encode())
    back = findings.read_csv(path, METRICS, {})
    assert back.rows() == rows
    assert back.schema == pl.Schema(METRICS)


def test_artifacts_are_the_first_seeds_and_one_sample(results, packed):
    before, after = (records.load("tiny", folder)[2] for folder in (results, packed))
    whole, kept = before.artifact("predictions", 0), after.artifact("predictions", 0)
    for name in ("images", "labels", "predictions"):
        np.testing.assert_array_equal(kept[name], whole[name][2:3])  # the sample with the most borders
    np.testing.assert_array_equal(kept["confusion"], whole["confusion"])
    erf = after.artifact("gridding", 0)["erf"]
    assert erf.dtype == np.float32
    np.testing.assert_array_equal(erf, before.artifact("gridding", 0)["erf"].astype(np.float32))
    with pytest.raises(InputError, match=r"has no gridding-seed1 .* only: gridding-seed0, predictions-seed0"):
        after.artifact("gridding", 1)


def test_an_array_that_runs_share_is_kept_once(packed):
    with np.load(packed / "tiny" / "artifacts.npz") as arrays:
        # Of two runs: two fields; image, truth, prediction, confusion and classes are the same.
        assert len(arrays.files) == 1 + 5


def test_times_are_packed_and_those_no_longer_measured_are_gone(results, tmp_path):
    runs = records.load("tiny", results)
    rows = [(run.run_id, repeat, 0.1 + repeat / 3, 1000) for run in runs for repeat in range(2)]
    times = pl.DataFrame(rows, schema=TIMES, orient="row")
    findings.save(findings.pack(runs, times), tmp_path / "tiny")
    assert records.times("tiny", tmp_path).equals(times.sort("run_id", "repeat"))
    findings.save(findings.pack(runs, None), tmp_path / "tiny")
    with pytest.raises(InputError, match=r"times.csv is not there: hdc time study=tiny"):
        records.times("tiny", tmp_path)


@pytest.mark.parametrize("name", ["metrics.csv", "seconds.csv", "artifacts.npz"])
def test_missing_files_are_named(packed, name):
    (packed / "tiny" / name).unlink()
    with pytest.raises(InputError, match=name):
        records.load("tiny", packed)[0].artifact("gridding", 0)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("manifest.json", lambda content: content[:-20]),
        ("manifest.json", lambda content: b"{}"),
        ("manifest.json", lambda content: b'{"runs": [3]}'),
        ("manifest.json", lambda content: content.replace(b'"done"', b'"finished"')),
        ("manifest.json", lambda content: content.replace(b'"run_id": "', b'"run_id": "x', 1)),
        ("manifest.json", lambda content: content.replace(b'"seconds"', b'"second"')),
        ("metrics.csv", lambda content: content.replace(b"accuracy,0", b"accuracy,zero")),
        ("metrics.csv", lambda content: content.replace(b"split,metric", b"metric,split")),
        ("metrics.csv", lambda content: content.replace(b",0,30,3,", b",7,30,3,")),
        ("metrics.csv", lambda content: b""),
        ("artifacts.npz", lambda content: content[:-30]),
        ("artifacts.npz", lambda content: b""),
    ],
)
def test_damage_is_one_line_that_names_the_file(packed, name, damage):
    path = packed / "tiny" / name
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    with pytest.raises(InputError, match=name) as caught:
        records.load("tiny", packed)[0].artifact("gridding", 0)
    assert "\n" not in str(caught.value)


def test_studies_of_both_forms_are_known(results, packed):
    assert records.studies(results) == records.studies(packed) == ["tiny"]
    with pytest.raises(InputError, match="there are tiny"):
        records.load("tine", packed)


def test_reading_findings_needs_no_jax():
    program = "import sys, hdc.lab.records.packed; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize("turned", [False, True])
def test_the_map_with_the_most_borders_is_shown_whichever_way_they_run(turned):
    maps = np.zeros((3, 8, 8), np.int32)
    maps[0, 4:] = 1  # one border of eight pixels
    maps[1, :, ::2] = 1  # seven of them, the other way
    maps[2] = np.arange(8)[:, None] // 2  # more classes, three borders
    labels = maps.swapaxes(1, 2) if turned else maps
    assert findings.shown_sample({"labels": labels}) == 1

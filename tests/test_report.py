"""The report packs, draws and writes between its markers, and nothing else."""

import polars as pl
import pytest
import synthetic

from hdc.lab import records
from hdc.lab.commands import compose as launch
from hdc.lab.commands import options, report
from hdc.lab.commands.main import main
from hdc.lab.records.run import TIMES

README = """# Findings

by hand

<!-- generated: ledger -->
<!-- end -->

<!-- generated: tiny -->
what was here before
<!-- end -->

Two sentences.

<!-- generated: other -->
kept
<!-- end -->
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "README.md").write_text(README)
    monkeypatch.setattr(report, "HOME", tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    synthetic.synthetic_study(folder)
    synthetic.synthetic_study(folder, "unasked")  # the README has no part for it
    return folder


def run(monkeypatch, *arguments) -> int:
    return main(["report", *map(str, arguments)])


@pytest.mark.parametrize(("part", "before"), [("tiny", "other"), ("other", "the file's end")])
def test_a_part_without_its_end_would_swallow_what_follows_and_is_refused(
    part, before, results, home, monkeypatch, capsys
):
    start, rest = README.split(f"<!-- generated: {part} -->")
    broken = f"{start}<!-- generated: {part} -->" + rest.replace("<!-- end -->", "", 1)
    (home / "README.md").write_text(broken)
    assert run(monkeypatch, f"results={results}") == 2
    assert f"the part {part} has no <!-- end --> before {before}" in capsys.readouterr().err
    assert [*contents(home).values()] == [broken.encode()]


def contents(home):
    return {path.relative_to(home): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


def test_one_command_packs_draws_and_writes(results, home, monkeypatch):
    assert run(monkeypatch, f"results={results}") == 0
    assert {str(path) for path in contents(home)} == {
        "README.md",
        *(
            f"findings/tiny/{name}"
            for name in ("manifest.json", "metrics.csv", "seconds.csv", "artifacts.npz", "panels.png")
        ),
    }
    text = (home / "README.md").read_text()
    assert "what was here before" not in text
    for kept in ("by hand", "Two sentences.", "<!-- generated: other -->\nkept\n<!-- end -->"):
        assert kept in text
    for generated in (
        "| 1-2-5x2 | 3 |",
        "![tiny: panels](findings/tiny/panels.png)",
        "minutes for 2 runs with 6 seeds in total",
        "failed: 2x6",
    ):
        assert generated in text


def test_reporting_again_and_from_what_is_packed_change_nothing(results, home, monkeypatch):
    run(monkeypatch, f"results={results}")
    before = contents(home)
    run(monkeypatch, f"results={results}")
    assert contents(home) == before
    assert run(monkeypatch, f"results={home / 'findings'}") == 0
    assert contents(home) == before


def test_a_figure_that_cannot_be_drawn_is_named_and_the_rest_goes_on(results, home, monkeypatch, tmp_path):
    folder = tmp_path / "conf" / "figure"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("draw: [strata, panels]\n")
    monkeypatch.setattr(options, "CONF", tmp_path / "conf")
    (tmp_path / "conf" / "table").symlink_to(launch.CONF / "table")
    assert run(monkeypatch, f"results={results}") == 0
    text = (home / "README.md").read_text()
    assert "- no figure strata: no run of study 'tiny' has any of test/iou_small" in text
    assert "![tiny: panels]" in text


def test_times_are_packed_where_they_were_measured(results, home, monkeypatch):
    path = results / "tiny" / "times.csv"
    rows = [(run.run_id, 0, 0.25, 7) for run in records.load("tiny", results)]
    path.write_text(pl.DataFrame(rows, schema=TIMES, orient="row").write_csv())
    run(monkeypatch, f"results={results}", "study=tiny")
    path.unlink()
    assert sorted(records.times("tiny", home / "findings")["run_id"]) == sorted(row[0] for row in rows)


def test_check_tells_whether_training_again_gave_the_same(results, home, monkeypatch, capsys, tmp_path):
    run(monkeypatch, f"results={results}")
    before = contents(home)
    synthetic.synthetic_study(tmp_path)
    capsys.readouterr()
    assert run(monkeypatch, f"results={tmp_path}", "check=true") == 0
    assert capsys.readouterr().out == "tiny: the same 42 measurements, to the last digit\n"
    (run_folder, *_) = records.load("tiny", tmp_path)
    path = run_folder.folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"value": 0.6}', '"value": 0.6000000000000001}'))
    synthetic.sign(run_folder)
    assert run(monkeypatch, f"results={tmp_path}", "study=tiny", "check=true") == 1
    said = capsys.readouterr().out
    assert "accuracy,0.6, here " in said
    assert "accuracy,0.6000000000000001" in said
    assert contents(home) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study=nothing"], "has no part of that name"),
        (["study=other"], "no runs of study 'other'"),
        (["results=nowhere"], "has no records of"),
        (["report=x"], "unknown key 'report'"),
        (["check=perhaps"], "check"),
    ],
)
def test_bad_input_is_one_line(home, results, monkeypatch, capsys, arguments, message):
    before = contents(home)
    chosen = arguments if arguments[0].startswith("results=") else [f"results={results}", *arguments]
    assert run(monkeypatch, *chosen) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert contents(home) == before


def test_every_study_of_the_readme_has_its_figures():
    parts = [match[2] for match in report._PART.finditer(report._readme())]
    assert parts[0] == report.LEDGER
    assert all(options.of_study("figure", study) for study in parts[1:])


def test_the_ledger_is_no_study(monkeypatch, home, capsys):
    assert run(monkeypatch, "results=nowhere") == 2
    assert "has no records of" in (said := capsys.readouterr().err) and "ledger" not in said
    assert run(monkeypatch, "study=ledger") == 2

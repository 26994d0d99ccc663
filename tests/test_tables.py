"""Tables: the statistics by hand, and nothing dropped."""

import io
import math
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import reference
import synthetic
from rich.console import Console

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.commands import options
from hdc.lab.config import from_dict
from hdc.lab.records import names
from hdc.lab.report import tables
from hdc.lab.report.statistics import Estimate, Paired
from hdc.lab.report.tables import Difference, TableConfig, rendering, rows

T_975 = {
    1: 12.7062,
    2: 4.30265,
    3: 3.18245,
}  # Student's t at 97.5 %, by degrees of freedom, from a printed table


def built(runs, **keys):
    return tables.build(TableConfig(study="tiny", **keys), runs)


def terminal(table) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=160).print(rendering.render(tables.document(table)))
    return buffer.getvalue()


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.3, 0.1, 0.4], [5.0, 5.0, 6.0, 9.0]])
def test_interval_is_student_t(values):
    n = len(values)
    mean = sum(values) / n
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    estimate = Estimate.of(values)
    assert estimate.n == n
    assert estimate.mean == pytest.approx(mean)
    assert estimate.half_width == pytest.approx(T_975[n - 1] * deviation / math.sqrt(n), rel=1e-5)
    assert estimate.low == pytest.approx(mean - estimate.half_width)


def test_one_seed_has_no_interval_and_none_has_no_mean():
    assert math.isnan(Estimate.of([0.5]).half_width)
    assert math.isnan(Estimate.of([]).mean)


def test_differences_are_paired_over_the_shared_seeds(tmp_path):
    runs = records.plan(
        tmp_path / "tiny",
        [synthetic.configuration("plain", [0, 1, 2]), synthetic.configuration("hdc", [1, 2, 3])],
    )
    for run, kind in zip(runs, ("plain", "hdc"), strict=True):
        synthetic.finish(run, kind)
    table = built(runs)
    plain, hdc = table.rows
    assert table.baseline(plain) is None
    assert table.baseline(hdc) is plain
    pairs = [synthetic.accuracy("hdc", seed) - synthetic.accuracy("plain", seed) for seed in (1, 2)]
    assert hdc.differences("test/accuracy", plain) == pytest.approx(pairs)
    assert ("1x6", "test/accuracy") not in table.differences
    paired = table.differences["1-2-5x2", "test/accuracy"].paired
    assert (paired.n, paired.mean) == (2, pytest.approx(np.mean(pairs)))
    assert (paired.low, paired.high) == (pytest.approx(min(pairs)), pytest.approx(max(pairs)))


def test_noise_is_marked_and_a_clear_difference_is_not(tmp_path):
    seeds = list(range(10))
    table = built(study(tmp_path, ("plain", seeds, 6), ("dilated", seeds, 6), ("hdc", seeds, 2)))
    _, compared, _ = tables.document(table).sections
    cells = {row[0]: row[1] for row in compared.body}
    assert set(cells) == {"2x6", "1-2-5x2"}
    assert cells["1-2-5x2"].startswith("≈ ")
    assert cells["2x6"].startswith("-")
    notes = "\n".join(table.notes)
    assert "≈ within the noise" in notes
    assert "cannot reach" not in notes


def test_the_correction_is_over_all_cells_of_the_block(tmp_path):
    seeds = list(range(10))
    runs = study(tmp_path, ("plain", seeds, 6), ("dilated", seeds, 6), ("hdc", seeds, 2))
    columns = ("test/accuracy", "test/mean_iou", "test/speckle", "gridding")
    differences = built(runs, measured=columns).differences
    assert len(differences) == 6
    raw = [one.paired.p for one in differences.values()]
    assert [one.p_holm for one in differences.values()] == pytest.approx(reference.holm(raw))
    assert {one.tests for one in differences.values()} == {6}
    only_raw = Difference(replace(next(iter(differences.values())).paired, p=0.01), 0.06, 6)
    assert (only_raw.mark, replace(only_raw, p_holm=0.04).mark) == ("≈", "")
    (alone,) = built(runs[:2], measured=("test/accuracy",)).differences.values()
    assert alone.p_holm == alone.paired.p == 2 / 2**10


def test_three_seeds_are_too_few_and_the_table_says_so(tmp_path):
    wanted = [("plain", [0, 1, 2], 6), ("dilated", [0, 1, 2], 6)]
    table = built(study(tmp_path, *wanted), measured=("test/accuracy",))
    cells = tables.document(table).sections[1].body[0]
    assert cells[1].startswith("? -")
    notes = "\n".join(table.notes)
    assert "n = 3 pairs cannot reach p < 0.05, however large the difference" in notes
    assert "at least 6 seeds" in notes
    assert "smallest difference" not in notes
    many = "\n".join(built(study(tmp_path / "b", *wanted)).notes)
    assert "n = 3 pairs cannot reach p < 0.05 over 5 tests" in many
    assert "at least 8 seeds" in many


def test_the_smallest_difference_that_could_have_been_seen_is_noted_by_column(tmp_path):
    seeds = list(range(8))
    runs = study(tmp_path, ("plain", seeds, 6), ("dilated", seeds, 6), ("hdc", seeds, 2))
    table = built(runs, measured=("test/accuracy",))
    widest = max(
        Paired.of(row.differences("test/accuracy", table.rows[0])).detectable(2) for row in table.rows[1:]
    )
    line = tables.long_frame(table).filter(pl.col("mde").is_not_null())
    assert line["mde"].max() == pytest.approx(widest)
    (note,) = [note for note in table.notes if note.startswith("smallest difference that n = 8 pairs")]
    assert note.endswith(f"(80% power, p < 0.05 over 2 tests): pixel accuracy % {100 * widest:.2f}")


def found(tmp_path, n, *rows, schedules=([1, 1], [2, 2], [1, 2], [3, 3], [1, 3], [4, 4]), **keys) -> str:
    """The sentence of a table whose rows differ from the first schedule by so much in accuracy (percent) and
    ripple (dB); None is noise around no difference."""

    def shift(difference, seed):
        return (-1) ** seed if difference is None else difference * (1 + 0.01 * (seed % 2))

    configs = [
        from_dict({"schedule": {"rates": rates, "repeat": 1}, "seeds": list(range(n))})
        for rates in schedules[: len(rows) + 1]
    ]
    runs = records.plan(tmp_path / "tiny", configs)
    for run, (accuracy, ripple) in zip(runs, [(0, 0), *rows], strict=True):
        synthetic.measured(
            run,
            lambda seed, accuracy=accuracy, ripple=ripple: {
                "accuracy": 0.5 + shift(accuracy, seed) / 100,
                "erf_ripple": shift(ripple, seed),
            },
        )
    asked = {"measured": ("test/accuracy", "test/erf_ripple"), "baseline": "1-1", **keys}
    table = built(runs, **asked)
    text = table.found
    for kind, line in (("markdown", 0), ("latex", 4)):
        first = rendering.to_text(tables.document(table), kind).splitlines()[line]
        assert (first.replace("\\", "").replace("$", "") == text) == bool(text)
    assert terminal(table).startswith(text[:60])
    return text


def test_a_sentence_says_which_differences_are_there(tmp_path):
    text = found(tmp_path, 10, (12, 3), (-4, None), (None, 20))
    # Of ten seeds, five with 12 and five with 12.12.
    assert text.startswith("n = 10 seeds: in pixel accuracy, 2-2 (+12.06 [+12.0")
    assert " points) is above 1-1, 1-2 (-4.02 [-4.0" in text
    assert text.endswith(
        " points) is below 1-1 and no difference is shown for 3-3; "
        "there are differences in ERF ripple (2 of 3 rows)."
    )


def test_a_sentence_counts_where_there_are_many_rows(tmp_path):
    text = found(tmp_path, 12, (3, None), (6, None), (2, None), (4, None), (4, None))
    assert text == (
        "n = 12 seeds: in pixel accuracy, all 5 rows (+2.01 to +6.03 points) are above 1-1; "
        "none is shown in ERF ripple."
    )
    text = found(tmp_path / "b", 12, (1, 5), (4, 5), measured=("test/erf_ripple", "test/accuracy"))
    assert "in ERF ripple, 2-2 (+5.0 [+5.0, +5.0] dB) and 1-2 (+5.0 [+5.0, +5.0] dB) are above 1-1; " in text


def test_a_sentence_says_where_no_difference_is_shown_or_could_be(tmp_path):
    assert found(tmp_path, 10, (None, None), (None, 4)) == (
        "n = 10 seeds: in pixel accuracy, no difference to 1-1 is shown; "
        "there are differences in ERF ripple (1 of 2 rows)."
    )
    assert (
        found(tmp_path / "b", 3, (9, 9))
        == "n = 3 seeds are too few to show a difference to 1-1, however large."
    )
    assert found(tmp_path / "c", 1, (9, 9)) == ""
    assert found(tmp_path / "d", 10) == ""


def mixed(tmp_path, **changed):
    """One row of two runs that differ in what is `changed`."""
    about = {"versions": {"jax": "0.10.0"}, "device": {"platform": "cpu", "kind": "cpu"}, "native": "avx2"}
    about["data"] = {"task": "dense", "items": {"train": 100, "test": 10}}
    configs = [synthetic.configuration("plain", [0]), synthetic.configuration("plain", [1])]
    runs = records.plan(tmp_path / "tiny", configs)
    for run, more in zip(runs, ({}, changed), strict=True):
        writer = run.start({**about, **more})
        where = {"step": 1, "epoch": 1, "split": "test"}
        writer.log(seed=run.config.seeds[0], **where, metrics={"accuracy": 0.5})
        writer.done()
    return runs


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"versions": {"jax": "0.11.0"}}, "versions.jax: 0.10.0 and 0.11.0"),
        ({"device": {"platform": "gpu", "kind": "cpu"}}, "device.platform: cpu and gpu"),
        ({"device": {"platform": "cpu", "kind": "other"}}, "device.kind: cpu and other"),
        ({"native": "avx512"}, "native: avx2 and avx512"),
        (
            {"data": {"task": "dense", "items": {"train": 90, "test": 10}}},
            "data.items.train: 100 and 90",
        ),
        ({"versions": {}}, "versions.jax: 0.10.0 and none"),
    ],
)
def test_runs_of_one_row_that_differ_in_more_than_seeds_are_refused(tmp_path, changed, told):
    runs = mixed(tmp_path, **changed)
    with pytest.raises(InputError) as caught:
        built(runs)
    message = str(caught.value)
    assert message.startswith(
        f"row 1x6 mixes runs {runs[0].run_id} and {runs[1].run_id} that differ in {told}:"
    )
    assert "\n" not in message


def test_runs_of_one_row_may_differ_in_commit_and_number_of_devices(tmp_path):
    device = {"platform": "cpu", "kind": "cpu", "count": 2}
    runs = mixed(tmp_path, device=device, git={"commit": 40 * "a", "dirty": False})
    assert built(runs).rows[0].seeds == "2"


def test_the_prediction_is_correlated_with_what_was_measured(tmp_path):
    schedules = [[1, 1], [1, 2], [2, 2], [1, 3], [1, 4], [4, 4], [3, 3]]
    configs = [from_dict({"schedule": {"rates": rates, "repeat": 1}, "seeds": [0, 1]}) for rates in schedules]
    runs = records.plan(tmp_path / "tiny", configs)
    means = {}
    for position, run in enumerate(runs):
        stemmed = reference.gridding_spectrum([1, *run.config.schedule.rates], 3)
        writer = run.start({"network": synthetic.seen({0}, max(stemmed.values(), default=0))})
        for seed in (0, 1):
            value = (position * 5 % 7) / 7 + 0.01 * seed
            writer.log(seed=seed, step=1, epoch=1, split="test", metrics={"speckle": value})
        writer.done()
        means[run.config.dilation.label] = (position * 5 % 7) / 7 + 0.005
    table = built(runs, measured=("test/speckle",), correlate=("gridding", "network_gridding"))
    (section,) = [one for one in tables.document(table).sections if "predict" in one.title]
    assert section.head == ("Spearman with", "rows", "G", "G of the network")
    cells, at_equal_field = section.body
    assert at_equal_field[:2] == ("speckle %, at equal field", "7")
    assert cells[:2] == ("speckle %", "7")
    for text, stem in ((cells[2], ()), (cells[3], (1,))):
        predicted = [
            round(max(reference.gridding_spectrum([*stem, *rates], 3).values(), default=0), 9)
            for rates in schedules
        ]
        assert text.startswith(f"{reference.spearman(predicted, list(means.values())):+.2f} [")
        fields = [1 + 2 * sum(rates) for rates in schedules]
        held = reference.partial_spearman(predicted, list(means.values()), fields)
        assert at_equal_field[2 + len(stem)].startswith(f"{held:+.2f} [")
    itself = built(runs, measured=("test/speckle",), correlate=("receptive_field",))
    assert tables.document(itself).sections[-2].body[1][2] == "–"
    with pytest.raises(InputError, match="correlate must be of"):
        TableConfig(correlate=("test/speckle",))


def test_what_the_network_sees_is_read_from_the_record_and_a_note_says_what_adds_it(tmp_path):
    runs = study(tmp_path, ("plain", [0], 6), ("dilated", [0], 6), ("hdc", [0], 2))
    described = ("network_coverage", "network_gridding")
    before = built(runs, described=described)
    assert [row[2:] for row in tables.document(before).sections[-1].body] == [("–", "–")] * 3
    assert [note for note in before.notes if note.startswith("–")] == [
        "– 'hdc runs tiny --analyse' adds what the network sees to records of an older version"
    ]
    added = (
        synthetic.seen({0}, 0.25, 0.5),
        {"seen": None, "unseen": "it looks elsewhere"},
        synthetic.seen({0}),
    )
    for run, network in zip(runs, added, strict=True):
        synthetic.rewrite(run.folder / "run.json", network={"parameters": 1, **network})
    after = built(records.load("tiny", tmp_path), described=described)
    (*_, section) = tables.document(after).sections
    assert section.head[2:] == ("coverage of the network %", "G of the network")
    assert [row[2:] for row in section.body] == [("50", "0.250"), ("–", "–"), ("100", "0.000")]
    assert not any(note.startswith("–") for note in after.notes)
    assert "2x6: what its network sees is not known: it looks elsewhere" in after.notes


@pytest.mark.parametrize(
    "changed",
    [{"gridding": 2}, {"coverage": []}, {"row": [[1]]}, {"row": 3}, {"size": [-1]}, {"frequency": "x"}],
)
def test_numbers_of_the_network_that_no_run_writes_are_refused(tmp_path, changed):
    (run,) = study(tmp_path, ("plain", [0], 6))
    network = synthetic.seen({0})
    network["seen"].update(changed)
    synthetic.rewrite(run.folder / "run.json", network=network)
    with pytest.raises(InputError, match=r"run\.json is damaged: network is not what a run writes"):
        built(records.load("tiny", tmp_path))


def test_failed_and_missing_runs_are_shown(tmp_path):
    runs = synthetic.synthetic_study(tmp_path)
    runs += records.plan(tmp_path / "tiny", [synthetic.configuration("hdc", [3, 4])])
    runs += records.plan(tmp_path / "tiny", [synthetic.configuration("dilated", [9])])
    runs[-1].start({})
    table = built(runs)
    results = {row[0]: row for row in tables.document(table).sections[0].body}
    assert results["1x6"][1] == "3"
    assert results["2x6"][1:4] == ("0 of 4", "–", "–")
    assert results["1-2-5x2"][1] == "3 of 5"
    notes = "\n".join(table.notes)
    assert "failed: 2x6" in notes
    assert "became nan at step 7" in notes
    assert "missing: 1-2-5x2" in notes
    assert "not finished: 2x6" in notes
    for text in (
        terminal(table),
        rendering.to_text(tables.document(table), "markdown"),
        rendering.to_text(tables.document(table), "latex"),
    ):
        assert "became nan at step 7" in text
    assert "failed" in rendering.to_text(tables.document(table), "csv")


def test_runs_that_differ_in_anything_but_seeds_never_share_a_row(tmp_path):
    configs = [
        synthetic.configuration(kind, [0, 1], net={"residual": residual})
        for residual in (False, True)
        for kind in ("plain", "hdc")
    ]
    configs.append(synthetic.configuration("plain", [2]))
    runs = records.plan(tmp_path / "tiny", configs)
    for run in runs:
        synthetic.finish(run, "plain" if run.config.dilation.kind == "plain" else "hdc")
    table = built(runs)
    assert [row.label for row in table.rows] == [
        "1x6, net.residual=false",
        "1-2-5x2, net.residual=false",
        "1x6, net.residual=true",
        "1-2-5x2, net.residual=true",
    ]
    assert [row.seeds for row in table.rows] == ["3", "2", "2", "2"]
    baselines = [table.baseline(row) for row in table.rows]
    assert baselines == [None, table.rows[0], None, table.rows[2]]


def test_a_seed_that_ran_twice_counts_once(tmp_path):
    runs = records.plan(
        tmp_path / "tiny", [synthetic.configuration("plain", seeds) for seeds in ([0, 1], [1, 2])]
    )
    for run in runs:
        synthetic.finish(run, "plain")
    (row,) = built(runs).rows
    assert row.estimate("test/accuracy").n == 3


def test_an_epochs_time_is_the_median_and_other_values_are_the_last(tmp_path):
    table = built(synthetic.synthetic_study(tmp_path), measured=("validation/accuracy",))
    assert table.rows[0].estimate("train/seconds").mean == 4.0
    assert table.rows[0].estimate("validation/accuracy").mean == pytest.approx(0.6)


def test_csv_has_every_number(tmp_path):
    table = built(synthetic.synthetic_study(tmp_path))
    frame = pl.read_csv(io.StringIO(rendering.to_text(tables.document(table), "csv")))
    chosen = frame.filter(pl.col("row") == "1-2-5x2", pl.col("column") == "test/accuracy").row(0, named=True)
    values = [synthetic.accuracy("hdc", seed) for seed in range(3)]
    assert chosen["n"] == 3
    assert chosen["mean"] == pytest.approx(np.mean(values))
    assert chosen["baseline"] == "1x6"
    assert chosen["difference_low"] < chosen["difference"] < chosen["difference_high"]
    assert (chosen["p"], chosen["p_holm"], chosen["mde"]) == (0.75, 1.0, None)
    index = frame.filter(pl.col("row") == "2x6", pl.col("column") == "gridding")["mean"]
    assert index.to_list() == [1.0]


def test_values_that_were_not_finite_are_said(tmp_path):
    (run,) = records.plan(tmp_path / "tiny", [synthetic.configuration("plain", [0])])
    writer = run.start({})
    writer.log(seed=0, step=1, epoch=1, split="test", metrics={"accuracy": 0.5, "erf_ripple": math.nan})
    writer.done()
    cells = dict(
        zip(*(lambda s: (s.head, s.body[0]))(tables.document(built([run])).sections[0]), strict=True)
    )
    assert cells["ERF ripple dB"] == "undefined"
    assert cells["accuracy %"] == "50.00"


def test_bad_columns_and_formats_are_one_line():
    for keys in ({"format": "html"}, {"measured": ("speckles",)}, {"described": ("width",)}):
        with pytest.raises(InputError) as caught:
            TableConfig(**keys)
        assert "\n" not in str(caught.value)


def study(tmp_path, *wanted):
    """Finished runs of (kind, seeds, repeat)."""
    configs = []
    for kind, seeds, repeat in wanted:
        rates, _ = synthetic.RATES[kind]
        configs.append(from_dict({"schedule": {"rates": rates, "repeat": repeat}, "seeds": seeds}))
    runs = records.plan(tmp_path / "tiny", configs)
    for run, (kind, _, _) in zip(runs, wanted, strict=True):
        synthetic.finish(run, kind)
    return runs


def test_a_difference_of_one_pair_is_not_taken_for_clear(tmp_path):
    table = built(study(tmp_path, ("plain", [0, 1, 2], 6), ("dilated", [2, 3, 4], 6)))
    _, compared, _ = tables.document(table).sections
    assert compared.body[0][1].startswith("? -")
    assert "2x6: 1 of its seeds paired with 1x6" in table.notes
    assert any(note.startswith("? one pair") for note in table.notes)


def test_a_row_is_compared_with_the_baseline_of_its_depth(tmp_path):
    seeds = [0, 1]
    wanted = [("plain", seeds, 3), ("plain", seeds, 6), ("dilated", seeds, 3), ("dilated", seeds, 6)]
    table = built(study(tmp_path, *wanted))
    against = {row.schedule: other.schedule for row in table.rows if (other := table.baseline(row))}
    assert against == {"2x3": "1x3", "2x6": "1x6"}
    assert tables.document(table).sections[1].title == "difference to plain of as many layers, paired by seed"
    (row,) = [
        row
        for row in built(study(tmp_path / "b", *wanted[:2], ("dilated", seeds, 9))).rows
        if row.layers == 9
    ]
    assert built(study(tmp_path / "c", *wanted[:2], ("dilated", seeds, 9))).baseline(row) is None


def test_the_same_schedule_written_otherwise_shares_a_row(tmp_path):
    configs = [
        from_dict({"schedule": {"rates": rates, "repeat": repeat}, "seeds": [seed]})
        for rates, repeat, seed in (([2], 6, 0), ([2, 2], 3, 1))
    ]
    runs = records.plan(tmp_path / "tiny", configs)
    for run in runs:
        synthetic.finish(run, "dilated")
    (row,) = built(runs).rows
    assert (row.schedule, row.seeds) == ("2x6", "2")


def test_a_column_that_no_run_has_is_named(tmp_path):
    table = built(study(tmp_path, ("plain", [0], 6)), measured=("test/acuracy", "test/accuracy"))
    assert "no run has test/acuracy" in table.notes
    for name in ("test/", "/x", "test/a/b", "acuracy"):
        with pytest.raises(InputError, match="unknown column"):
            TableConfig(measured=(name,))


def test_runs_of_several_commits_or_devices_are_named(tmp_path):
    runs = study(tmp_path, ("plain", [0], 6), ("dilated", [0], 6))
    for run, commit, device in zip(runs, "ab", ("cpu", "gpu"), strict=True):
        about = {"git": {"commit": 40 * commit, "dirty": False}, "device": {"kind": device}}
        synthetic.rewrite(run.folder / "run.json", **about)
    notes = built(records.load("tiny", tmp_path)).notes
    assert "runs of more than one commit: aaaaaaaaaa, bbbbbbbbbb" in notes
    assert "rows differ in device.kind: cpu, gpu" in notes


@pytest.mark.parametrize("width", [80, 100])
def test_a_terminal_of_80_columns_shows_every_name_and_number(tmp_path, width):
    table = built(study(tmp_path, ("plain", [0, 1], 6), ("dilated", [0, 1], 6), ("hdc", [0, 1], 2)))
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(rendering.render(tables.document(table)))
    shown = buffer.getvalue()
    assert "…" not in shown
    for section in tables.document(table).sections:
        for cells in section.body:
            assert cells[0] in shown
            for cell in cells:
                assert all(part in shown.split() for part in cell.split())


def test_a_row_named_in_full_is_the_baseline_of_all(tmp_path):
    configs = [
        synthetic.configuration(kind, [0, 1, 2], net={"width": width})
        for kind in ("plain", "hdc")
        for width in (8, 16)
    ]
    runs = records.plan(tmp_path / "tiny", configs)
    for run, kind in zip(runs, ("plain", "plain", "hdc", "hdc"), strict=True):
        synthetic.finish(run, kind)
    table = built(runs, baseline="1x6, net.width=16")
    assert [table.baseline(row) and table.baseline(row).label for row in table.rows] == [
        "1x6, net.width=16",
        None,
        "1x6, net.width=16",
        "1x6, net.width=16",
    ]
    titles = [section.title for section in tables.document(table).sections]
    assert "difference to 1x6, net.width=16, paired by seed" in titles
    with pytest.raises(InputError) as refused:
        built(runs, baseline="net.width=16")
    assert 'did you mean "1x6, net.width=16"? (there are: plain, dilated, hdc, 1x6, "1x6, net.width=8", ' in (
        str(refused.value)
    )
    (said,) = re.findall(
        "write '(.+)'$", str(refused.value)
    )  # and it works, through the command line's parser
    asked = options.read(TableConfig, "table", [said])
    assert built(runs, baseline=asked.baseline).baseline(table.rows[0]).label == "1x6, net.width=16"


def layers_study(folder):
    """Two schedules of two kinds of layer, at two widths."""
    configs = [
        synthetic.configuration(kind, [0, 1, 2], net={"width": width, "layer": layer})
        for kind in ("plain", "hdc")
        for width in (8, 16)
        for layer in ("standard", "ssc")
    ]
    runs = records.plan(folder / "tiny", configs)
    for run in runs:
        synthetic.finish(run, run.config.dilation.kind)
    return runs


def test_a_baseline_that_names_some_keys_is_that_of_the_rows_with_the_same_other_keys(tmp_path):
    table = built(layers_study(tmp_path), baseline="1x6, net.layer=standard")
    against = {row.label: other.label for row in table.rows if (other := table.baseline(row))}
    assert len(against) == 6
    for label, other in against.items():
        width = label.rpartition(", ")[2]
        assert other == f"1x6, net.layer=standard, {width}"
    titles = [section.title for section in tables.document(table).sections]
    assert "difference to 1x6, net.layer=standard, paired by seed" in titles
    with pytest.raises(InputError, match=r"unknown baseline '1x6, net\.layer=gi'"):
        built(layers_study(tmp_path / "b"), baseline="1x6, net.layer=gi")


def test_what_a_paper_has_stands_beside_what_was_measured(tmp_path):
    told = ("1x6, net.layer=standard: 70.5", "1-2-5x2, net.layer=ssc: 72 unverified", "3x6: 60")
    table = built(
        layers_study(tmp_path), baseline="1x6, net.layer=standard", published=told, paper="A paper: mIoU %"
    )
    document = tables.document(table)
    (section,) = (one for one in document.sections if "published" in one.title)
    assert section.title == "published beside measured; published: A paper: mIoU %"
    difference = {cells[0]: cells[1] for cells in document.sections[2].body}
    assert [cells[:3] for cells in section.body] == [
        ("1x6, net.layer=standard, net.width=8", "70.5", "–"),
        ("1x6, net.layer=standard, net.width=16", "70.5", "–"),
        ("1-2-5x2, net.layer=ssc, net.width=8", "72 unverified", "+1.5"),
        ("1-2-5x2, net.layer=ssc, net.width=16", "72 unverified", "+1.5"),
    ]
    for label, _, theirs, here, ours in section.body:
        row = next(row for row in table.rows if row.label == label)
        assert here == row.text(table.compared[0])
        assert ours == (difference[label] if theirs != "–" else "–")
    assert any("differ in data, width and length of training" in note for note in table.notes)
    assert not any("published" in note for note in built(layers_study(tmp_path / "b")).notes)


@pytest.mark.parametrize("entry", ["1x6", "1x6: many", "1x6: 70 perhaps", "1x6:70", ": 70"])
def test_a_published_number_that_cannot_be_read_is_one_line(entry):
    with pytest.raises(InputError, match="published must be ROW: NUMBER"):
        TableConfig(published=(entry,))


def test_columns_that_no_run_has_are_named_in_their_order(tmp_path):
    absent = [f"test/absent_{letter}" for letter in "qwertyuiop"]
    table = built(study(tmp_path, ("plain", [0], 6), ("hdc", [0], 2)), measured=("gridding", *absent))
    assert [note for note in table.notes if note.startswith("no run has")] == [
        f"no run has {column}" for column in absent
    ]
    assert not any(note.startswith("no differences") for note in table.notes)  # there is nothing to compare


@pytest.mark.parametrize("name", ["nothing", "plane", "1x7", "1-2-5x2, net.width=3"])
def test_an_unknown_baseline_is_refused_and_those_that_there_are_named(tmp_path, name):
    runs = study(tmp_path, ("plain", [0], 6), ("hdc", [0], 2))
    with pytest.raises(InputError, match=r"unknown baseline .*there are: plain, dilated, hdc, 1x6, 1-2-5x2"):
        built(runs, baseline=name)
    assert any(
        "the baseline 'dilated' matches no row" in note for note in built(runs, baseline="dilated").notes
    )


def test_a_done_run_without_a_seeds_measurements_says_so(tmp_path):
    runs = study(tmp_path, ("plain", [0, 1, 2], 6))
    path = runs[0].folder / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines(keepends=True) if '"seed": 1' not in line]
    path.write_text("".join(lines))
    synthetic.sign(runs[0])
    table = built(records.load("tiny", tmp_path))
    assert table.rows[0].seeds == "2 of 3"
    assert "1x6: incomplete records: done, but no measurements of seeds [1]" in table.notes


def test_keys_that_differ_together_are_named_by_one(tmp_path):
    pairs = (("mnist", [], 2), ("fashion_mnist", ["horizontal"], 2), ("fashion_mnist", ["horizontal"], 3))
    configs = [
        synthetic.configuration("plain", [0], data={"name": name, "flips": flips}, train={"epochs": epochs})
        for name, flips, epochs in pairs
    ]
    table = built(records.plan(tmp_path / "tiny", configs))
    assert [row.label for row in table.rows] == [
        "1x6, data.name=mnist, train.epochs=2",
        "1x6, data.name=fashion_mnist, train.epochs=2",
        "1x6, data.name=fashion_mnist, train.epochs=3",
    ]
    assert "data.name stands for data.flips too: they always vary together" in table.notes
    # Epochs do not: two of the data sets' rows have the same.
    assert not any("train.epochs" in note for note in table.notes if "stands for" in note)


def growing(tmp_path, changes, defaults=None):
    """Finished runs of one schedule whose stored configurations differ by the keys of `changes`."""
    configs = [synthetic.configuration("plain", [seed]) for seed in range(len(changes))]
    runs = records.plan(tmp_path / "tiny", configs)
    for run in runs:
        synthetic.measured(run, lambda seed: {"accuracy": 0.5 + 0.01 * seed})
    return [
        Grown(run, change, (defaults or {}).get(place, ()))
        for place, (run, change) in enumerate(zip(runs, changes, strict=True))
    ]


class Grown:
    """A run of another version: its stored configuration has other keys than today's."""

    def __init__(self, run, change, defaults):
        self._run, self._change, self.defaults = run, change, frozenset(defaults)

    def __getattr__(self, name):
        return getattr(self._run, name)

    @property
    def config(self):
        return Stored(self._run.config, self._change)


class Stored:
    def __init__(self, config, change):
        self._config, self._change = config, change

    def __getattr__(self, name):
        return getattr(self._config, name)

    def to_dict(self):
        values = self._config.to_dict()
        return values | {"net": values["net"] | self._change}


def test_a_run_without_a_later_key_had_its_default(tmp_path):
    runs = growing(tmp_path, [{}, {"smooth": False}, {"smooth": True}], {1: ["net.smooth"]})
    assert names.names(runs) == [
        ("1x6", "net.smooth=false"),
        ("1x6", "net.smooth=false"),
        ("1x6", "net.smooth=true"),
    ]
    table = rows.group(runs, ["test/accuracy"])
    assert [(row.label, row.seeds) for row in table] == [
        ("1x6, net.smooth=false", "2"),
        ("1x6, net.smooth=true", "1"),
    ]
    assert table[0].keys["net.smooth"] == "false"


def test_a_key_that_only_some_runs_have_is_none_in_the_others(tmp_path):
    changes = [{}, {"name": "unet", "depth": 2}, {"name": "unet", "depth": 3}, {}]
    runs = growing(tmp_path, changes)
    assert [name[1:] for name in names.names(runs)] == [
        ("net.depth=none", "net.name=context"),
        ("net.depth=2", "net.name=unet"),
        ("net.depth=3", "net.name=unet"),
        ("net.depth=none", "net.name=context"),
    ]
    assert [name[1:] for name in names.names(runs[:2])] == [("net.name=context",), ("net.name=unet",)]
    assert names.varying(runs[:2]) == {"net.name": ("net.depth",)}
    assert [row.seeds for row in rows.group(runs, [])] == ["2", "1", "1"]


def test_a_default_of_one_part_is_none_of_another(tmp_path):
    changes = [{}, {"name": "unet", "depth": 2}, {"name": "unet"}]
    runs = growing(tmp_path, changes, {1: ["net.depth"]})
    assert [name[1:] for name in names.names(runs)] == [("net.name=context",), *[("net.name=unet",)] * 2]
    assert [one["net.depth"] for one in names.settings(runs)] == ["none", "2", "2"]


def test_a_network_that_sees_more_than_its_schedule_says_how_much(tmp_path):
    (run,) = growing(tmp_path, [{}])
    field = run.config.dilation.receptive_field
    seen = {"coverage": [1.0, 1.0], "gridding": 0.1}
    for size, stride, shown in ((2, [1.0], False), (3, [1.0], True), (3, None, False)):
        found = {**seen, "size": [field + size] * 2} | ({} if stride is None else {"output_stride": stride})
        run.info["network"] = {"seen": found}
        assert ("network_field" in tables.build(TableConfig(), [run]).described) == shown


def plugin_study(tmp_path, metrics):
    runs = records.plan(
        tmp_path / "tiny", [synthetic.configuration(kind, [0, 1, 2]) for kind in synthetic.RATES]
    )
    for place, run in enumerate(runs):
        synthetic.measured(run, lambda seed, place=place: metrics(place, seed))
    return runs


def test_measures_of_plugins_are_shown_without_being_asked_and_ours_are_not(tmp_path):
    def metrics(place, seed):
        return {
            "accuracy": 0.5,
            "loss": 1.0,
            "erf_ripple_frequency": 0.5,
            "lattice_share": place + 0.1 * seed,
        }

    runs = plugin_study(tmp_path, metrics)
    table = built(runs)
    assert table.measured == ("test/accuracy", "gridding", "test/lattice_share")
    results, compared, _ = tables.document(table).sections
    assert results.head == ("schedule", "seeds", "pixel accuracy %", "G", "lattice share")
    assert [row[-1].split()[0] for row in results.body] == ["0.1000", "1.1000", "2.1000"]
    assert compared.head[-1] == "lattice share"
    assert [row[-1].split()[1] for row in compared.body] == ["+1.0000", "+2.0000"]
    assert built(runs, measured=("test/lattice_share", "gridding")).measured == (
        "test/lattice_share",
        "gridding",
    )
    assert "test/lattice_share" in tables.long_frame(table)["column"].to_list()

"""The ledger: every verdict follows from synthetic records whose truth is known, by the written rule."""

import io
import json
import math
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import reference
import synthetic
from scipy import stats

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.commands import table
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict
from hdc.lab.report import claims
from hdc.lab.report.claims import facts, ledger
from hdc.lab.report.statistics import Paired
from hdc.lab.report.tables import TableConfig, rendering
from hdc.schedules import DilationSchedule

SEEDS = list(range(10))
NOISE = np.random.default_rng(7).normal(0, 0.01, size=64)


def config(label: str, seeds=SEEDS, **groups):
    rates = [int(rate) for rate in label.split("-")]
    return from_dict({"schedule": {"rates": rates, "repeat": 1}, "seeds": seeds, **groups})


def write(results, study, values, seeds=SEEDS, about=None, **groups):
    """A study with a run a schedule: `values` is label -> metric -> mean over seeds, or a list a seed."""
    runs = records.plan(results / study, [config(label, seeds, **groups) for label in values])
    for number, (run, metrics) in enumerate(zip(runs, values.values(), strict=True)):
        writer = run.start(about[number] if about else {})
        for metric, mean in metrics.items():
            split, name = metric.split("/")
            for seed in seeds:
                value = mean[seed] if isinstance(mean, list) else mean + NOISE[(seed * 7 + 11 * number) % 64]
                writer.log(seed=seed, step=1, epoch=1, split=split, metrics={name: value})
        writer.done()
    return runs


def judged(results, *lines: str):
    """One claim of these lines of TOML."""
    body = "\n".join(f"[[X.lines]]\n{line}" for line in lines)
    (one,) = ledger.judge(claims.parse(f'[X]\nclaim = "x"\n{body}'), str(results))
    return one


PAIRED = """kind = "paired"
study = "s"
metric = "test/speckle"
treatment = {schedule = "2-2"}
control = {schedule = "1-1"}
"""


@pytest.mark.parametrize(
    ("shift", "expect", "verdict"),
    [
        (0.1, "higher", "confirmed"),
        (0.1, "lower", "refuted"),
        (-0.1, "lower", "confirmed"),
        (-0.1, "higher", "refuted"),
        (0.0, "higher", "not resolved"),
        (0.0, "lower", "not resolved"),
    ],
)
def test_a_paired_line_follows_sign_and_p(tmp_path, shift, expect, verdict):
    write(tmp_path, "s", {"1-1": {"test/speckle": 0.5}, "2-2": {"test/speckle": 0.5 + shift}})
    one = judged(tmp_path, f'{PAIRED}expect = "{expect}"')
    (outcome,) = one.outcomes
    assert (outcome.verdict, one.verdict, outcome.n) == (verdict, verdict, 10)
    claimed = outcome.effect > 0 if expect == "higher" else outcome.effect < 0
    assert outcome.p == pytest.approx(reference.sign_flip_p(outcome.pairs))
    assert outcome.p_against == (1 if claimed else outcome.p)
    if verdict == "not resolved":
        assert one.text == "not resolved at this n"
        expected = Paired.of(outcome.pairs).detectable()
        assert outcome.mde == expected
        sign = "+" if expect == "higher" else "-"
        assert outcome.detail == f"smallest that n = 10 would have shown: {sign}{100 * expected:.3f}"


@pytest.mark.parametrize(("mean", "verdict"), [(0.35, "confirmed"), (0.6, "refuted")])
def test_a_share_of_the_control_is_what_a_treatment_is_held_against(tmp_path, mean, verdict):
    control, treatment = ([value + noise for noise in NOISE[:10]] for value in (0.9, mean))
    write(tmp_path, "s", {"1-1": {"test/speckle": control}, "2-2": {"test/speckle": treatment}})
    (outcome,) = judged(tmp_path, f'{PAIRED}expect = "lower"\nshare = 0.5').outcomes
    assert outcome.verdict == verdict
    assert outcome.effect == pytest.approx(np.mean(treatment) - np.mean(control) / 2)
    assert ledger._said(outcome.line) == "s: speckle % of 2-2 below 50% of that of 1-1"


def test_rows_are_selected_by_their_layer(tmp_path):
    write(tmp_path, "s", {"2-2": {"test/speckle": 0.5}})
    records.plan(tmp_path / "s", [config("2-2", net={"layer": "ssc"})])
    layers = PAIRED.replace('"1-1"', '"2-2", "net.layer" = "standard"')
    (outcome,) = judged(
        tmp_path,
        layers.replace('{schedule = "2-2"}', '{schedule = "2-2", "net.layer" = "ssc"}') + 'expect = "lower"',
    ).outcomes
    assert outcome.verdict == "not run"
    assert "2-2, net.layer=ssc below that of 2-2, net.layer=standard" in ledger._said(outcome.line)


MARGIN = f'{PAIRED}expect = "not_higher"\nmargin = 0.02'


@pytest.mark.parametrize(
    ("differences", "expect", "verdict"),
    [
        ([0.001, -0.001] * 5, "not_higher", "confirmed"),
        ([0.001, -0.001] * 5, "not_lower", "confirmed"),
        ([0.010, 0.011] * 5, "not_higher", "confirmed"),  # above 0, and within the margin
        ([0.05, 0.06] * 5, "not_higher", "refuted"),
        ([-0.05, -0.06] * 5, "not_higher", "confirmed"),
        ([-0.05, -0.06] * 5, "not_lower", "refuted"),
        ([0.05, 0.06] * 5, "not_lower", "confirmed"),
        ([0.1, -0.09] * 5, "not_higher", "not resolved"),
        ([0.09, -0.1] * 5, "not_lower", "not resolved"),
        (
            [0.015, 0.025] * 5,
            "not_higher",
            "not resolved",
        ),  # clearly above 0, and not clearly beyond the margin
        ([-0.001] * 9 + [-5.0], "not_higher", "not resolved"),  # clearly below, and too spread for the bound
    ],
)
def test_a_margin_is_held_against_the_90_percent_interval(tmp_path, differences, expect, verdict):
    other = [0.5 + difference for difference in differences]
    write(tmp_path, "s", {"1-1": {"test/speckle": [0.5] * 10}, "2-2": {"test/speckle": other}})
    (outcome,) = judged(tmp_path, MARGIN.replace("not_higher", expect)).outcomes
    assert outcome.verdict == verdict
    side = 1 if expect == "not_higher" else -1
    half = 1.83311 * np.std(differences, ddof=1) / math.sqrt(10)  # Student's t at 95 %, 9 degrees of freedom
    worst, best = side * np.mean(differences) + half, side * np.mean(differences) - half
    assert (worst < 0.02) == (verdict == "confirmed")
    assert (best > 0.02) == (verdict == "refuted")
    word, end = ("from", best) if verdict == "refuted" else ("to", worst)
    assert outcome.detail == f"90% interval {word} {100 * side * end:+.3f}, margin 2.000"
    expected = stats.ttest_1samp([side * value for value in differences], 0.02, alternative="less").pvalue
    assert outcome.p == pytest.approx(expected)
    assert outcome.p_against == pytest.approx(1 - expected)
    assert outcome.p_differs == pytest.approx(reference.sign_flip_p(differences))


def test_three_seeds_resolve_nothing_and_the_line_says_how_many_do(tmp_path):
    values = {"1-1": {"test/speckle": 0.1}, "2-2": {"test/speckle": 0.9}}
    write(tmp_path, "s", values, seeds=[0, 1, 2])
    one = judged(tmp_path, f'{PAIRED}expect = "higher"', f'{PAIRED}expect = "lower"')
    assert [outcome.verdict for outcome in one.outcomes] == ["not resolved"] * 2
    assert {outcome.detail for outcome in one.outcomes} == {"n = 3 pairs cannot reach p < 0.05: at least 6"}


def against(tmp_path, differences, study="s"):
    """Records in which 2-2 has these differences to 1-1 in speckle; their p of sign flips."""
    other = [0.5 + difference for difference in differences]
    write(tmp_path, study, {"1-1": {"test/speckle": [0.5] * 10}, "2-2": {"test/speckle": other}})
    return reference.sign_flip_p(differences)


def test_a_line_has_its_own_p_however_many_lines_are_beside_it(tmp_path):
    p = against(tmp_path, [0.01] * 9 + [-0.008])
    (alone,) = judged(tmp_path, HIGHER).outcomes
    assert alone.p == pytest.approx(p)
    assert 0.05 / 30 < p < 0.05
    for beside in (HIGHER, ABSENT, EXACT):
        one = judged(tmp_path, HIGHER, *[beside] * 29).outcomes[0]
        assert (one.p, one.mde, one.verdict) == (alone.p, alone.mde, "confirmed")
    assert alone.mde == Paired.of(alone.pairs).detectable()


def test_a_claim_needs_all_lines_each_at_five_percent(tmp_path):
    """An intersection-union test: no correction, since one line that does not hold is enough."""
    against(tmp_path, [0.01] * 9 + [-0.008])
    assert judged(tmp_path, *[HIGHER] * 30).verdict == "confirmed"
    against(tmp_path, [0.01, -0.01] * 5, "t")
    assert judged(tmp_path, *[HIGHER] * 30, ABSENT).verdict == "not resolved"


def test_one_line_refutes_a_claim_only_with_a_correction_for_their_number(tmp_path):
    p = against(tmp_path, [-0.01] * 9 + [0.008])
    against(tmp_path, [0.01] * 10, "t")
    for others, verdict in ((0, "refuted"), (2, "refuted"), (29, "not resolved")):
        one = judged(tmp_path, HIGHER, *[ABSENT] * others)
        expected = reference.holm([p, *[1.0] * others])[0]
        assert one.outcomes[0].p_against == pytest.approx(expected)
        assert (expected < 0.05) == (verdict == "refuted")
        assert (one.verdict, one.outcomes[0].verdict) == (verdict, "refuted")
        assert one.holding == others
    counted = 'kind = "count"\nstudy = "s"\ntreatment = {schedule = "2x2"}\ncontrol = {schedule = "1x2"}\n'
    wrong = f'{counted}column = "receptive_field"\nexpect = "lower"'
    assert judged(tmp_path, wrong, *[ABSENT] * 29).verdict == "refuted"  # nothing is left to chance


def test_a_line_whose_run_failed_says_so(tmp_path):
    """And a claim that is not run too."""
    (run, _) = records.plan(tmp_path / "s", [config("2-2"), config("1-1")])
    run.start({}).failed(FloatingPointError("the loss of seed 0 became nan at step 7"), "Traceback")
    one = judged(tmp_path, f'{PAIRED}expect = "higher"')
    told = f"; 2-2 ({run.run_id}) failed: the loss of seed 0 became nan at step 7"
    assert one.text == f"not run: hdc train study=s{told}"
    runs = records.plan(tmp_path / "o", [config("1-2", data={"name": "offsets", "flips": []})])
    runs[0].start({}).failed(FloatingPointError("x"), "Traceback")
    (matrix,) = judged(tmp_path, 'kind = "matrix"\nstudy = "o"').outcomes
    assert matrix.detail.endswith(f"study=o; 1-2 ({runs[0].run_id}) failed: x")


EXACT = 'kind = "exact"\nfact = "field_grows_with_rate"'
HIGHER, LOWER = f'{PAIRED}expect = "higher"', f'{PAIRED}expect = "lower"'
UNSURE = HIGHER.replace("test/speckle", "test/accuracy")
ABSENT = HIGHER.replace('study = "s"', 'study = "t"')


@pytest.mark.parametrize(
    ("lines", "verdict", "holding"),
    [
        ([EXACT, EXACT], "exact", 2),
        ([EXACT, HIGHER], "confirmed", 2),
        ([HIGHER, UNSURE], "not resolved", 1),
        ([HIGHER, LOWER], "refuted", 1),
        ([UNSURE, LOWER, EXACT], "refuted", 1),
        ([HIGHER, ABSENT], "not run", 1),
        ([LOWER, ABSENT], "not run", 0),
    ],
)
def test_a_claim_follows_its_lines(tmp_path, lines, verdict, holding):
    values = {
        "1-1": {"test/speckle": 0.1, "test/accuracy": 0.5},
        "2-2": {"test/speckle": 0.9, "test/accuracy": 0.5},
    }
    write(tmp_path, "s", values)
    one = judged(tmp_path, *lines)
    assert (one.verdict, one.holding) == (verdict, holding)
    if verdict == "not run":
        assert one.text == "not run: hdc train study=t"
    head, *_ = ledger.document([one]).sections[0].body
    assert head == ("X", "x", one.text, f"{holding} of {len(lines)}")


def test_a_fact_that_does_not_hold_refutes_its_claim(tmp_path, monkeypatch):
    assert judged(tmp_path, EXACT).verdict == "exact"
    monkeypatch.setitem(facts.FACTS, "field_grows_with_rate", lambda: (False, "no"))
    assert judged(tmp_path, EXACT).verdict == "refuted"


@pytest.mark.parametrize("fact", facts.FACTS)
def test_every_fact_holds(fact):
    holds, told = facts.FACTS[fact]()
    assert holds is True
    assert told


@pytest.mark.parametrize(
    ("fact", "broken"),
    [
        (
            "two_taps_at_rate_two",
            {"receptive_field": property(lambda one: 1 + one.kernel_size * one.rates[0])},
        ),
        ("field_grows_with_rate", {"receptive_field": property(lambda one: 3)}),
        ("taps_do_not_grow", {"path_counts": property(lambda one: np.ones(one.receptive_field))}),
        ("exponential_growth", {"gap_free": property(lambda one: True)}),
        ("exponential_growth", {"gap_free": property(lambda one: max(one.rates) < 3)}),
        ("equal_rates_leave_holes", {"gap_free": property(lambda one: True)}),
        ("equal_rates_leave_holes", {"neighbour_overlap": property(lambda one: 0.1)}),
        ("mixed_rates_leave_none", {"gap_free": property(lambda one: False)}),
    ],
)
def test_a_fact_is_computed_and_not_quoted(fact, broken, monkeypatch):
    for name, value in broken.items():
        monkeypatch.setattr(DilationSchedule, name, value)
    assert facts.FACTS[fact]()[0] is False


def test_counts_are_compared_exactly(tmp_path):
    about = [{"network": {"parameters": count, "flops_per_image": 8}} for count in (100, 50)]
    write(tmp_path, "s", {"1-1": {"test/speckle": 0.1}, "2-2": {"test/speckle": 0.1}}, about=about)
    line = 'kind = "count"\nstudy = "s"\ntreatment = {schedule = "2x2"}\ncontrol = {schedule = "1x2"}\n'
    for column, expect, verdict in (
        ("parameters", "lower", "exact"),
        ("parameters", "equal", "refuted"),
        ("parameters", "higher", "refuted"),
        ("flops_per_image", "equal", "exact"),
        ("flops_per_image", "lower", "refuted"),
        ("receptive_field", "higher", "exact"),
        ("bytes_per_image", "lower", "not run"),
    ):
        (outcome,) = judged(tmp_path, f'{line}column = "{column}"\nexpect = "{expect}"').outcomes
        assert outcome.verdict == verdict, column
    (outcome,) = judged(tmp_path, f'{line}column = "parameters"\nexpect = "lower"').outcomes
    assert outcome.found == "50 against 100 (×0.5)"


TIME = PAIRED.replace("paired", "time").replace('metric = "test/speckle"\n', "")


@pytest.mark.parametrize(
    ("ratio", "expect", "verdict"),
    [(0.8, "lower", "confirmed"), (1.25, "lower", "refuted"), (1.0, "lower", "not resolved")],
)
def test_steps_are_compared_repeat_by_repeat(tmp_path, ratio, expect, verdict):
    runs = write(tmp_path, "s", {"1-1": {"test/speckle": 0.1}, "2-2": {"test/speckle": 0.1}})
    line = f'{TIME}expect = "{expect}"'
    (outcome,) = judged(tmp_path, line).outcomes
    assert (outcome.verdict, outcome.detail) == ("not run", "hdc time study=s")
    base = 1000 * np.linspace(1, 3, 10)  # the machine slows down, for both alike
    seconds = [base, base * ratio * np.exp(NOISE[:10])]
    lines = [
        {"run_id": run.run_id, "repeat": repeat, "step_seconds": value, "step_bytes": round(1e6 * base[0])}
        for run, values in zip(runs, seconds, strict=True)
        for repeat, value in enumerate(values)
    ]
    pl.DataFrame(lines).write_csv(tmp_path / "s" / "times.csv")
    (outcome,) = judged(tmp_path, line).outcomes
    assert (outcome.verdict, outcome.n) == (verdict, 10)
    assert math.exp(outcome.effect) == pytest.approx(ratio * math.exp(NOISE[:10].mean()), rel=1e-3)
    medians = np.median(seconds[1]) / np.median(seconds[0])
    assert float(re.match(r"medians ×([\d.]+), paired ×", outcome.found)[1]) == pytest.approx(
        medians, abs=2e-3
    )


@pytest.mark.parametrize(
    ("expect", "verdict"), [("lower", "confirmed"), ("higher", "refuted"), ("equal", "refuted")]
)
def test_memory_is_what_one_compiler_plans_and_not_exact(tmp_path, expect, verdict):
    runs = write(tmp_path, "s", {"1-1": {"test/speckle": 0.1}, "2-2": {"test/speckle": 0.1}})
    line = f'{TIME.replace("time", "memory")}expect = "{expect}"'
    (outcome,) = judged(tmp_path, line).outcomes
    assert (outcome.verdict, outcome.detail) == ("not run", "hdc time study=s")
    lines = [
        {"run_id": run.run_id, "repeat": repeat, "step_seconds": 0.1, "step_bytes": size}
        for run, size in zip(runs, (40_000_000, 10_000_000), strict=True)
        for repeat in range(3)
    ]
    pl.DataFrame(lines).write_csv(tmp_path / "s" / "times.csv")
    (outcome,) = judged(tmp_path, line).outcomes
    assert (outcome.verdict, outcome.found) == (verdict, "10.00 MB against 40.00 MB (×0.25)")


def test_a_correlation_is_over_the_rows_of_the_study(tmp_path):
    labels = ["1-1", "1-2", "1-3", "1-4", "2-2", "1-5", "3-5", "2-5"]
    index = [DilationSchedule(tuple(map(int, label.split("-")))).gridding.index for label in labels]
    values = {
        label: {"test/speckle": 0.1 + 5 * g, "test/accuracy": 0.1 * (i % 3)}
        for i, (label, g) in enumerate(zip(labels, index, strict=True))
    }
    write(tmp_path, "s", values, seeds=[0, 1])
    line = 'kind = "correlation"\nstudy = "s"\npredicted = "gridding"\nmetric = "test/speckle"\n'
    for metric, expect, verdict in (
        ("speckle", "higher", "confirmed"),
        ("speckle", "lower", "refuted"),
        ("accuracy", "higher", "not resolved"),
    ):
        told = line.replace("speckle", metric)
        (outcome,) = judged(tmp_path, f'{told}expect = "{expect}"').outcomes
        assert (outcome.verdict, outcome.n) == (verdict, 8)
    assert 0.5 < outcome.mde < 1
    assert outcome.detail == f"smallest that n = 8 would have shown: ρ +{outcome.mde:.2f}"
    write(tmp_path, "s", {"1-1": {"test/speckle": 0.1}}, net={"residual": True})
    with pytest.raises(InputError, match=r"net\.residual=false \| net\.residual=true"):
        judged(tmp_path, f'{line}expect = "higher"')


def test_the_matrix_is_confirmed_where_every_cell_agrees(tmp_path):
    line = 'kind = "matrix"\nstudy = "s"'
    data = {"name": "offsets", "offset": 2}
    values = {"1-1": {"test/accuracy": [1.0] * 10}, "4-4": {"test/accuracy": [0.5] * 10}}
    seen = [{"network": synthetic.seen(offsets)} for offsets in ({-2, 0, 2}, {-4, -3, 0, 3, 4})]
    first = write(tmp_path, "s", values, about=seen, data=data)[0]
    (outcome,) = judged(tmp_path, line).outcomes
    assert (outcome.verdict, outcome.found) == ("confirmed", "agrees in 2 of 2 cells")
    write(tmp_path, "s", {"2-2": {"test/accuracy": [0.5] * 10}}, about=seen[:1], data=data)
    (outcome,) = judged(tmp_path, line).outcomes
    assert (outcome.verdict, outcome.found) == ("refuted", "agrees in 2 of 3 cells")
    synthetic.rewrite(first.folder / "run.json", network={})  # as an older version wrote it
    assert judged(tmp_path, line).text == "not run: hdc runs s --analyse"
    records.plan(tmp_path / "s", [config("3-3", data=data)])
    assert judged(tmp_path, line).verdict == "not run"


def test_a_selector_takes_one_row_or_says_which_it_matches(tmp_path):
    for padding, value in (("SAME", 0.1), ("VALID", 0.9)):
        values = {"1-1": {"test/speckle": 0.5}, "2-2": {"test/speckle": value}}
        write(tmp_path, "s", values, net={"padding": padding})
    with pytest.raises(InputError) as caught:
        judged(tmp_path, HIGHER)
    assert "2-2 matches several rows: 2-2, net.padding=SAME | 2-2, net.padding=VALID" in str(caught.value)
    each = f'{HIGHER}\neach = {{"net.padding" = ["SAME", "VALID", "OTHER"]}}'
    outcomes = judged(tmp_path, each).outcomes
    assert [outcome.verdict for outcome in outcomes] == ["refuted", "confirmed", "not run"]
    spelled = each.replace('"2-2"', '"2x2"').replace('"1-1"', '"1x2"')
    assert [outcome.verdict for outcome in judged(tmp_path, spelled).outcomes][:2] == ["refuted", "confirmed"]


def test_an_entry_with_lists_is_a_line_for_each_combination():
    (claim,) = claims.parse(
        """[X]
claim = "x"
[[X.lines]]
kind = "paired"
study = ["s", "t"]
metric = ["test/a", "test/b"]
treatment = [{schedule = "2x6"}, {schedule = "4x6", "net.width" = 8}]
control = {schedule = "1x6"}
expect = "higher"
each = {"data.train_size" = ["null", 5], "net.residual" = true}
"""
    )
    assert len(claim.lines) == 16
    assert (
        len({(line.study, line.metric, str(line.treatment), str(line.control)) for line in claim.lines}) == 16
    )
    assert claim.lines[-1].study == "t"
    assert str(claim.lines[-1].treatment) == "4x6, net.width=8, data.train_size=5, net.residual=true"
    assert str(claim.lines[-1].control) == "1x6, data.train_size=5, net.residual=true"
    assert claim.lines[-1].control.rates == (1,) * 6


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('kind = "pared"', "unknown kind 'pared'; did you mean paired?"),
        ('kind = "exact"', "needs fact"),
        ('kind = "exact"\nfact = "flat_earth"', "unknown fact 'flat_earth'"),
        ('kind = "exact"\nfact = "field_grows_with_rate"\nstudy = "s"', "unknown key 'study'"),
        (PAIRED, "needs expect"),
        (f'{PAIRED}expect = "equal"', "unknown expect 'equal'"),
        (f'{PAIRED}expect = "not_higher"', "needs margin"),
        (f'{PAIRED}expect = "not_higher"\nmargin = "big"', "margin must be a number"),
        (f'{PAIRED}expect = "not_higher"\nmargin = -0.1', "margin must be a number"),
        (f'{PAIRED}expect = "higher"\nmargin = 0.1', "unknown key 'margin'"),
        (f'{PAIRED}expect = "lower"\nshare = 0.0', "share must be a number above 0.0 and up to 1.0, got 0.0"),
        (f'{PAIRED}expect = "lower"\nshare = 2', "share must be a number above 0.0 and up to 1.0, got 2"),
        (f"{EXACT}\nshare = 0.5", "unknown key 'share'"),
        (HIGHER.replace("test/speckle", "speckle"), "metric must be split/metric"),
        (HIGHER.replace('"2-2"', '"fast"'), "schedule must be a label such as 1-2-5x2, got 'fast'"),
        (HIGHER.replace('"2-2"', '"0-2"'), "rate 0 at position 1"),
        (HIGHER.replace('{schedule = "2-2"}', '"2-2"'), "treatment must be a table"),
        (HIGHER.replace('"2-2"', '"2-2", "net.pading" = "SAME"'), "did you mean net.padding?"),
        (f"{HIGHER}\nby_construction = 1", "by_construction must be true or false"),
        (f'{HIGHER}\neach = {{"net.pading" = "SAME"}}', "did you mean net.padding?"),
        (HIGHER.replace('study = "s"', "study = 3"), "study must be a name"),
        (HIGHER.replace("metric", "metrics"), "unknown key 'metrics'"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line, told):
    with pytest.raises(InputError) as caught:
        claims.parse(f'[X]\nclaim = "x"\n[[X.lines]]\n{EXACT}\n[[X.lines]]\n{line}')
    assert str(caught.value).startswith("claims.toml: X, line 2")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[X", "X = 3", '[X]\nclaim = "x"', '[X]\nclaim = "x"\nlines = []'])
def test_a_file_that_cannot_be_used_is_one_line(text):
    with pytest.raises(InputError, match=r"claims\.toml: ") as caught:
        claims.parse(text)
    assert "\n" not in str(caught.value)


def test_the_shipped_claims_are_named_in_order_and_those_without_records_say_the_command(tmp_path):
    ours = claims.claims()
    assert [claim.name for claim in ours] == [f"C{number}" for number in range(1, 24)]
    found = {one.claim.name: one for one in ledger.judge(ours, str(tmp_path))}
    assert {name for name, one in found.items() if one.verdict == "exact"} == {"C1", "C2", "C11", "C20"}
    for name, one in found.items():
        if one.verdict != "exact":
            assert one.verdict == "not run"
            studies = {line.study for line in one.claim.lines if line.study}
            for study in studies:
                assert f"hdc train study={study}" in one.text, name
    assert {line.fact for claim in ours for line in claim.lines} - {""} == set(facts.FACTS)


def test_the_ledger_is_printed_by_one_command_in_every_format(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    texts = {}
    for kind in ("terminal", "markdown", "csv", "latex"):
        assert main(["table", "table=claims", f"results={tmp_path}", f"format={kind}"]) == 0
        texts[kind] = capsys.readouterr().out
    for kind in ("terminal", "markdown"):
        assert "not run: hdc train study=equal_field" in texts[kind]
    frame = pl.read_csv(io.StringIO(texts["csv"]))
    assert len(frame) == sum(len(claim.lines) for claim in claims.claims())
    assert set(frame["claim_verdict"]) == {"exact", "not run"}
    assert "C11" in texts["latex"]


def test_a_line_of_the_frame_has_the_numbers(tmp_path):
    write(tmp_path, "s", {"1-1": {"test/speckle": 0.5}, "2-2": {"test/speckle": 0.6}})
    one = judged(tmp_path, HIGHER)
    document = ledger.document([one])
    (row,) = pl.read_csv(io.StringIO(rendering.to_text(document, "csv"))).iter_rows(named=True)
    assert row["line"] == "s: speckle % of 2-2 above that of 1-1"
    assert row["low"] < row["effect"] < row["high"]
    assert (row["n"], row["p"], row["verdict"]) == (10, 2 / 2**10, "confirmed")
    cells = ("10", one.outcomes[0].found, "field px 9 against 5", "0.00195", "confirmed")
    assert document.sections[1].body[0][2:] == cells
    assert (row["differs"], row["by_construction"], row["p_against"]) == (cells[2], False, 1)


def test_what_else_differs_is_told_beside_a_line(tmp_path):
    about = [{"network": {"parameters": count}} for count in (100, 50)]
    values = {"1-1": {"test/speckle": 0.1}, "2-1-1": {"test/speckle": 0.9}}
    write(tmp_path, "s", values, about=about)
    other = HIGHER.replace("2-2", "2-1-1")
    told = [judged(tmp_path, other).outcomes[0].differs]
    count = (
        PAIRED.replace("paired", "count").replace("metric", "column").replace("test/speckle", "parameters")
    )
    (outcome,) = judged(tmp_path, f'{count.replace("2-2", "2-1-1")}expect = "lower"').outcomes
    told.append(outcome.differs)
    assert told == [
        "field px 9 against 5, layers 3 against 2, params 50 against 100",
        "field px 9 against 5, layers 3 against 2",
    ]
    write(tmp_path, "t", {"1-2": {"test/speckle": 0.1}, "2-1": {"test/speckle": 0.9}})
    same = ABSENT.replace("2-2", "2-1").replace("1-1", "1-2")
    assert judged(tmp_path, same).outcomes[0].differs == ""


def test_a_line_by_construction_says_so_and_is_counted(tmp_path):
    write(tmp_path, "s", {"1-1": {"test/speckle": 0.5}, "2-2": {"test/speckle": 0.6}})
    one = judged(tmp_path, f"{HIGHER}\nby_construction = true", f"{EXACT}\nby_construction = true", HIGHER)
    document = ledger.document([one])
    assert document.sections[0].body[0][2:] == ("confirmed", "3 of 3, 2 by construction")
    verdicts = [row[-1] for row in document.sections[1].body]
    assert verdicts == ["confirmed: by construction", "exact: by construction", "confirmed"]
    assert document.frame["by_construction"].to_list() == [True, True, False]


def test_what_is_measured_while_training_says_so(tmp_path):
    line = HIGHER.replace("test/speckle", "train/accuracy")
    document = ledger.document([judged(tmp_path, line)])
    assert document.sections[1].body[0][1] == "s: train accuracy % while training of 2-2 above that of 1-1"
    assert any("with dropout on" in note for note in document.notes)
    assert not any("with dropout on" in note for note in ledger.document([judged(tmp_path, HIGHER)]).notes)


@pytest.mark.parametrize(
    ("means", "agrees"), [((0.9, 0.5, 0.5), True), ((0.5, 0.5, 0.5), True), (None, False)]
)
def test_the_omnibus_test_stands_beside_the_pairs(tmp_path, means, agrees):
    """Do the rows differ at all? Pairs to one row only can miss what the others have among themselves."""
    generator = np.random.default_rng(2)
    rows = [list(mean + generator.normal(0, 0.01, 8)) for mean in means or (0.5, 0.495, 0.505)]
    labels = ("2-2", "1-1", "3-3")
    metrics = {label: {"test/speckle": row} for label, row in zip(labels, rows, strict=True)}
    write(tmp_path, "s", metrics, seeds=list(range(8)))
    line = HIGHER.replace('{schedule = "1-1"}', '[{schedule = "1-1"}, {schedule = "3-3"}]')
    one = judged(tmp_path, line, EXACT)
    (group,) = one.groups
    flips = [reference.sign_flip_p(np.subtract(rows[0], other)) for other in rows[1:]]
    shuffled = generator.permuted(np.tile(np.transpose(rows), (4000, 1, 1)), axis=2).mean(axis=1).var(axis=1)
    assert group.p == pytest.approx(np.mean(shuffled >= np.mean(rows, axis=1).var() * (1 - 1e-9)), abs=0.03)
    assert (group.rows, group.n, group.where) == (3, 8, "s: speckle %")
    assert group.resolved == sum(p < 0.05 for p in flips)
    assert group.agrees == ((group.p < 0.05) == (group.resolved > 0)) == agrees
    last = ledger.document([one]).sections[-1]
    assert f"agrees with the pairs in {int(agrees)} of 1 groups" in last.title
    assert last.body[0][1] == ("none" if agrees else "s: speckle %")
    assert judged(tmp_path, HIGHER).groups == ()  # of two rows the pair is the test


def test_mixed_rows_are_refused(tmp_path):
    values = {"1-1": {"test/speckle": 0.5}}
    write(tmp_path, "s", values, seeds=[0], about=[{"versions": {"jax": "1"}}])
    write(tmp_path, "s", values, seeds=[1], about=[{"versions": {"jax": "2"}}])
    with pytest.raises(InputError, match=r"row 1-1 mixes runs .* versions.jax: 1 and 2"):
        judged(tmp_path, HIGHER)


def test_the_ledger_needs_no_jax():
    program = "import sys, hdc.lab.report.claims.ledger; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.strip().lower()) is False


def test_a_results_folder_that_is_not_there_is_refused_unless_it_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="results=nowhere is not a folder"):
        table.document(TableConfig(source="claims", results="nowhere"))
    assert "not run" in table.document(TableConfig(source="claims")).frame["claim_verdict"].to_list()

"""The predicted ripple: its formula, what it depends on, and how it compares with what was measured."""

import csv
import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.report.tables.columns import column
from hdc.ripple import STEM, predict
from hdc.schedules import DilationSchedule

LAYERS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12)), min_size=1, max_size=6)


@given(LAYERS, st.integers(1, 64), st.integers(1, 4), st.booleans(), st.sampled_from([None, 2, 5, 16]))
def test_it_is_the_formula(layers, width: int, channels: int, residual: bool, longest: int | None) -> None:
    given = {"width": width, "channels": channels, "residual": residual, "max_period": longest}
    assert predict(layers, **given).db == pytest.approx(
        reference.predicted_ripple(layers, **given)[0], abs=1e-6
    )


def test_order_counts_and_a_late_rate_of_one_filters_what_came_before() -> None:
    early, late = predict([STEM, (3, 1), (3, 3), (3, 3), (3, 3)]), predict([STEM, *[(3, 3)] * 3, (3, 1)])
    assert early.db > late.db + 2
    assert predict([STEM, (3, 2), (3, 2), (3, 2), (3, 2)]).frequency == 0.5
    assert predict([(3, 1)] * 5).db < 1.5


def measured_and_predicted(study: str) -> tuple[list[float], list[float]]:
    """The mean ERF ripple of each run, and what is predicted of it."""
    runs = {run.run_id: run.config for run in records.load(study, results="experiments/findings")}
    rows = records.frame(list(records.load(study, results="experiments/findings")))
    rows = (
        rows.filter(metric="erf_ripple", split="test").group_by("run_id", "label").agg(pl.col("value").mean())
    )
    predicted = []
    for run_id, label in rows.select("run_id", "label").iter_rows():
        net, longest = runs[run_id].net, runs[run_id].gridding.max_period
        layers = [(net.kernel_size, rate) for rate in DilationSchedule.from_label(label).layer_rates]
        predicted.append(
            predict([STEM, *layers], width=net.width, residual=net.residual, max_period=longest).db
        )
    return rows["value"].to_list(), predicted


def test_it_follows_the_networks_that_its_constant_was_chosen_on() -> None:
    measured, predicted = measured_and_predicted("schedules")
    assert len(measured) == 28
    assert stats.spearmanr(measured, predicted).statistic > 0.95
    assert np.sqrt(np.mean(np.subtract(measured, predicted) ** 2)) < 2.1


def test_tables_predict_a_run_from_its_own_width_residual_layers_and_measured_periods() -> None:
    runs = {run.run_id: run for run in records.load("equal_field", results="experiments/findings")}
    runs |= {run.run_id: run for run in records.load("ripple", results="experiments/findings")}
    for run in runs.values():
        config = run.config
        layers = [STEM, *((config.net.kernel_size, rate) for rate in config.dilation.layer_rates)]
        given = {"width": config.net.width, "residual": config.net.residual}
        expected = predict(layers, max_period=config.gridding.max_period, **given).db
        assert column("predicted_ripple").of([run]) == expected


def test_it_follows_networks_of_other_lengths_widths_and_kernels_with_residual_layers() -> None:
    pairs = [measured_and_predicted(study) for study in ("terrain", "coast", "separable", "equal_field")]
    measured, predicted = (list(itertools.chain(*values)) for values in zip(*pairs, strict=True))
    assert len(measured) == 31
    assert stats.spearmanr(measured, predicted).statistic > 0.93
    assert np.sqrt(np.mean(np.subtract(measured, predicted) ** 2)) < 2.6


def registered() -> dict[tuple[str, ...], dict[str, str]]:
    """The rows that were committed before the networks of `study=ripple` were trained."""
    rows = csv.DictReader(Path("experiments/predictions/ripple.csv").read_text().splitlines())
    keys = ("data", "kernel_size", "width", "residual", "rates")
    return {tuple(row[key] for key in keys): row for row in rows}


def test_the_committed_predictions_are_those_of_the_formula() -> None:
    for (_, size, width, residual, rates), row in registered().items():
        layers = [STEM, *((int(size), int(rate)) for rate in rates.split("-"))]
        found = predict(layers, width=int(width), residual=residual == "true", max_period=16)
        assert found.db == pytest.approx(float(row["ripple_db"]), abs=0.006)


def test_the_study_has_every_prediction_and_they_rank_better_than_the_rivals() -> None:
    runs = {run.run_id: run.config for run in records.load("ripple", results="experiments/findings")}
    rows = records.frame(list(records.load("ripple", results="experiments/findings")))
    rows = rows.filter(metric="erf_ripple", split="test").group_by("run_id").agg(pl.col("value").mean())
    measured = {}
    for run_id, value in rows.iter_rows():
        config = runs[run_id]
        numbers = (config.net.kernel_size, config.net.width, str(config.net.residual).lower())
        rates = "-".join(map(str, config.dilation.layer_rates))
        measured[config.data.name, *map(str, numbers), rates] = value
    predicted = registered()
    assert measured.keys() == predicted.keys()
    rank = {
        name: stats.spearmanr(
            [*measured.values()], [float(predicted[key][name]) for key in measured]
        ).statistic
        for name in ("ripple_db", "recursion_db", "gridding")
    }
    assert rank["ripple_db"] > max(0.8, rank["recursion_db"], rank["gridding"])


@pytest.mark.parametrize(
    ("layers", "tried"),
    [
        ([STEM, (3, 1), (3, 2), (3, 4), (3, 8)], True),
        ([STEM, (5, 1), (5, 2), (5, 4), (5, 16)], True),
        ([STEM, *[(3, 2)] * 8], True),
        ([STEM, *[(3, 2)] * 9], False),
        ([STEM, (3, 1), (3, 2)], False),
        ([STEM, (3, 1), (3, 2), (3, 4), (3, 17)], False),
        ([STEM, (3, 1), (3, 2), (5, 4)], False),
        ([(3, 1), (3, 2), (3, 4), (3, 8)], True),  # as the stem and three layers
        ([(5, 1), (5, 1), (5, 2), (5, 4), (5, 8)], False),
    ],
)
def test_it_says_where_it_was_tried(layers, tried: bool) -> None:
    assert predict(layers).tried == tried


@pytest.mark.parametrize("layers", [[], [(3, 0)], [(0, 1)]])
def test_bad_layers_are_refused(layers) -> None:
    with pytest.raises(InputError, match="pairs of kernel size and rate, at least 1 each"):
        predict(layers)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"channels": 0}, {"max_period": 1}])
def test_bad_numbers_are_refused(wrong) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(InputError, match=f"{name} must be at least . ?, got {value}".replace(" ?", "")):
        predict([STEM], **wrong)

"""The predicted ripple: its formula, what it depends on, and how it compares with what was measured."""

import numpy as np
import polars as pl
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hdc.errors import InputError
from hdc.lab import records
from hdc.ripple import STEM, predict
from hdc.schedules import DilationSchedule

LAYERS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12)), min_size=1, max_size=6)


@given(LAYERS)
def test_it_is_the_recursion(layers) -> None:
    assert predict(layers).db == pytest.approx(reference.predicted_ripple(layers)[0], abs=1e-6)


def test_order_counts_and_a_late_rate_of_one_filters_what_came_before() -> None:
    early, late = predict([STEM, (3, 1), (3, 3), (3, 3), (3, 3)]), predict([STEM, *[(3, 3)] * 3, (3, 1)])
    assert early.db > late.db + 3
    assert predict([STEM, (3, 2), (3, 2), (3, 2), (3, 2)]).frequency == 0.5
    assert predict([(3, 1)] * 5).db < 0.5


def test_it_follows_what_the_networks_of_the_study_measured() -> None:
    """In sample: the constants were chosen on these. How well it predicts others is for a study to say."""
    values = records.frame(records.load("schedules", results="experiments/findings"))
    rows = values.filter(metric="erf_ripple", split="test").group_by("label").agg(pl.col("value").mean())
    measured = rows["value"].to_list()
    labels = [DilationSchedule.from_label(label) for label in rows["label"].to_list()]
    predicted = [predict([STEM, *((3, rate) for rate in one.layer_rates)]).db for one in labels]
    assert len(measured) == 28
    assert stats.spearmanr(measured, predicted).statistic > 0.95
    assert np.sqrt(np.mean(np.subtract(measured, predicted) ** 2)) < 2.5


@pytest.mark.parametrize(
    ("layers", "tried"),
    [
        ([STEM, (3, 1), (3, 2), (3, 4), (3, 8)], True),
        ([STEM, (3, 1), (3, 2), (3, 4), (3, 9)], False),
        ([(3, 1), (3, 2), (3, 4), (3, 8)], False),
        ([(5, 1), (5, 1), (5, 2), (5, 4), (5, 8)], False),
    ],
)
def test_it_says_where_it_was_tried(layers, tried: bool) -> None:
    assert predict(layers).tried == tried


@pytest.mark.parametrize("layers", [[], [(3, 0)], [(0, 1)]])
def test_bad_layers_are_refused(layers) -> None:
    with pytest.raises(InputError, match="pairs of kernel size and rate, at least 1 each"):
        predict(layers)

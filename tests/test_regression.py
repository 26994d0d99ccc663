"""Regression from the command line's objects: trained, recorded, tabled, drawn, packed and loaded again."""

import jax
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from hdc.lab import experiment, records, trained
from hdc.lab.config import from_dict
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.records import packed
from hdc.lab.report import figures, tables
from hdc.lab.report.figures import FigureConfig
from hdc.lab.report.tables import TableConfig, rendering

SIZE = 16


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Plain and dilated, two seeds each, on images of one channel with a target of two."""
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = generator.integers(0, 256, (count, SIZE, SIZE, 1), dtype=np.uint8)
        return Split(images, np.concatenate([images / 51, 5 - images / 51], axis=-1).astype(np.float32))

    dataset = Dataset("shades", "regression", ("dark", "bright"), split(16), split(4), split(9), peak=5.0)
    folder = tmp_path_factory.mktemp("results") / "tiny"
    values = {"train": {"epochs": 2, "batch_size": 8}, "net": {"width": 4}, "seeds": [0, 1]}
    values |= {"optim": {"warmup_steps": 1}, "gridding": {"images": 4, "max_period": 3}}
    configs = [from_dict({**values, "schedule": {"rates": [rate], "repeat": 2}}) for rate in (1, 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "data_of", lambda _: dataset)
        for run in records.plan(folder, configs):
            experiment.run(run, Console(quiet=True))
    return records.load("tiny", folder.parent), dataset


def test_what_is_recorded_is_what_the_kept_predictions_say(runs):
    run, dataset = runs[0][0], runs[1]
    assert run.state == "done"
    metrics = run.metrics().filter(pl.col("epoch") == 2, pl.col("seed") == 0)
    by_split = {split: set(part["metric"]) for (split,), part in metrics.group_by("split")}
    assert by_split["train"] == {"loss", "mae", "seconds"}
    assert by_split["validation"] == {"loss", "psnr", "mae"}
    assert {"loss", "psnr", "mae", "erf_ripple", "feature_ripple"} <= by_split["test"]
    network = trained.load(run, 0)
    predicted = np.asarray(jax.jit(network)(dataset.test.images), np.float64)
    test = dict(metrics.filter(pl.col("split") == "test").select("metric", "value").iter_rows())
    squared = np.mean((predicted - dataset.test.labels) ** 2)
    assert test["loss"] == pytest.approx(squared, rel=1e-4)
    assert test["psnr"] == pytest.approx(10 * np.log10(25 / squared), rel=1e-4)
    assert test["mae"] == pytest.approx(np.mean(np.abs(predicted - dataset.test.labels)), rel=1e-4)
    kept = packed.predictions(run, 0)
    samples = experiment.spread(9, experiment.SAMPLES)
    np.testing.assert_array_equal(kept["labels"], dataset.test.labels[samples])
    np.testing.assert_allclose(kept["predictions"], predicted[samples], rtol=1e-4, atol=1e-5)


def test_the_default_table_has_psnr_and_mae_and_no_accuracy(runs):
    table = tables.build(TableConfig(study="tiny"), runs[0])
    assert table.measured == ("test/psnr", "test/mae", "gridding", "test/erf_ripple", "test/feature_ripple")
    text = rendering.to_text(tables.document(table), "markdown")
    assert "| schedule | seeds | PSNR dB | MAE | G | ERF ripple dB |" in text
    assert table.notes[0].startswith("mean")


def test_packed_findings_give_the_same_panels(runs, tmp_path):
    packed.save(packed.pack(runs[0], None), tmp_path)
    again = packed.load(tmp_path)
    first, second = (figures.panels(FigureConfig(study="tiny"), some) for some in (runs[0], again))
    titles = [axis.get_title() for axis in first.axes][:6]
    assert titles == [
        "paths to each pixel", "effective field, dB", "test image", "truth", "prediction", "error"
    ]  # fmt: skip
    kept = packed.predictions(runs[0][0], 0)
    sample = packed.shown_sample(kept)
    error = (kept["predictions"][sample] - kept["labels"][sample]).mean(axis=-1)
    for figure in (first, second):
        drawn = [image.get_array() for axis in figure.axes[:6] for image in axis.images]
        np.testing.assert_array_equal(drawn[-1], error)


@pytest.mark.parametrize("change", ["labels", "predictions", "classes"])
def test_predictions_that_do_not_fit_are_one_line(runs, change):
    arrays = dict(packed.predictions(runs[0][0], 0))
    arrays[change] = arrays[change][..., :1]

    class Damaged:
        run_id, info = "x", runs[0][0].info

        def artifact(self, name, seed):
            return arrays

    with pytest.raises(ValueError, match="do not fit together"):
        packed.predictions(Damaged(), 0)  # type: ignore[arg-type]

"""Figures show what the records hold."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import synthetic

from hdc import figures
from hdc.errors import InputError
from hdc.figures import FigureConfig


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return synthetic.synthetic_study(tmp_path_factory.mktemp("results"))


def images(figure):
    """The panels by row: every axis that shows an image, colour bars apart."""
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    return [shown[i : i + 5] for i in range(0, len(shown), 5)]


def test_panels_hold_the_path_counts_the_field_and_the_prediction(runs):
    rows = images(figures.panels(FigureConfig(study="tiny"), runs))
    assert len(rows) == 2
    for row, run in zip(rows, (runs[0], runs[2]), strict=True):
        counts = run.config.dilation.path_counts
        np.testing.assert_array_equal(np.ma.filled(row[0], 0), np.outer(counts, counts))
        erf = run.artifact("gridding", 0)["erf"]
        np.testing.assert_allclose(row[1], 20 * np.log10(erf / erf.max()), atol=1e-4)
        kept = run.artifact("predictions", 0)
        for panel, name in zip(row[2:], ("images", "labels", "predictions"), strict=True):
            np.testing.assert_array_equal(panel, kept[name][2])  # the sample with the most classes


def test_holes_are_masked_and_so_drawn_in_their_own_colour(tmp_path):
    study = synthetic.synthetic_study(tmp_path)
    synthetic.finish(study[1], "dilated")
    (study[1].folder / "failed.json").unlink(missing_ok=True)
    paths = images(figures.panels(FigureConfig(study="tiny"), study))[1][0]
    offsets = np.arange(25)
    np.testing.assert_array_equal(paths.mask, ~((offsets[:, None] % 2 == 0) & (offsets % 2 == 0)))


def test_a_schedule_that_is_not_drawn_is_named(runs):
    figure = figures.panels(FigureConfig(study="tiny"), runs)
    assert "Not drawn: 2x6 (failed)" in figure.get_suptitle()
    assert "n = 3 seeds" in figure.get_suptitle()


def test_files_are_valid_and_the_same_every_time(runs, tmp_path):
    figure = figures.panels(FigureConfig(study="tiny"), runs)
    png, svg = figures.save(figure, tmp_path / "a", "x", ("png", "svg"))
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
    again = figures.save(
        figures.panels(FigureConfig(study="tiny"), runs), tmp_path / "b", "x", ("png", "svg")
    )
    assert [path.read_bytes() for path in again] == [png.read_bytes(), svg.read_bytes()]


def test_nothing_to_draw_is_one_line(runs):
    with pytest.raises(InputError, match="no finished run with seed 7"):
        figures.panels(FigureConfig(study="tiny", seed=7), runs)
    with pytest.raises(InputError, match="formats must be of png, svg, pdf"):
        FigureConfig(formats=("gif",))


def test_drawing_needs_no_jax():
    program = "import sys, hdc.figures; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"

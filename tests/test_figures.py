"""Figures show what the records hold."""

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from scipy import stats

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.config import from_dict
from hdc.lab.report import figures, tables
from hdc.lab.report.figures import DRAWINGS, FigureConfig, config
from hdc.lab.report.figures.scatter import front
from hdc.lab.report.tables import TableConfig

FINDINGS = Path(__file__).parents[1] / "experiments" / "findings"


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
        low, high = np.percentile(kept["images"][2], (1, 99))
        brightened = 255 * np.clip((kept["images"][2] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(row[2], brightened, atol=0.51)
        for panel, name in zip(row[3:], ("labels", "predictions"), strict=True):
            np.testing.assert_array_equal(panel, kept[name][2])  # the sample with the most borders


def test_holes_are_masked_and_so_drawn_in_their_own_colour(tmp_path):
    study = synthetic.synthetic_study(tmp_path)
    synthetic.finish(study[1], "dilated")
    (study[1].folder / "failed.json").unlink(missing_ok=True)
    paths = images(figures.panels(FigureConfig(study="tiny"), study))[1][0]
    offsets = np.arange(25)
    np.testing.assert_array_equal(paths.mask, ~((offsets[:, None] % 2 == 0) & (offsets % 2 == 0)))


@pytest.mark.parametrize("order", [("dense", "classification"), ("classification", "dense")])
def test_runs_of_several_tasks_are_not_drawn_together(tmp_path, order):
    """Neither where each has a schedule of its own nor where the second has the first one's."""
    for rates in ([1, 2], [2, 2]):
        configs = [
            from_dict({"data": {"name": name}, "schedule": {"rates": one}})
            for name, one in (("points", [2, 2]), ("coast", rates))
        ]
        runs = records.plan(tmp_path / f"{rates[0]}", configs)
        for run, task in zip(runs, order, strict=True):
            with run.start({"data": {"task": task}}) as writer:
                writer.log(seed=0, step=1, epoch=1, split="test", metrics={"accuracy": 0.25})
                writer.done()
        for draw in (figures.panels, figures.errors):
            with pytest.raises(
                InputError, match=r"several tasks.* classification \(data=.*, dense \(data="
            ) as line:
                draw(FigureConfig(study="tiny"), runs)
            assert "\n" not in str(line.value)


def test_errors_are_the_pixels_whose_prediction_is_not_the_truth(runs):
    """The tile of the synthetic study is 16 x 16, smaller than the widest field: all of it is shown."""
    figure = figures.errors(FigureConfig(study="tiny"), runs)
    first, *columns = np.array(figure.axes).reshape(3, 3).T
    kept = runs[0].artifact("predictions", 0)
    truth, predicted, image = (kept[name][2] for name in ("labels", "predictions", "images"))
    low, high = np.percentile(image, (1, 99))
    brightened = 255 * np.clip((image - low) / (high - low), 0, 1)
    np.testing.assert_allclose(first[0].images[0].get_array(), brightened, atol=0.51)
    np.testing.assert_array_equal(first[1].images[0].get_array(), truth)
    for column, run in zip(columns, (runs[0], runs[2]), strict=True):
        counts = np.array([1.0])
        for rate in (1, *run.config.dilation.layer_rates):  # the stem, then the layers
            taps = np.zeros(2 * rate + 1)
            taps[::rate] = 1
            counts = np.convolve(counts, taps)
        np.testing.assert_allclose(column[0].images[0].get_array(), np.outer(counts, counts))
        np.testing.assert_array_equal(column[1].images[0].get_array(), predicted)
        np.testing.assert_array_equal(column[2].images[0].get_array(), predicted != truth)
    assert "Not drawn: 2x6 (failed)" in figure.get_suptitle()


def points_study(folder, predictions, labels):
    """A finished run of two schedules on points, with these maps and two points in the image."""
    image = np.zeros((1, 64, 64, 1), np.uint8)
    image[0, 30, 40] = image[0, 5, 5] = 255
    configs = [
        from_dict({"data": {"name": "points"}, "schedule": {"rates": rates, "repeat": 1}})
        for rates in ([2, 2], [1, 2])
    ]
    runs = records.plan(folder / "tiny", configs)
    for run in runs:
        with run.start({"data": {"task": "dense"}}) as writer:
            writer.log(seed=0, step=1, epoch=1, split="test", metrics={"accuracy": 0.25})
            arrays = {"images": image, "labels": labels[None], "predictions": predictions[None]}
            arrays |= {"confusion": np.eye(2, dtype=np.int64), "classes": np.array(["outside", "inside"])}
            writer.artifact("predictions", 0, arrays)
            writer.done()
    return runs


def test_the_window_with_the_most_borders_is_shown_and_points_are_enlarged(tmp_path):
    labels = np.zeros((64, 64), np.int32)
    labels[28:36:2, 36:46:2] = 1  # the busiest place
    predicted = labels[2:-2, 2:-2].copy()  # of VALID layers
    predicted[29, 39] = 1 - predicted[29, 39]
    figure = figures.errors(FigureConfig(study="tiny"), points_study(tmp_path, predicted, labels))
    axes = np.array(figure.axes).reshape(3, 3)
    size = 11  # of 1, 2, 2: 3 + 4 + 4
    (shown,) = (axis.images[0].get_array() for axis in axes[1:2, 0])
    found = [
        (top, left)
        for top, left in np.ndindex(54, 54)
        if np.array_equal(labels[top : top + size, left : left + size], shown)
    ]
    assert (shown == 1).sum() == 20
    (wrong,) = np.argwhere(axes[2, 1].images[0].get_array() == 1)
    assert any((wrong + corner == (31, 41)).all() for corner in found)
    (points,) = axes[0, 0].collections
    ((x, y),) = points.get_offsets()
    assert (y + found[0][0], x + found[0][1]) == (30, 40)
    assert points.get_sizes()[0] > (72 * 1.5 / size) ** 2 / 4  # wider than a pixel
    assert "25.00 % of pixels right" in axes[1, 1].get_xlabel()
    assert "Each point is one pixel, drawn enlarged." in " ".join(figure.get_suptitle().split())


def test_errors_of_what_cannot_be_compared_are_one_line(tmp_path):
    runs = points_study(tmp_path, np.zeros((64, 64), np.int32), np.zeros((64, 64), np.int32))
    other = np.ones((64, 64), np.int32)
    more = points_study(tmp_path / "b", other, other)
    with pytest.raises(InputError, match="runs on different images"):
        figures.errors(FigureConfig(study="tiny"), [runs[0], more[1]])
    whole = np.zeros((), np.int32)
    flat = points_study(tmp_path / "c", whole, whole)
    with pytest.raises(InputError, match="has one label per image"):
        figures.errors(FigureConfig(study="tiny"), flat)


def test_a_schedule_that_is_not_drawn_is_named(runs):
    figure = figures.panels(FigureConfig(study="tiny"), runs)
    assert "Not drawn: 2x6 (failed)" in figure.get_suptitle()
    assert "n = 3 seeds" in figure.get_suptitle()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Plain and HDC, each with and without residual connections; HDC without them failed."""
    configs = [
        synthetic.configuration(kind, [0, 1, 2], net={"residual": residual})
        for kind in ("plain", "hdc")
        for residual in (True, False)
    ]
    runs = records.plan(tmp_path_factory.mktemp("results") / "tiny", configs)
    for run, kind in zip(runs[:3], ("plain", "plain", "hdc"), strict=True):
        synthetic.finish(run, kind)
    runs[3].start({}).failed(FloatingPointError("x"), "Traceback")
    return runs


def test_panels_say_which_settings_they_show_and_what_failed(settings):
    caption = " ".join(figures.panels(FigureConfig(study="tiny"), settings).get_suptitle().split())
    assert "Settings shown: net.residual=true. Not drawn: 1-2-5x2 (failed)." in caption
    assert "without the network's 3x3 stem" in caption


def test_settings_are_not_correlated_as_if_they_were_schedules(settings):
    titles = {axis.get_title() for axis in figures.prediction(FigureConfig(study="tiny"), settings).axes}
    assert titles == {"3 configurations"}


def test_names_of_points_that_lie_close_stay_within_the_axes(settings):
    axis = figures.pareto(FigureConfig(study="tiny"), settings).axes[0]
    boxes = [Text.get_window_extent(text) for text in axis.texts]
    assert len(boxes) == 3
    assert all(axis.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


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
    with pytest.raises(InputError, match="formats must be among png, svg, pdf"):
        FigureConfig(formats=("gif",))
    with pytest.raises(InputError, match=r"draw must be among panels, .* got 'pie'"):
        FigureConfig(draw=("pie",))
    with pytest.raises(
        InputError, match="measured must be split/metric, such as test/erf_ripple, got 'ripple'"
    ):
        FigureConfig(measured=("ripple",))
    with pytest.raises(InputError, match="draw must name at least one of panels"):
        FigureConfig(draw=())


def test_every_figure_that_can_be_named_can_be_drawn():
    assert tuple(DRAWINGS) == config.NAMES


@pytest.mark.parametrize("name", [name for name in DRAWINGS if name != "panels"])
def test_a_study_that_has_nothing_for_a_figure_is_one_line(tmp_path, name):
    runs = records.plan(tmp_path / "none", [synthetic.configuration("plain", [0])])
    with pytest.raises(InputError) as caught:
        DRAWINGS[name](FigureConfig(study="none"), runs)
    assert "\n" not in str(caught.value)


RATES = ([1, 1, 1], [2, 2, 2], [1, 2, 5], [1, 2, 9], [1, 2, 4], [3, 3, 3])


@pytest.fixture(scope="module")
def schedules(tmp_path_factory):
    """Six schedules whose ripple follows G in all but the last, which is also the best."""
    configs = [from_dict({"schedule": {"rates": rates, "repeat": 1}, "seeds": [4, 2, 7]}) for rates in RATES]
    runs = records.plan(tmp_path_factory.mktemp("results") / "many", configs)
    for place, run in enumerate(runs):
        g = run.config.dilation.gridding.index
        ripple = -3.0 if place == 5 else 10 * g
        synthetic.measured(
            run,
            lambda seed, ripple=ripple, place=place: {
                "accuracy": 0.9,
                "mean_iou": 0.4 + 0.03 * place + 0.001 * (seed * (place + 1) % 5),
                "erf_ripple": ripple + 0.1 * seed,
                "iou_small": 0.1 * (place % 3) + 0.01 * seed,
                "iou_large": 0.5,
            },
        )
    return runs


def points(axis):
    """Where the markers of an axis are, in the order of drawing."""
    return np.array([bars.lines[0].get_xydata()[0] for bars in axis.containers])


def test_prediction_shows_every_schedule_and_its_rank_correlation(schedules):
    figure = figures.prediction(FigureConfig(study="many"), schedules)
    ripple, quality = figure.axes
    g = [run.config.dilation.gridding.index for run in schedules]
    means = [*(10 * value + 0.1 * 13 / 3 for value in g[:5]), -3 + 0.1 * 13 / 3]
    np.testing.assert_allclose(points(ripple), np.stack([g, means], axis=1))
    rho = stats.spearmanr(g, means).statistic
    assert ripple.get_title().startswith(f"ρ = {rho:.2f} [")
    assert ripple.get_title().endswith("n = 6")
    assert (ripple.get_ylabel(), quality.get_ylabel()) == ("ERF ripple, dB", "mIoU, %")
    assert "n = 3 seeds" in figure.get_suptitle()


def test_intervals_are_those_of_the_table(schedules):
    axis = figures.prediction(FigureConfig(study="many"), schedules).axes[0]
    half = stats.t.ppf(0.975, 2) * np.std([0.4, 0.2, 0.7], ddof=1) / np.sqrt(3)
    (bar,) = axis.containers[0].lines[2]
    (low, high) = bar.get_segments()[0][:, 1]
    np.testing.assert_allclose(high - low, 2 * half)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_beats(values):
    found = {values[i] for i in front(np.array(values, float))}
    beaten = {(x, y) for x, y in values for a, b in values if a <= x and b >= y and (a, b) != (x, y)}
    assert found == set(values) - beaten


def test_names_in_the_pareto_figure_cover_neither_each_other_nor_a_point(schedules):
    figure = figures.pareto(FigureConfig(study="many"), schedules)
    axis = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axis.texts]  # without the lines to the points
    assert all(axis.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    labels = {run.config.dilation.label for run in schedules}
    assert {text.get_text() for text in axis.texts} == labels
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*at) for box in boxes for at in axis.transData.transform(points(axis)))


def test_a_tradeoff_has_a_panel_for_each_baseline_and_names_what_changes_and_its_time():
    runs = records.load("cures", FINDINGS)
    asked = {"study": "cures", "baseline": "2x6, net.layer=standard", "measured": ("test/feature_ripple",)}
    figure = figures.DRAWINGS["tradeoff"](FigureConfig(**asked), runs)
    columns = ("test/mean_iou", "test/feature_ripple", "train/seconds")
    table = tables.build(TableConfig(study="cures", measured=columns), runs)
    rows = {row.label: row for row in table.rows}
    for axis, data in zip(figure.axes, ("terrain", "coast"), strict=True):
        assert axis.get_title() == data
        mine = [row for row in table.rows if f"data.name={data}" in row.others]
        means = [[100 * row.estimate(columns[0]).mean, row.estimate(columns[1]).mean] for row in mine]
        np.testing.assert_allclose(points(axis)[:, ::-1], means)
        standard = rows[f"2x6, data.name={data}, net.layer=standard"]
        wanted = {"2x6"}
        for row in mine:
            what = row.schedule if row.schedule != "2x6" else row.keys["net.layer"]
            times = np.mean(list(row.values[columns[2]].values())) / standard.estimate(columns[2]).mean
            wanted |= {f"{what} ×{times:.1f}"} if row is not standard else set()
        assert {text.get_text() for text in axis.texts} == wanted
    assert "n = 8 seeds" in figure.get_suptitle()
    with pytest.raises(InputError, match="no row that can be compared with '2x6'"):
        figures.DRAWINGS["tradeoff"](FigureConfig(**asked | {"baseline": "2x6"}), runs[:2])


def test_differences_are_paired_by_seed_and_in_percentage_points(schedules):
    figure = figures.differences(FigureConfig(study="many"), schedules)
    axis = figure.axes[0]
    shown = [line.get_xydata()[0] for line in axis.lines if line.get_marker() == "o"]
    wanted = [
        100 * np.mean([0.03 * k + 0.001 * (s * (k + 1) % 5 - s % 5) for s in (4, 2, 7)]) for k in range(1, 6)
    ]
    np.testing.assert_allclose(shown, np.stack([wanted, np.arange(5)], axis=1), atol=1e-9)
    assert [text.get_text() for text in axis.get_yticklabels()] == [
        run.config.dilation.label for run in schedules[1:]
    ]
    assert axis.get_xlabel() == "difference in mIoU,\npercentage points"
    assert "n = 3 pairs" in figure.get_suptitle()
    fills = {line.get_markerfacecolor() for line in axis.lines if line.get_marker() == "o"}
    assert "#0072B2" not in fills  # three pairs cannot make a difference clear


def test_a_difference_that_is_not_defined_is_written(tmp_path):
    runs = records.plan(
        tmp_path / "odd", [synthetic.configuration(kind, [0, 1]) for kind in ("plain", "hdc")]
    )
    for run, ripple in zip(runs, (1.0, float("nan")), strict=True):
        synthetic.measured(run, lambda seed, r=ripple: {"mean_iou": 0.4 + 0.01 * seed, "erf_ripple": r})
    quality, ripples = figures.differences(FigureConfig(study="odd"), runs).axes
    assert [[text.get_text() for text in axis.texts] for axis in (quality, ripples)] == [[], ["undefined"]]


def test_strata_are_in_the_order_of_size(schedules):
    axis = figures.strata(FigureConfig(study="many"), schedules).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["small", "large"]
    shown = [bars.lines[0].get_xydata()[:, 1] for bars in axis.containers]
    wanted = [[100 * (0.1 * (k % 3) + 0.01 * 13 / 3), 50] for k in range(6)]
    np.testing.assert_allclose(shown, wanted)


def test_offsets_are_coloured_by_accuracy_and_hatched_where_no_sum_of_taps_leads(tmp_path):
    distances = [0, 1, 2, 3, 5, 6, 9]
    configs = [
        from_dict(
            {
                "data": {"name": "offsets", "offset": offset, "flips": []},
                "schedule": {"rates": rates, "repeat": 1},
                "seeds": [0, 1],
            }
        )
        for rates in ([1, 2], [4, 4])
        for offset in distances
    ]
    runs = records.plan(tmp_path / "offsets", configs)
    reached = [
        {a + b + stem for a in (-x, 0, x) for b in (-y, 0, y) for stem in (-1, 0, 1)}
        for x, y in ((1, 2), (4, 4))
    ]
    seen = np.array([[distance in sums for distance in distances] for sums in reached])
    sums = [reach for reach in reached for _ in distances]
    for run, reachable, reach in zip(runs[:-1], seen.ravel(), sums, strict=False):
        accuracies = lambda seed, r=reachable: {"accuracy": 0.999 if r else 0.5 + 0.01 * seed}  # noqa: E731
        synthetic.measured(run, accuracies, network=synthetic.seen(reach))
    figure = figures.offsets(FigureConfig(study="offsets"), runs)
    axis = figure.axes[0]
    means = np.where(seen, 99.9, 50.5)
    shown = np.ma.filled(axis.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown.ravel()[:-1], means.ravel()[:-1])
    assert np.isnan(shown[-1, -1])
    hatched = {tuple(int(v + 0.5) for v in patch.get_xy()) for patch in axis.patches if patch.get_hatch()}
    assert hatched == {(column, row) for row, column in np.argwhere(~seen)}
    assert "agree in 13 of 13 cells" in figure.get_suptitle()
    assert "1 of 14 runs" in figure.get_suptitle()


def test_many_schedules_have_narrow_rows_and_numbers_only_where_they_do_not_agree(tmp_path):
    configs = [
        from_dict(
            {
                "data": {"name": "offsets", "offset": 2, "flips": []},
                "schedule": {"rates": [1, rate], "repeat": 1},
                "seeds": [0],
            }
        )
        for rate in range(1, 31)
    ]
    runs = records.plan(tmp_path / "offsets", configs)
    for place, run in enumerate(runs):
        accuracy = 0.8 if place == 4 else 1.0
        synthetic.measured(run, lambda _, a=accuracy: {"accuracy": a}, network=synthetic.seen({0, 1, 2}))
    figure = figures.offsets(FigureConfig(study="offsets"), runs)
    assert figure.get_figheight() < 8
    assert [text.get_text() for text in figure.axes[0].texts] == ["80"]
    assert "Numbers: cells that do not agree" in figure.get_suptitle()


@pytest.mark.parametrize(("width", "inches", "star"), [("single", 3.4, ""), ("double", 7.0, "*")])
def test_a_figure_for_a_paper_has_its_width_its_fonts_and_its_caption_beside_it(
    runs, tmp_path, width, inches, star
):
    asked = FigureConfig(study="tiny", style="paper", width=width)
    with figures.of(asked):
        figure = figures.prediction(asked, runs)
        pdf, tex = figures.save(figure, tmp_path, "prediction", ("pdf",))
    assert figure.get_figwidth() == inches
    assert figure.get_suptitle() == ""
    assert max(float(text.get_fontsize()) for text in figure.findobj(Text) if text.get_text()) <= 7.5
    content = pdf.read_bytes()
    assert b"/FontFile2" in content and b"/Type3" not in content  # TrueType, embedded
    caption = tex.read_text(encoding="ascii")
    assert f"\\begin{{figure{star}}}" in caption and "\\caption{tiny: " in caption
    plain = figures.prediction(FigureConfig(study="tiny"), runs)
    assert plain.get_suptitle() and plain.get_figwidth() > 7


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize("draw", ["panels", "errors", "prediction", "pareto", "differences"])
def test_no_words_of_a_figure_for_a_paper_collide_or_are_cut(runs, draw, width):
    asked = FigureConfig(study="tiny", style="paper", width=width)
    with figures.of(asked):
        if width == "single" and draw in ("panels", "errors"):
            with pytest.raises(InputError, match=r"side by side have no room .*: use width=double"):
                figures.DRAWINGS[draw](asked, runs)
            return
        figure = figures.DRAWINGS[draw](asked, runs)
    figure.draw_without_rendering()
    words = [text for axis in figure.axes for text in (axis.xaxis.label, axis.yaxis.label, axis.title)]
    words += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [text.get_window_extent() for text in words if text.get_text()]
    assert len(boxes) > 3
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1))


def test_dark_images_are_brightened_and_points_keep_their_colours():
    from hdc.lab.report.figures.style import displayed

    rng = np.random.default_rng(0)
    dark = rng.integers(5, 40, (32, 32, 3)).astype(np.uint8)
    dark[:2] = 250  # snow
    shown = displayed(dark)
    assert shown.dtype == np.uint8
    assert np.median(shown) > 2 * np.median(dark)
    order = np.argsort(dark, axis=None, kind="stable")
    assert (np.diff(shown.ravel()[order].astype(int)) >= 0).all()  # no darker pixel becomes the brighter one
    points = np.zeros((32, 32, 1), np.uint8)
    points[3, 4], points[9, 9] = 255, 128
    assert displayed(points)[3, 4] == 255 and displayed(points)[9, 9] == 128


def test_drawing_needs_no_jax():
    program = "import sys, hdc.lab.report.figures; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("artifact", "arrays", "message"),
    [
        ("gridding", {}, "it has no map named erf"),
        ("gridding", {"erf": np.ones(3)}, "it has no map named erf"),
        ("gridding", {"erf": np.ones((3, 3), bool)}, "it has no map named erf"),
        ("predictions", {"classes": None}, "they do not fit together"),
        ("predictions", {"classes": np.array(["sea"])}, "they do not fit together"),
        ("predictions", {"labels": np.zeros((4, 16), np.int32)}, "they do not fit together"),
        ("predictions", {"images": np.zeros((3, 16, 16, 3), np.uint8)}, "they do not fit together"),
        ("predictions", {"images": np.zeros((4, 16, 16, 3))}, "they do not fit together"),
    ],
)
def test_arrays_that_are_not_those_of_a_run_are_one_line(tmp_path, artifact, arrays, message):
    run = synthetic.synthetic_study(tmp_path)[0]
    kept = {} if artifact == "gridding" else run.artifact(artifact, 0)
    kept = {name: array for name, array in (kept | arrays).items() if array is not None}
    np.savez(run.folder / "artifacts" / f"{artifact}-seed0.npz", allow_pickle=False, **kept)
    synthetic.sign(run)
    with pytest.raises(InputError, match=message):
        figures.panels(FigureConfig(study="tiny"), records.load("tiny", tmp_path))


@pytest.fixture
def with_plugin(tmp_path):
    """Three schedules with a plugin's measure and none of ours but accuracy and mean IoU."""
    runs = records.plan(
        tmp_path / "tiny", [synthetic.configuration(kind, [0, 1, 2]) for kind in synthetic.RATES]
    )
    for place, run in enumerate(runs):
        values = {"accuracy": 0.5, "mean_iou": 0.4 + 0.1 * place, "lattice_share": 0.25 * (place + 1)}
        synthetic.measured(run, lambda seed, values=values: values)
    return runs


def labels(figure):
    return [axis.get_xlabel() + axis.get_ylabel() for axis in figure.axes]


def test_measures_of_plugins_are_drawn_by_default_and_when_named(with_plugin):
    for measured in (FigureConfig.measured, ("test/lattice_share",)):
        asked = FigureConfig(study="tiny", measured=measured)
        for draw in (figures.prediction, figures.differences):
            assert sum("lattice share" in text for text in labels(draw(asked, with_plugin))) == 1
        assert labels(figures.pareto(asked, with_plugin))[0].startswith("lattice share")
    only = FigureConfig(study="tiny", measured=("test/accuracy",))
    assert not any("lattice" in text for text in labels(figures.differences(only, with_plugin)))
    with pytest.raises(InputError, match="no run of study 'tiny' has any of test/iou_small"):
        figures.strata(FigureConfig(study="tiny"), with_plugin)

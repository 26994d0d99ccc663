"""The picture of path counts: every pixel in its place, holes in their colour."""

import io

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from hdc import plots
from hdc.fields import Branches, PathCounts, Stack

ORANGE = pytest.approx(to_rgb(plots.HOLE), abs=1 / 250)


def colours(paths: np.ndarray) -> np.ndarray:
    """The colour of every pixel of a map, `[h, w, 3]`."""
    figure = Figure()
    axis = figure.subplots()
    plots.draw(axis, paths)
    (image,) = axis.images
    return image.to_rgba(image.get_array())[..., :3]


@settings(max_examples=15)
@given(pairs=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3))
def test_holes_are_orange_and_nothing_else_is(pairs) -> None:
    heights, widths = ([pair[axis] for pair in pairs] for axis in (0, 1))
    drawn = colours(Stack.parse(",".join(f"{h}x{w}" for h, w in pairs)).paths.counts)
    reached = reference.path_counts_2d(heights, widths, 3)
    assert drawn.shape[:2] == (1 + 2 * sum(heights), 1 + 2 * sum(widths))
    for place in np.ndindex(drawn.shape[:2]):
        grey = np.ptp(drawn[place]) < 1e-6
        assert grey is np.bool_(place in reached)
        if not grey:
            assert tuple(drawn[place]) == ORANGE


def test_more_paths_are_brighter() -> None:
    counts = np.array([[1.0, 2.0, 5.0, 0.0, 5.0]])
    grey = colours(counts)[0, :, 0]
    assert grey[0] < grey[1] < grey[2] == grey[4] == 1.0


def test_the_map_is_in_pixels_around_its_centre() -> None:
    figure = plots.figure([("title", Stack.parse("1x2,2x2").paths)])
    (image,) = figure.axes[0].images
    assert tuple(image.get_extent()) == (-4.5, 4.5, 3.5, -3.5)
    assert figure.axes[0].get_aspect() == 1.0
    assert image.get_array().shape == (7, 9)


def bars(axis) -> tuple[list[float], list[float]]:
    return [patch.get_x() + patch.get_width() / 2 for patch in axis.patches], [
        p.get_height() for p in axis.patches
    ]


def marks(axis) -> list[float]:
    (lines,) = axis.collections
    return sorted({float(x) for segment in lines.get_segments() for x, _ in segment})


@pytest.mark.parametrize("rates", [[1, 2, 5], [2, 2], [1, 2, 9], [3]])
@pytest.mark.parametrize("taps", [2, 3])
def test_the_profile_has_the_counts_along_the_width_and_a_line_at_every_hole(rates, taps) -> None:
    text = ",".join(map(str, rates))
    counts = reference.path_counts(rates, taps)
    centre = (len(counts) - 1) / 2
    for dimensions in (1, 2):
        paths = Stack.parse(text, taps, dimensions).paths
        _, lower = plots.figure([("title", paths)]).axes
        positions, heights = bars(lower)
        assert positions == pytest.approx([offset - centre for offset in range(len(counts))])
        assert heights == pytest.approx((counts / counts.max()).tolist())
        assert marks(lower) == [offset - centre for offset in np.flatnonzero(counts == 0)]


def test_the_profile_of_two_axes_is_that_of_the_width() -> None:
    upper, lower = plots.figure([("title", Stack.parse("1x2,1x2").paths)]).axes
    positions, _ = bars(lower)
    assert len(positions) == 9
    assert marks(lower) == [-3.0, -1.0, 1.0, 3.0]
    assert lower.get_xlim() == upper.get_xlim() == (-4.5, 4.5)


def test_the_profile_of_branches() -> None:
    layers = ((0, 4), (0, 1))
    reached = reference.branched_counts(layers, 3)
    low, high = reference.box(reached)
    counts = [
        sum(n for (_, column), n in reached.items() if column == at) for at in range(low[1], high[1] + 1)
    ]
    _, lower = plots.figure([("title", Branches(layers).paths)]).axes
    positions, heights = bars(lower)
    assert positions == list(range(low[1], high[1] + 1))
    assert heights == pytest.approx([count / max(counts) for count in counts])
    assert marks(lower) == [x for x, count in zip(positions, counts, strict=True) if count == 0]


def test_a_signal_is_one_row() -> None:
    upper, _ = plots.figure([("title", Stack.parse("2,2", 3, 1).paths)]).axes
    (image,) = upper.images
    assert image.get_array().shape == (1, 9)
    assert image.get_array().mask.tolist() == [[False, True] * 4 + [False]]
    assert list(upper.get_yticks()) == []


def test_a_volume_is_drawn_along_its_last_axis() -> None:
    counts = np.zeros((3, 3, 5))
    counts[1, 1, [0, 2, 4]] = (1, 2, 1)
    upper, lower = plots.figure([("title", PathCounts(counts, (0, 0, 0)))]).axes
    assert upper.images[0].get_array().shape == (1, 5)
    assert bars(lower)[1] == [0.5, 0.0, 1.0, 0.0, 0.5]
    assert marks(lower) == [-1.0, 1.0]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_field_has_a_column_with_its_title(number) -> None:
    fields = [(f"title {n}", Stack.parse(f"{n}").paths) for n in range(1, number + 1)]
    figure = plots.figure(fields)
    assert len(figure.axes) == 2 * number
    assert [axis.get_title() for axis in figure.axes[:number]] == [title for title, _ in fields]
    assert [axis.images[0].get_array().shape[0] for axis in figure.axes[:number]] == [
        1 + 2 * n for n in range(1, number + 1)
    ]
    (legend,) = figure.legends
    assert legend.get_texts()[0].get_text() == "never seen"
    assert legend.get_patches()[0].get_facecolor()[:3] == ORANGE


def test_what_is_drawn_is_orange_on_the_page_only_where_there_are_holes() -> None:
    def orange(text: str) -> int:
        figure = plots.figure([("title", Stack.parse(text).paths)])
        figure.legends[0].remove()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
        return int((np.abs(pixels - np.multiply(255, to_rgb(plots.HOLE))).max(axis=-1) < 3).sum())

    assert orange("1,2,5") == 0
    assert orange("2,2,2") > 1000


@pytest.mark.parametrize(("format", "starts"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_it_can_be_saved(format, starts) -> None:
    buffer = io.BytesIO()
    plots.figure(
        [("1-2: a < b & c", Stack.parse("1,2").paths), ("signal", Stack.parse("7", 2, 1).paths)]
    ).savefig(buffer, format=format)
    assert buffer.getvalue().startswith(starts)

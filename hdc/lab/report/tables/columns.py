"""The columns of a table: what is known of a row without training, headings, units and digits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdc.fields import PathCounts
from hdc.lab.config import Config
from hdc.lab.records.run import Run


@dataclass(frozen=True)
class Described:
    """A column that needs no training: its heading, its value for a row's runs, and its text."""

    title: str
    of: Callable[[Sequence[Run]], Any]
    text: Callable[[Any], str]


def network_counts(config: Config) -> PathCounts | None:
    """Path counts, along one axis, of net=context: its 3x3 stem and the schedule. None for other networks."""
    if config.net.name != "context":
        return None
    counts = np.convolve(config.dilation.path_counts.astype(float), np.ones(3))
    return PathCounts.of(counts, (-(len(counts) // 2),))


def _of_network(value: Callable[[PathCounts, Config], float]) -> Callable[[Sequence[Run]], float | None]:
    def of(runs: Sequence[Run]) -> float | None:
        config = runs[0].config
        counts = network_counts(config)
        return None if counts is None else value(counts, config)

    return of


def _recorded(name: str) -> Callable[[Sequence[Run]], Any]:
    """A value that `run.json` keeps of the network, from the first run that has begun."""
    return lambda runs: next((run.info["network"].get(name) for run in runs if "network" in run.info), None)


DESCRIBED = {
    "receptive_field": Described("field px", lambda runs: runs[0].config.dilation.receptive_field, str),
    "coverage": Described("coverage %", lambda runs: 100 * runs[0].config.dilation.coverage, "{:.0f}".format),
    "gap_free": Described(
        "gap-free", lambda runs: runs[0].config.dilation.gap_free, lambda v: "yes" if v else "no"
    ),
    "gridding": Described("G", lambda runs: runs[0].config.dilation.gridding.index, "{:.3f}".format),
    "network_coverage": Described(
        "coverage with stem %", _of_network(lambda counts, _: 100 * counts.coverage), "{:.0f}".format
    ),
    "network_gridding": Described(
        "G with stem",
        _of_network(lambda counts, config: counts.gridding(max(config.schedule.rates)).index),
        "{:.3f}".format,
    ),
    "parameters": Described("params", _recorded("parameters"), "{:,}".format),
    "flops_per_image": Described("MFLOP", _recorded("flops_per_image"), lambda v: f"{v / 1e6:,.1f}"),
    "bytes_per_image": Described("MB", _recorded("bytes_per_image"), lambda v: f"{v / 1e6:,.2f}"),
}

# Heading, factor and digits of a measured column; others show their own name and four digits.
_MEASURED = {
    "accuracy": ("accuracy %", 100, 2),
    "mean_iou": ("mIoU %", 100, 2),
    "speckle": ("speckle %", 100, 3),
    "erf_ripple": ("ERF ripple dB", 1, 1),
    **{f"erf_area_{share}": (f"ERF {share} % area px²", 1, 0) for share in (20, 30, 50, 99)},
    **{f"erf_fill_{share}": (f"ERF {share} % area of field", 1, 3) for share in (20, 30, 50, 99)},
    "feature_ripple": ("feature ripple dB", 1, 1),
    "phase_imbalance": ("phase imbalance %", 100, 2),
    **{f"iou_{size}": (f"{size} items IoU %", 100, 2) for size in ("small", "medium", "large")},
    "seconds": ("s/epoch", 1, 1),
}


def number(column: str, runs: Sequence[Run]) -> float:
    """The value of a described column; NaN where it is not known."""
    value = DESCRIBED[column].of(runs)
    return math.nan if value is None else float(value)


def style(column: str) -> tuple[str, float, int]:
    """Heading, factor and digits of a measured column."""
    return _MEASURED.get(column.split("/")[1], (column, 1, 4))


def title(column: str, dense: bool) -> str:
    """The heading; accuracy is that of pixels where `dense`."""
    if column in DESCRIBED:
        return DESCRIBED[column].title
    heading = style(column)[0]
    if dense and column.endswith("/accuracy"):
        heading = f"pixel {heading}"
    split = column.split("/")[0]
    return (
        heading if split == "test" or column == "train/seconds" or heading == column else f"{split} {heading}"
    )


def difference_text(column: str, mean: float, low: float, high: float) -> str:
    """A difference with its interval, where there is one, in the column's units."""
    _, factor, digits = style(column)
    text = f"{mean * factor:+.{digits}f}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return text
    return f"{text} [{low * factor:+.{digits}f}, {high * factor:+.{digits}f}]"

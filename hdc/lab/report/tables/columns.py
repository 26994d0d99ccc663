"""The columns of a table: what is known of a row without training, headings, units and digits."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hdc.lab.records.run import Run


@dataclass(frozen=True)
class Described:
    """A column that needs no training: its heading, its value for a row's runs, and its text."""

    title: str
    of: Callable[[Sequence[Run]], Any]
    text: Callable[[Any], str]


NETWORK = ("network_coverage", "network_gridding")  # what `hdc.lab.seen` records of the built network


def _recorded(name: str) -> Callable[[Sequence[Run]], Any]:
    """A number that `run.json` keeps about the network, from the first run that was started."""
    return lambda runs: next((run.info["network"].get(name) for run in runs if "network" in run.info), None)


def seen(runs: Sequence[Run]) -> Mapping[str, Any] | None:
    """What the network of these runs sees, as `hdc.lab.seen` records it; None where no run has it."""
    return next((found for run in runs if (found := run.info.get("network", {}).get("seen"))), None)


def _seen(of: Callable[[Mapping[str, Any]], float]) -> Callable[[Sequence[Run]], float | None]:
    return lambda runs: None if (found := seen(runs)) is None else of(found)


DESCRIBED = {
    "receptive_field": Described("field px", lambda runs: runs[0].config.dilation.receptive_field, str),
    "coverage": Described("coverage %", lambda runs: 100 * runs[0].config.dilation.coverage, "{:.0f}".format),
    "gap_free": Described(
        "gap-free", lambda runs: runs[0].config.dilation.gap_free, lambda v: "yes" if v else "no"
    ),
    "gridding": Described("G", lambda runs: runs[0].config.dilation.gridding.index, "{:.3f}".format),
    "network_coverage": Described(
        "coverage of the network %", _seen(lambda found: 100 * min(found["coverage"])), "{:.0f}".format
    ),
    "network_gridding": Described(
        "G of the network", _seen(lambda found: found["gridding"]), "{:.3f}".format
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

"""The columns of a table: headings, units and digits, and the values that are known without training."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hdc.lab.prediction import predicted_ripple
from hdc.lab.records.run import Run


@dataclass(frozen=True)
class Column:
    """How a column is written.

    Attributes:
        title: its heading.
        digits: after the point.
        factor: from the value to what is written, 100 for a share in percent.
        of: the value for the runs of a row, None where it is not known; None for a measured column.
    """

    title: str
    digits: int
    factor: float = 1
    of: Callable[[Sequence[Run]], Any] | None = None

    def text(self, value: Any) -> str:
        """A known value as it is written; a dash for None."""
        if isinstance(value, bool | None):
            return {None: "–", True: "yes", False: "no"}[value]
        return f"{value * self.factor:,.{self.digits}f}"


def _recorded(name: str) -> Callable[[Sequence[Run]], Any]:
    """A number that `run.json` keeps about the network, from the first run that was started."""
    return lambda runs: next((run.info["network"].get(name) for run in runs if "network" in run.info), None)


def seen(runs: Sequence[Run]) -> Mapping[str, Any] | None:
    """What the network of these runs sees, as `hdc.lab.seen` records it; None where no run has it."""
    return next((found for run in runs if (found := run.info.get("network", {}).get("seen"))), None)


def _seen(of: Callable[[Mapping[str, Any]], float | None]) -> Callable[[Sequence[Run]], float | None]:
    return lambda runs: None if (found := seen(runs)) is None else of(found)


def _predicted_ripple(runs: Sequence[Run]) -> float | None:
    shape = runs[0].info.get("data", {}).get("image_shape")
    return None if shape is None else predicted_ripple(runs[0].config, shape)


def _stride(found: Mapping[str, Any]) -> float | None:
    strides = found.get("output_stride")
    return None if strides is None else max(strides)


NETWORK = (
    "network_field",
    "network_coverage",
    "network_gridding",
    "output_stride",
)  # what `hdc.lab.seen` records
DESCRIBED = {
    "receptive_field": Column("field px", 0, of=lambda runs: runs[0].config.dilation.receptive_field),
    "coverage": Column("coverage %", 0, of=lambda runs: 100 * runs[0].config.dilation.coverage),
    "gap_free": Column("gap-free", 0, of=lambda runs: runs[0].config.dilation.gap_free),
    "gridding": Column("G", 3, of=lambda runs: runs[0].config.dilation.gridding.index),
    "lattice_share": Column("lattice %", 0, of=lambda runs: 100 * runs[0].config.dilation.lattice_share),
    "predicted_ripple": Column("predicted ripple dB", 1, of=_predicted_ripple),
    "network_field": Column("field of the network px", 0, of=_seen(lambda found: max(found["size"]))),
    "output_stride": Column("output stride", 0, of=_seen(_stride)),
    "network_coverage": Column(
        "coverage of the network %", 0, of=_seen(lambda found: 100 * min(found["coverage"]))
    ),
    "network_gridding": Column("G of the network", 3, of=_seen(lambda found: found["gridding"])),
    "parameters": Column("params", 0, of=_recorded("parameters")),
    "flops_per_image": Column("MFLOP", 1, 1e-6, _recorded("flops_per_image")),
    "bytes_per_image": Column("MB", 2, 1e-6, _recorded("bytes_per_image")),
}
_MEASURED = {
    "accuracy": Column("accuracy %", 2, 100),
    "train_accuracy": Column("accuracy on training images %", 2, 100),
    "mean_iou": Column("mIoU %", 2, 100),
    "boundary_iou": Column("boundary IoU %", 2, 100),
    "psnr": Column("PSNR dB", 2),
    "mae": Column("MAE", 4),
    "speckle": Column("speckle %", 3, 100),
    "erf_ripple": Column("ERF ripple dB", 1),
    **{f"erf_area_{share}": Column(f"ERF {share} % area px²", 0) for share in (20, 30, 50, 99)},
    **{f"erf_fill_{share}": Column(f"ERF {share} % area of field", 3) for share in (20, 30, 50, 99)},
    "feature_ripple": Column("feature ripple dB", 1),
    "phase_imbalance": Column("phase imbalance %", 2, 100),
    **{f"iou_{size}": Column(f"{size} items IoU %", 2, 100) for size in ("small", "medium", "large")},
    "seconds": Column("s/epoch", 1),
}
_BUILT_IN = re.compile(r"loss|iou_.+|(erf_ripple|feature_ripple)_frequency|phase_imbalance_period")


def column(name: str) -> Column:
    """The column of a name: one of `DESCRIBED`, or split/metric; unlisted metrics have four digits."""
    metric = name.rpartition("/")[2]
    return (DESCRIBED if metric == name else _MEASURED).get(metric, Column(metric.replace("_", " "), 4))


def is_plugin(name: str) -> bool:
    """Whether a column is a test metric of a plugin's measure, which tables show without being asked."""
    split, _, metric = name.partition("/")
    return split == "test" and metric not in _MEASURED and not _BUILT_IN.fullmatch(metric)


def title(name: str, dense: bool, signals: bool = False) -> str:
    """The heading; where `dense`, accuracy is that of pixels. Signals have steps, and no areas."""
    split, _, metric = name.rpartition("/")
    heading = column(name).title
    if dense and metric == "accuracy":
        heading = f"{'step' if signals else 'pixel'} {heading}"
    if signals:
        heading = heading.replace("area px²", "length").replace("area of", "length of")
    return heading if split in ("", "test") or name == "train/seconds" else f"{split} {heading}"


def name_and_unit(name: str, dense: bool, signals: bool = False) -> tuple[str, str]:
    """The heading without its unit, and the unit, which may be empty: `ERF ripple`, `dB`."""
    heading = title(name, dense, signals)
    words, _, unit = heading.rpartition(" ")
    return (words, unit) if unit in ("%", "dB", "px²") else (heading, "")


def difference_text(name: str, mean: float, low: float, high: float) -> str:
    """A difference in the column's units, with its interval where that is finite."""
    digits = column(name).digits
    mean, low, high = (column(name).factor * value for value in (mean, low, high))
    interval = (
        f" [{low:+.{digits}f}, {high:+.{digits}f}]" if math.isfinite(low) and math.isfinite(high) else ""
    )
    return f"{mean:+.{digits}f}{interval}"

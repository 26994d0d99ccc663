"""What a figure is asked to be."""

from dataclasses import dataclass

from hdc.errors import InputError
from hdc.lab.report.tables import TableConfig

FORMATS = ("png", "svg", "pdf")
NAMES = ("panels", "prediction", "pareto", "offsets", "differences", "strata")


@dataclass(frozen=True)
class FigureConfig:
    """What `conf/figure/*.yaml` declares.

    Attributes:
        draw: the figures, each a file of its name: `panels` (what each schedule sees and predicts),
            `prediction` (predicted G against each measured gridding number), `pareto` (quality against
            gridding), `offsets` (the matrix of schedules and offsets), `differences` (to the baseline, with
            intervals), `strata` (IoU by the size of things).
        study, results: whose records, and the folder that holds the studies.
        seed: whose maps and predictions `panels` shows; the first seed of each run where it is null.
        measured: gridding numbers as split/metric, those that no run has are left out; `pareto` takes the
            first of them.
        baseline: of `differences`, as a table has it.
        formats: of the files, png, svg or pdf.
        out: the folder to write to, <results>/<study>/figures where it is null.
    """

    draw: tuple[str, ...] = ("panels",)
    study: str = "default"
    results: str = "results"
    seed: int | None = None
    measured: tuple[str, ...] = ("test/erf_ripple", "test/feature_ripple", "test/phase_imbalance")
    baseline: str = TableConfig.baseline
    formats: tuple[str, ...] = ("png", "svg")
    out: str | None = None

    def __post_init__(self) -> None:
        for key, allowed in (("draw", NAMES), ("formats", FORMATS)):
            if not getattr(self, key):
                raise InputError(f"{key} must name at least one of {', '.join(allowed)}")
            for name in getattr(self, key):
                if name not in allowed:
                    raise InputError(f"{key} must be of {', '.join(allowed)}, got {name!r}")
        for name in self.measured:
            if name.count("/") != 1:
                raise InputError(f"measured must be of split/metric, got {name!r}")

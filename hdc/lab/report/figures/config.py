"""The options of `hdc figure`."""

from dataclasses import dataclass

from hdc.errors import InputError, one_of
from hdc.lab.report.tables import TableConfig

PAPER = {"single": 3.4, "double": 7.0}  # inches, the widths of a column and of a page with two
FORMATS = ("png", "svg", "pdf")
NAMES = ("panels", "errors", "prediction", "pareto", "offsets", "differences", "strata", "tradeoff")


@dataclass(frozen=True)
class FigureConfig:
    """What `conf/figure/*.yaml` declares.

    Attributes:
        draw: the figures, each written to a file of its name: `panels` (what each schedule sees and
            predicts), `errors` (what each schedule sees, predicts and gets wrong, at one scale; for label
            maps), `prediction` (what is predicted against each measured gridding number), `pareto`
            (quality against gridding), `offsets` (schedules by offsets), `differences` (to the baseline, with
            intervals), `strata` (IoU by the size of objects), `tradeoff` (quality against gridding beside the
            baseline, each row named with its time).
        study, results: the study to draw, and the folder that holds the studies.
        seed: the seed whose maps and predictions `panels` shows; null is the first seed of each run.
        measured: the columns of `prediction` and `differences`, as split/metric; `pareto` takes the first
            one that some run has, `tradeoff` the first one. By default they include the measures of plugins.
        predicted: of `prediction`: `gridding` (G) or `predicted_ripple`.
        baseline: the row that `differences` compares with, as in a table.
        style: screen, or paper: in the width of its columns, with smaller type, the caption in a LaTeX file
            beside the figure, as pdf where no formats are given.
        width: of a paper's figure: single or double, one column or two.
        formats: png, svg or pdf.
        out: the folder to write to; null is <results>/<study>/figures.
    """

    draw: tuple[str, ...] = ("panels",)
    study: str = "default"
    results: str = "results"
    seed: int | None = None
    measured: tuple[str, ...] = ("test/erf_ripple", "test/feature_ripple", "test/phase_imbalance")
    predicted: str = "gridding"
    baseline: str = TableConfig.baseline
    style: str = "screen"
    width: str = "double"
    formats: tuple[str, ...] = ("png", "svg")
    out: str | None = None

    def __post_init__(self) -> None:
        one_of("style", self.style, ("screen", "paper"))
        one_of("width", self.width, tuple(PAPER))
        for key, allowed in (("draw", NAMES), ("formats", FORMATS)):
            if not getattr(self, key):
                raise InputError(f"{key} must name at least one of {', '.join(allowed)}")
            for name in getattr(self, key):
                if name not in allowed:
                    raise InputError(f"{key} must be among {', '.join(allowed)}, got {name!r}")
        one_of("predicted", self.predicted, ("gridding", "predicted_ripple"))
        for name in self.measured:
            if name.count("/") != 1:
                raise InputError(f"measured must be split/metric, such as test/erf_ripple, got {name!r}")

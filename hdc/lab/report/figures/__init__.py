"""Figures drawn from the records. No JAX."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from hdc.lab.records.run import Run
from hdc.lab.report.figures.config import FigureConfig
from hdc.lab.report.figures.errors import errors
from hdc.lab.report.figures.offsets import offsets
from hdc.lab.report.figures.panels import panels
from hdc.lab.report.figures.rows import differences, strata
from hdc.lab.report.figures.scatter import pareto, prediction
from hdc.lab.report.figures.style import of as of
from hdc.lab.report.figures.style import save as save
from hdc.lab.report.figures.tradeoff import tradeoff

DRAWINGS: dict[str, Callable[[FigureConfig, Sequence[Run]], Figure]] = {
    "panels": panels,
    "errors": errors,
    "prediction": prediction,
    "pareto": pareto,
    "offsets": offsets,
    "differences": differences,
    "strata": strata,
    "tradeoff": tradeoff,
}

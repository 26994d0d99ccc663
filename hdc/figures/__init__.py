"""Records to pictures. No JAX."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from hdc.figures.config import FigureConfig
from hdc.figures.offsets import offsets
from hdc.figures.panels import panels
from hdc.figures.rows import differences, strata
from hdc.figures.scatter import pareto, prediction
from hdc.figures.style import COLOURS, save
from hdc.records.run import Run

DRAWINGS: dict[str, Callable[[FigureConfig, Sequence[Run]], Figure]] = {
    "panels": panels,
    "prediction": prediction,
    "pareto": pareto,
    "offsets": offsets,
    "differences": differences,
    "strata": strata,
}

__all__ = [
    "COLOURS",
    "DRAWINGS",
    "FigureConfig",
    "differences",
    "offsets",
    "panels",
    "pareto",
    "prediction",
    "save",
    "strata",
]

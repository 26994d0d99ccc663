"""The records of runs: written safely, read tolerantly, packed small. No JAX."""

from hdc.records.files import Unwritable
from hdc.records.folder import RunFolder, Superseded, Writer, load, plan, studies, study_folder, times
from hdc.records.lock import Taken
from hdc.records.run import METRICS, TIMES, Run
from hdc.records.together import frame, measurements

__all__ = [
    "METRICS",
    "TIMES",
    "Run",
    "RunFolder",
    "Superseded",
    "Taken",
    "Unwritable",
    "Writer",
    "frame",
    "load",
    "measurements",
    "plan",
    "studies",
    "study_folder",
    "times",
]

"""The records of runs: written safely, read tolerantly, packed small. No JAX."""

from hdc.lab.locks import Taken
from hdc.lab.records.frames import frame, measurements
from hdc.lab.records.live import RunFolder, Superseded, Writer, load, plan, studies, study_folder, times
from hdc.lab.records.run import METRICS, TIMES, Run
from hdc.lab.store import Unwritable

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

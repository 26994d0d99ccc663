"""Measure the training steps of a study, side by side: `hdc time --help`."""

from dataclasses import dataclass

from hdc.errors import InputError
from hdc.lab import memory, records
from hdc.lab import store as files
from hdc.lab.commands import options
from hdc.lab.commands.command import writing
from hdc.lab.commands.output import console
from hdc.lab.records import packed as findings


@dataclass(frozen=True)
class TimeConfig:
    """What is measured.

    Attributes:
        study, results: the study to measure, and the folder that holds the studies.
        repeats: the number of rounds; each round measures one step of every run.
    """

    study: str = "default"
    results: str = "results"
    repeats: int = 15

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InputError(f"repeats must be at least 1, got {self.repeats}")


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    memory.keep()
    about = "Measure the seconds and bytes of a training step of every run of a study, in turn."
    config = options.read(TimeConfig, "time", arguments, about)
    runs = records.load(config.study, config.results)
    folder = records.study_folder(config.results, config.study)
    if findings.is_packed(folder):
        raise InputError(f"{folder} holds packed findings: measure in the results folder, then pack")

    from hdc.lab import experiment, timing

    experiment.enable_compilation_cache()
    times = timing.measure(runs, config.repeats)
    path = folder / findings.TIMES_FILE
    with writing(path):
        files.write(path, times.write_csv().encode())
    console().print(f"{path}: {times.height} measurements", soft_wrap=True)
    return 0

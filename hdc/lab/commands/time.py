"""Measures the training steps of a study, interleaved on one machine: `hdc time --help`."""

import sys
from dataclasses import dataclass

from rich.console import Console

from hdc.errors import InputError
from hdc.lab import memory, records
from hdc.lab import store as files
from hdc.lab.commands import compose
from hdc.lab.commands.declared import declared
from hdc.lab.records import packed as findings


@dataclass(frozen=True)
class TimeConfig:
    """The options of `hdc time`.

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


def main() -> None:
    """The command. Exit code 0, or 2 for bad input."""
    memory.keep()
    with compose.one_line_errors("hdc time"):
        about = "Seconds and bytes of a training step of every run, measured in turn."
        config = declared(TimeConfig, "time", sys.argv[1:], about)
        runs = records.load(config.study, config.results)
        folder = records.study_folder(config.results, config.study)
        if findings.is_packed(folder):
            raise InputError(
                f"{folder} holds packed findings: run `hdc time` on the results folder, then pack it"
            )

        from hdc.lab import experiment, timing

        experiment.enable_compilation_cache()
        times = timing.measure(runs, config.repeats)
        path = folder / findings.TIMES_FILE
        try:
            files.write(path, times.write_csv().encode())
        except files.Unwritable as error:
            raise InputError(str(error)) from None
        Console().print(f"{path}: {times.height} measurements", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()

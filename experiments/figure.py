"""Draw a study from its records: `python -m experiments.figure --help`."""

import sys
from pathlib import Path

from experiments import launch
from experiments.declared import declared
from hdc import figures, records
from hdc.errors import InputError


def main() -> None:
    """The command. Exit code 0, or 2 for bad input."""
    with launch.one_line_errors("experiments.figure"):
        config = declared(
            figures.FigureConfig, "figure", sys.argv[1:], "One row of pictures a schedule of a study."
        )
        figure = figures.panels(config, records.load(config.study, config.results))
        default = records.study_folder(config.results, config.study) / "figures"
        folder = Path(config.out) if config.out else default
        try:
            paths = figures.save(figure, folder, "schedules", config.formats)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}") from None
        print(*paths, sep="\n")


if __name__ == "__main__":
    main()

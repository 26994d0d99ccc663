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
        config = declared(figures.FigureConfig, "figure", sys.argv[1:], "Pictures of a study.")
        default = records.study_folder(config.results, config.study) / "figures"
        folder = Path(config.out) if config.out else default
        print(*draw(config, folder), sep="\n")


def draw(config: figures.FigureConfig, folder: Path) -> list[Path]:
    """Draw what is asked for into a folder, each figure under its name.

    Raises:
        InputError: where there is nothing to draw, or the folder cannot be written.
    """
    runs = records.load(config.study, config.results)
    drawn = {name: figures.DRAWINGS[name](config, runs) for name in config.draw}
    try:
        return [
            path
            for name, figure in drawn.items()
            for path in figures.save(figure, folder, name, config.formats)
        ]
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    main()

"""Draws the figures of a study from its records: `hdc figure --help`."""

import sys
from pathlib import Path

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.commands import compose
from hdc.lab.commands.declared import declared
from hdc.lab.report import figures


def main() -> None:
    """The command. Exit code 0, or 2 for bad input."""
    with compose.one_line_errors("hdc figure"):
        config = declared(figures.FigureConfig, "figure", sys.argv[1:], "Figures of a study.")
        default = records.study_folder(config.results, config.study) / "figures"
        folder = Path(config.out) if config.out else default
        print(*draw(config, folder), sep="\n")


def draw(config: figures.FigureConfig, folder: Path) -> list[Path]:
    """Write the figures that `config` asks for into a folder, each under its name.

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

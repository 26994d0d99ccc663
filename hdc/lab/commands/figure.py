"""Draw a study from its records: `hdc figure --help`."""

from pathlib import Path

from hdc.lab import records
from hdc.lab.commands import options
from hdc.lab.commands.command import writing
from hdc.lab.report import figures
from hdc.lab.report.figures import FigureConfig


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    config = options.read(FigureConfig, "figure", arguments, "Figures of a study.")
    default = records.study_folder(config.results, config.study) / "figures"
    print(*draw(config, Path(config.out) if config.out else default), sep="\n")
    return 0


def draw(config: FigureConfig, folder: Path) -> list[Path]:
    """Draw figures into a folder, each under its name, and return their paths.

    Raises:
        InputError: if there is nothing to draw, or the folder cannot be written.
    """
    runs = records.load(config.study, config.results)
    formats = config.formats
    if config.style == "paper" and formats == FigureConfig.formats:
        formats = ("pdf",)
    with figures.of(config):
        drawn = {name: figures.DRAWINGS[name](config, runs) for name in config.draw}
        with writing(folder):
            return [path for name, one in drawn.items() for path in figures.save(one, folder, name, formats)]

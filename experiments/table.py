"""Build a study's table from its records: `python -m experiments.table --help`."""

import sys
from pathlib import Path

from rich.console import Console

from experiments import launch
from experiments.declared import declared
from hdc import records, tables
from hdc.errors import InputError


def main() -> None:
    """The command. Exit code 0, or 2 for bad input."""
    with launch.one_line_errors("experiments.table"):
        config = declared(
            tables.TableConfig, "table", sys.argv[1:], "A study's table: means, intervals, differences."
        )
        table = tables.build(config, records.load(config.study, config.results))
        if config.format == "terminal":
            if config.out is not None:
                raise InputError("out is for format=markdown, csv or latex; the terminal needs no file")
            Console().print(tables.render(table))
        elif config.out is None:
            print(tables.to_text(table, config.format), end="")
        else:
            try:
                records.write(Path(config.out), tables.to_text(table, config.format).encode())
            except OSError as error:
                raise InputError(f"out={config.out} cannot be written: {error.strerror}") from None
            print(config.out)


if __name__ == "__main__":
    main()

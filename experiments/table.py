"""Build a table, of a study's records or of published schedules: `python -m experiments.table --help`."""

import sys
from pathlib import Path

from rich.console import Console

from experiments import launch
from experiments.declared import declared
from hdc import published_table, records, rendering, tables
from hdc.errors import InputError
from hdc.rendering import Document


def main() -> None:
    """The command. Exit code 0, or 2 for bad input."""
    with launch.one_line_errors("experiments.table"):
        config = declared(
            tables.TableConfig, "table", sys.argv[1:], "A study's table: means, intervals, differences."
        )
        drawn = document(config)
        if config.format == "terminal":
            if config.out is not None:
                raise InputError("out is for format=markdown, csv or latex; the terminal needs no file")
            Console().print(rendering.render(drawn))
        elif config.out is None:
            print(rendering.to_text(drawn, config.format), end="")
        else:
            try:
                records.write(Path(config.out), rendering.to_text(drawn, config.format).encode())
            except OSError as error:
                raise InputError(f"out={config.out} cannot be written: {error.strerror}") from None
            print(config.out)


def document(config: tables.TableConfig) -> Document:
    """The table that is asked for, of whatever source; InputError where it cannot be built."""
    if config.source == "published":
        return published_table.document()
    return tables.document(tables.build(config, records.load(config.study, config.results)))


if __name__ == "__main__":
    main()

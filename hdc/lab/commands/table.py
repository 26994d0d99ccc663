"""Prints a table of a study, of published networks or of the claims: `hdc table --help`."""

import sys
from pathlib import Path

from rich.console import Console

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab import store as files
from hdc.lab.commands import compose
from hdc.lab.commands.declared import declared
from hdc.lab.report import claims, tables
from hdc.lab.report.claims import ledger
from hdc.lab.report.tables import TableConfig, offsets_table, published_table, rendering
from hdc.lab.report.tables.rendering import Document


def document(config: TableConfig) -> Document:
    """The table that `config` asks for.

    Raises:
        InputError: for records that are missing, damaged or mixed.
    """
    match config.source:
        case "published":
            return published_table.document()
        case "claims":
            # The default folder may not exist yet: the table then says what to run.
            if config.results != TableConfig.results and not Path(config.results).is_dir():
                raise InputError(f"results={config.results} is not a folder")
            return ledger.document(ledger.judge(claims.claims(), config.results))
        case "offsets":
            return offsets_table.document(config.study, records.load(config.study, config.results))
        case _:
            return tables.document(tables.build(config, records.load(config.study, config.results)))


def main() -> None:
    """The command. Exit code 0, or 2 for bad input."""
    with compose.one_line_errors("hdc table"):
        config = declared(
            TableConfig,
            "table",
            sys.argv[1:],
            "Means, intervals and differences of a study, or the verdicts on the claims.",
        )
        built = document(config)
        if config.format == "terminal":
            if config.out is not None:
                raise InputError("out needs format=markdown, csv or latex: format=terminal writes no file")
            Console().print(rendering.render(built))
        elif config.out is None:
            print(rendering.to_text(built, config.format), end="")
        else:
            try:
                files.write(Path(config.out), rendering.to_text(built, config.format).encode())
            except OSError as error:
                raise InputError(f"out={config.out} cannot be written: {error.strerror}") from None
            print(config.out)


if __name__ == "__main__":
    main()

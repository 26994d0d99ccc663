"""Build a table of a study, of published schedules or of the claims: `hdc table --help`."""

from pathlib import Path

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab import store as files
from hdc.lab.commands import options
from hdc.lab.commands.command import writing
from hdc.lab.commands.output import console
from hdc.lab.report import claims, tables
from hdc.lab.report.claims import ledger
from hdc.lab.report.tables import TableConfig, offsets_table, published_table, rendering
from hdc.lab.report.tables.rendering import Document


def document(config: TableConfig) -> Document:
    """The table that a configuration asks for.

    Raises:
        InputError: for missing, damaged or mixed records.
    """
    match config.source:
        case "published":
            return published_table.document()
        case "claims":
            # If the default folder does not exist yet, the table says what to run.
            if config.results != TableConfig.results and not Path(config.results).is_dir():
                raise InputError(f"results={config.results} is not a folder")
            return ledger.document(ledger.judge(claims.claims(), config.results))
        case "offsets":
            return offsets_table.document(config.study, records.load(config.study, config.results))
        case _:
            return tables.document(tables.build(config, records.load(config.study, config.results)))


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    about = "Means, intervals and differences of a study; the published networks; the verdicts on the claims."
    config = options.read(TableConfig, "table", arguments, about)
    built = document(config).chosen(config.columns, config.rows)
    if config.format == "terminal":
        if config.out is not None:
            raise InputError("out needs format=markdown, csv or latex: format=terminal writes no file")
        console().print(rendering.render(built))
    elif config.out is None:
        print(rendering.to_text(built, config.format), end="")
    else:
        with writing(f"out={config.out}"):
            files.write_out(Path(config.out), rendering.to_text(built, config.format).encode())
        print(config.out)
    return 0

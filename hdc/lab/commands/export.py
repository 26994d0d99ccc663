"""Send the records of a study to a tracker, or write them as one table: `hdc export --help`."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from hdc import registry
from hdc.errors import InputError
from hdc.lab import records, store, tracking
from hdc.lab.commands.command import Parser, refuse_ending, writing
from hdc.lab.commands.options import folder_name
from hdc.lab.records import names
from hdc.lab.records.run import Run
from hdc.lab.store import line

TABLES = {"csv": pl.DataFrame.write_csv, "parquet": pl.DataFrame.write_parquet}


def parser() -> Parser:
    """The command line's."""
    parser = Parser(
        prog="hdc export",
        description="Send every measurement of a study to a tracker, as track=NAME does while it is trained, "
        "or write them into one table. What a tracker has already is not sent twice.",
    )
    parser.add_argument("study", metavar="STUDY", help="'hdc runs' lists them")
    parser.add_argument("--to", required=True, choices=(*registry.names("tracker"), *TABLES))
    parser.add_argument(
        "--results", default="results", metavar="DIR",
        help="the results folder, results by default; experiments/findings of a clone has packed studies",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="PATH",
        help="the file of csv and parquet, STUDY.csv by default; for trackers that write files the folder "
        "in which they do, DIR/STUDY by default",
    )  # fmt: skip
    return parser


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    args = parser().parse_args(arguments)
    study = folder_name(args.study)
    if args.to not in TABLES:
        tracking.require(args.to)
    runs = records.load(study, args.results)
    if args.to in TABLES:
        out, buffer = args.out or Path(f"{study}.{args.to}"), io.BytesIO()
        refuse_ending(out, f".{args.to}")
        TABLES[args.to](table(runs), buffer)
        with writing(f"--out {out}"):
            store.write_out(out, buffer.getvalue())
        print(f"{out}: a row for each measurement of {len(runs)} runs")
        return 0
    ended = [run for run in runs if run.state not in ("planned", "running")]
    for run in ended:
        folder = args.out or records.study_folder(args.results, study)
        sender = tracking.Sender(args.to, tracking.tracks(run, study, folder))
        try:
            sender.send(run, run.metrics(), run.state)
        except InputError:
            raise
        except Exception as error:  # each service raises its own
            raise InputError(f"--to {args.to}: {line(error)}") from None
    seeds = sum(len(run.config.seeds) for run in ended)
    print(f"{study}: {seeds} seeds of {len(ended)} runs sent to {args.to}")
    if len(ended) < len(runs):
        print(f"{len(runs) - len(ended)} runs left out: planned or running", file=sys.stderr)
    return 0


def table(runs: Sequence[Run]) -> pl.DataFrame:
    """The measurements of runs, a row each, with the keys that distinguish the runs as further columns."""
    settings, keys = names.settings(runs), names.varying(runs)
    about = [
        {"run_id": run.run_id, **{key: values[key] for key in keys}}
        for run, values in zip(runs, settings, strict=True)
    ]
    return records.frame(runs).join(pl.DataFrame(about), on="run_id", how="left", maintain_order="left")

"""Show how far the runs of a study have come: `hdc runs --help`."""

import sys
from datetime import UTC, datetime
from pathlib import Path

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.commands.command import Parser
from hdc.lab.commands.options import folder_name
from hdc.lab.commands.output import console, print_json
from hdc.lab.records import status


def parser() -> Parser:
    """The command line's."""
    parser = Parser(
        prog="hdc runs",
        description="The runs of a study: planned, running, interrupted, failed or done, how far each has "
        "come, and the error of those that failed. Exit code 0: all done, 1: some are not, 2: bad input.",
    )
    parser.add_argument(
        "study", nargs="?", metavar="STUDY", help="without it, the runs of all studies are counted"
    )
    parser.add_argument(
        "--results", default="results", metavar="DIR", help="the results folder, results by default"
    )
    parser.add_argument(
        "--failed", action="store_true", help="show only failed runs, each with its error and traceback file"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--analyse", action="store_true",
        help="first add what each network sees to the finished runs whose records lack it; no training",
    )  # fmt: skip
    return parser


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0 where all runs are done, else 1."""
    args = parser().parse_args(arguments)
    if args.results == "results" and not Path(args.results).exists():
        raise InputError(
            "nothing has been trained here yet: there is no folder results (another: --results DIR)"
        )
    if not Path(args.results).is_dir():
        raise InputError(f"--results {args.results} is not a folder")
    if args.study is None:
        if args.failed:
            raise InputError("--failed needs STUDY ('hdc runs' lists them)")
        if args.analyse:
            raise InputError("--analyse needs STUDY ('hdc runs' lists them)")
        return _studies(args.results, args.json)
    args.study = folder_name(args.study)
    if args.analyse:
        from hdc.lab import seen

        print(f"{seen.add(args.study, args.results)} runs analysed", file=sys.stderr)
    found = status.standings(args.study, args.results)
    counted = status.counts(one.state for one in found)
    shown = [one for one in found if one.state == "failed"] if args.failed else found
    if args.json:
        print_json({"study": args.study, "counts": counted, "runs": [one.to_dict() for one in shown]})
    else:
        report = status.failures(shown) if args.failed else status.report(shown, datetime.now(UTC))
        console().print(report)
        print(status.summary(counted))
    return 0 if set(counted) == {"done"} else 1


def _studies(results: str, as_json: bool) -> int:
    counted: dict[str, dict[str, int] | str] = {}
    for study in records.studies(results):
        try:
            counted[study] = status.counts(run.state for run in records.load(study, results))
        except InputError as error:
            counted[study] = str(error)
        except OSError as error:  # of another user
            counted[study] = f"{error.filename}: {error.strerror}"
    if not counted:
        raise InputError(f"there is no study in {results}: nothing has been run there yet")
    if as_json:
        print_json(
            [
                {"study": study, "counts" if isinstance(one, dict) else "error": one}
                for study, one in counted.items()
            ]
        )
    else:
        console().print(status.overview(counted))
    return 0 if all(isinstance(one, dict) and set(one) == {"done"} for one in counted.values()) else 1

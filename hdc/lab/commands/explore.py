"""One HTML file in which schedules, or the records of a study, are explored: `hdc explore --help`."""

import json
import re
import webbrowser
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hdc import published, ripple
from hdc.errors import InputError
from hdc.fields import Branches, Field, Stack, parse
from hdc.lab import store
from hdc.lab.commands.check import UNTRIED
from hdc.lab.commands.command import Parser, refuse_ending, writing
from hdc.schedules import MAX_FIELD, MAX_LAYERS, MAX_RATE, PER_AXIS

DEFAULT = ("2,2,2", "1,2,3")  # the same field, layers and parameters
MAX_BRANCHED = 640  # px per side: a map of parallel branches is computed pixel by pixel
LIMITS = {
    "max_branched": MAX_BRANCHED,
    "max_taps": 31,
    "max_ripple_rate": 512,
    "integers": 4_000_000,  # additions of exact integers beyond 2^53
    "orders": 40_320,  # 8 different rates
    "order_work": 20_000_000,
    "visits": 300_000,
    "sets": 3_000,
    "search_work": 5_000_000,
}


def parser() -> Parser:
    """The command line's."""
    parser = Parser(
        prog="hdc explore",
        description="Write one HTML file, without server or network, in which dilation schedules are "
        "explored, two side by side: rates as sliders, holes, certificate, ripple, orders, better schedules. "
        "With the folder of a study: its tables to sort and filter, any two columns as a scatter plot, and "
        "pictures of its runs.",
    )
    parser.add_argument(
        "schedules", nargs="*", metavar="SCHEDULE",
        help="rates such as 1,2,5, with parallel branches such as 1,[0,6,12,18], or a name that 'hdc check "
        "--named' lists; the first two are shown, the others are offered in a list; or the folder of one "
        "study, such as results/quickstart",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("explore.html"), metavar="FILE",
        help="the file, explore.html by default",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    return parser


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    args = parser().parse_args(arguments)
    refuse_ending(args.out, ".html", ".htm")
    if not args.out.absolute().parent.is_dir():
        raise InputError(f"--out {args.out}: there is no folder {args.out.parent}")
    known = published.networks()
    folders = [
        one for one in args.schedules if one and one not in known and ("/" in one or Path(one).is_dir())
    ]
    if not folders:
        text = page([known[one].field if one in known else _parsed(one) for one in args.schedules])
    elif len(args.schedules) > 1:
        raise InputError(f"{folders[0]}: a page shows one study and nothing else, or schedules")
    else:
        from hdc.lab.commands import explore_study

        text = explore_study.page(Path(folders[0]), args.out)
    with writing(f"--out {args.out}"):
        store.write_out(args.out, text.encode())
    print(f"{args.out} is written: open it in a browser")
    if args.open and not webbrowser.open(args.out.absolute().as_uri()):
        print("--open: this machine has no browser")
    return 0


def page(given: Sequence[Field] = ()) -> str:
    """The HTML, in which `given` come first."""
    data = json.dumps(_data(given), ensure_ascii=False).replace("<", "\\u003c")
    return filled("page.html", {"data.json": data})


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template of `explorer/`, where `{{NAME}}` is that part, or the file of that name beside it."""
    files = resources.files("hdc.lab.commands").joinpath("explorer")

    def part(match: re.Match[str]) -> str:
        name = match[1]
        return (parts[name] if name in parts else files.joinpath(name).read_text("utf-8")).strip()

    return re.sub(r"\{\{([\w.]+)\}\}", part, files.joinpath(template).read_text("utf-8"))


def _data(given: Sequence[Field]) -> dict[str, Any]:
    networks = [
        {"name": one.name, "about": f"{one.title} ({one.paper.rpartition(',')[0]})", **_entry(one.field)}
        for one in published.networks().values()
    ]
    start = [_entry(one) for one in given]
    start += [_entry(parse(text)) for text in DEFAULT[len(start) :]]
    # A constant of the prediction has its value from the module that predicts.
    constants = LIMITS | {
        "max_layers": MAX_LAYERS,
        "max_rate": MAX_RATE,
        "max_field": MAX_FIELD,
        "spread": ripple.SPREAD_DB,
        "numbers": ripple.WIDTH * ripple.CHANNELS,
        "images": ripple._IMAGES,
        "shortest": ripple._SHORTEST,
        "map": ripple._MAP,
        "stem": ripple.STEM.kernel_size,
        "untried": UNTRIED,
    }
    return {"constants": constants, "networks": networks, "given": start}


def _entry(field: Field) -> dict[str, Any]:
    layers = [rates if isinstance(rates, list) else [rates] for rates in field.rates]
    texts = [",".join(map(str, rates)) for rates in layers]
    text = ",".join(f"[{one}]" if "," in one else one for one in texts)
    if len(layers) == 1 < len(layers[0]):
        text = f"[{text}]"
    padding = "causal" if field.causal else "same"
    return {"text": text, "taps": field.kernel_size, "axes": field.dimensions, "padding": padding}


def _parsed(text: str) -> Field:
    """A schedule that the page can show."""
    try:
        field = parse(text)
    except InputError as error:  # what the page does not take is not offered
        raise InputError(str(error).replace(PER_AXIS, ", or results/STUDY for a study's runs")) from None
    if isinstance(field, Stack) and not field.same_axes:
        raise InputError(
            f"rates {text[:40]!r}: the page has the same rates on both axes; 'hdc check' takes these"
        )
    if isinstance(field, Branches):
        side = 1 + (field.kernel_size - 1) * sum(map(max, field.branches))
        if side > MAX_BRANCHED:
            raise InputError(
                f"rates {text[:40]!r}: the field of the branches is {side} px wide, the page shows "
                f"{MAX_BRANCHED}; 'hdc check' takes these"
            )
    return field

"""One HTML file in which schedules are explored: `hdc explore --help`."""

import json
import webbrowser
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hdc import published, ripple
from hdc.errors import InputError
from hdc.fields import Branches, Field, Stack, parse
from hdc.lab import store
from hdc.lab.commands.check import UNTRIED
from hdc.lab.commands.command import Parser, writing
from hdc.schedules import MAX_FIELD, MAX_LAYERS, MAX_RATE

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
        "explored, two side by side: rates as sliders, holes, certificate, ripple, orders, better schedules.",
    )
    parser.add_argument(
        "schedules", nargs="*", metavar="SCHEDULE",
        help="rates such as 1,2,5, with parallel branches such as 1,[0,6,12,18], or a name that 'hdc check "
        "--named' lists; the first two are shown, the others are offered in a list",
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
    known = published.networks()
    given = [known[text].field if text in known else _parsed(text) for text in args.schedules]
    if not args.out.absolute().parent.is_dir():
        raise InputError(f"--out {args.out}: there is no folder {args.out.parent}")
    with writing(f"--out {args.out}"):
        store.write_out(args.out, page(given).encode())
    print(f"{args.out} is written: open it in a browser")
    if args.open and not webbrowser.open(args.out.absolute().as_uri()):
        print("--open: this machine has no browser")
    return 0


def page(given: Sequence[Field] = ()) -> str:
    """The HTML, in which `given` come first."""
    files = resources.files("hdc.lab.commands").joinpath("explorer")
    parts = {
        name: files.joinpath(name).read_text("utf-8") for name in ("page.css", "arithmetic.js", "page.js")
    }
    parts["data.json"] = json.dumps(_data(given), ensure_ascii=False).replace("<", "\\u003c")
    text = files.joinpath("page.html").read_text("utf-8")
    for name, part in parts.items():
        text = text.replace(f"{{{{{name}}}}}", part.strip())
    return text


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
    field = parse(text)
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

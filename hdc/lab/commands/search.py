"""Find schedules: `hdc search --help`."""

from dataclasses import asdict

from hdc.errors import InputError
from hdc.fields import parse_stem
from hdc.lab.commands.check import UNTRIED
from hdc.lab.commands.command import Parser
from hdc.lab.commands.output import console, print_json
from hdc.lab.terminal import Rows
from hdc.ripple import SPREAD_DB
from hdc.search import Result, Target, best, best_per_field


def parser() -> Parser:
    """The command line's."""
    parser = Parser(
        prog="hdc search",
        description="Every gap-free set of rates that meets the target, each in the order of the layers with "
        "the least predicted ripple, ranked by that ripple, then by effective width. The search is "
        "exhaustive. Without --field: the best of every field.",
    )
    parser.add_argument("--layers", type=int, required=True, metavar="n", help="number of layers")
    parser.add_argument("--field", type=int, metavar="R", help="receptive field in pixels")
    parser.add_argument("--at-least", action="store_true", help="accept larger fields, too")
    parser.add_argument("--kernel-size", type=int, default=3, metavar="K", help="taps per axis, 3 by default")
    parser.add_argument("--max-rate", type=int, metavar="r", help="the largest rate allowed")
    parser.add_argument("--top", type=int, metavar="t", help="how many to print, 10 by default")
    parser.add_argument(
        "--stem", metavar="K/S,...",
        help="layers before the rates that count in the field, taps and stride of each: 3, or 7/2,3/2 for a "
        "ResNet's",
    )  # fmt: skip
    parser.add_argument(
        "--no-stem", action="store_true", help="predict the ripple without the 3x3 stem of net=context"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--sweep", action="store_true", help="print the command that trains the schedules")
    return parser


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    args = parser().parse_args(arguments)
    if args.stem is not None and args.no_stem:
        raise InputError("--stem and --no-stem exclude one another: give one of them")
    stem = () if args.stem is None else tuple(parse_stem(args.stem))
    target = Target(args.layers, args.kernel_size, args.field, args.at_least, args.max_rate, stem)
    if args.field is None:
        if args.top is not None:
            raise InputError("--top needs --field: without it, the best of every field is printed")
        result = best_per_field(target, not args.no_stem)
    else:
        result = best(target, 10 if args.top is None else args.top, not args.no_stem)
    if args.json and args.sweep:
        raise InputError("--json and --sweep are two forms of the answer: give one of them")
    if args.json:
        print_json(asdict(result))
    elif args.sweep:
        if stem not in ((), ((3, 1),)):
            raise InputError(f"--sweep trains net=context, whose stem is 3x3: leave out --stem {args.stem}")
        if args.kernel_size % 2 == 0:
            raise InputError(f"--sweep: the networks take odd kernel sizes, got {args.kernel_size}")
        rates = ",".join(f"[{','.join(map(str, found.rates))}]" for found in result.found)
        taps = "" if args.kernel_size == 3 else f" net.kernel_size={args.kernel_size}"
        print(f"hdc train -m 'schedule.rates={rates}' schedule.repeat=1{taps}")
    else:
        _print(result)
    return 0


def _print(result: Result) -> None:
    target = result.target
    rows = [
        (
            ",".join(map(str, found.rates)),
            str(found.receptive_field),
            f"{_decibels(found.ripple)}{'' if found.tried else '?'}",
            _decibels(found.ascending_ripple),
            f"{found.gridding:.3f}",
            f"{found.effective_width:.2f}",
        )
        for found in result.found
    ]
    console().print(Rows(("rates", "field", "ripple", "ascending", "G", "width"), rows))
    what = "the best of every field" if target.field is None else "the best"
    layers = "1 layer" if target.layers == 1 else f"{target.layers} layers"
    considered = "the only one" if result.examined == 1 else f"all {result.examined:,}"
    print(
        f"By predicted ripple, {what} of the gap-free sets of rates with {layers}, kernel size "
        f"{target.kernel_size} and rates up to {result.max_rate}: {considered} considered, each in its best "
        f"order. {_before(result)}: in this order, and with the rates "
        f"ascending. Those that differ by less than {SPREAD_DB:g} dB are ties, the widest first."
        f"{'' if all(found.tried for found in result.found) else f' ?: {UNTRIED}.'}"
    )


def _before(result: Result) -> str:
    """What the fields and ripples are said to include."""
    stem = result.target.stem
    if not stem:
        return f"Ripples in dB{'' if result.stem else ', without a stem'}"
    one = len(stem) == result.target.spacing == 1
    return (
        f"The stem's {result.target.pixels(0)} px count in the field. Ripples in dB, "
        f"{'after the stem' if one else 'of the rates alone'}"
    )


def _decibels(ripple: float) -> str:
    return f"{round(ripple, 1) + 0:.1f}"  # not -0.0

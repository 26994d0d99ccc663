"""Schedules in full, as a table or as JSON, each with advice: `hdc check --help`."""

import io
import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from hdc import advice, published
from hdc.errors import InputError
from hdc.fields import Field, Stack, Stemmed, parse, parse_stem
from hdc.lab.commands import model
from hdc.lab.commands.command import Parser, writing
from hdc.lab.commands.output import console, print_json
from hdc.lab.terminal import Rows
from hdc.published import Published
from hdc.ripple import TRIED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BARS = "▁▂▃▄▅▆▇█"
_HOLE = "×"
UNTRIED = f"an extrapolation, tried on {TRIED}"


def to_json(field: Field, size: int | None, stem: bool = True) -> dict[str, Any]:
    """The numbers of a schedule; with the side of a map in pixels also each layer's padding, and advice."""
    values = field.to_dict(stem)
    if size is not None:
        values["size"] = size
        values["padding_share"] = field.padding(size)
        values["findings"] = [asdict(finding) for finding in advice.for_schedule(field, size, stem)]
    return values


def report(field: Field, size: int | None, stem: bool = True) -> RenderableType:
    """One schedule in full.

    Args:
        field: what the schedule sees.
        size: side of the map in pixels, if it is known.
        stem: whether a 3x3 convolution comes first, for the predicted ripple.
    """
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(field, size, stem):
        table.add_row(name, text)
    layers = "1 layer" if field.layers == 1 else f"{field.layers} layers"
    parts = [Text(f"{field.name}, {layers} of kernel size {field.kernel_size}\n"), table]
    pictures = [_Picture(field, axis) for axis in range(1 if field.same_axes else 2)]
    found = advice.for_schedule(field, size, stem)
    return Group(*parts, *pictures, *([Text("")] if found else []), *(Text(f"- {one}") for one in found))


def comparison(fields: Sequence[Field], size: int | None, stem: bool = True) -> RenderableType:
    """Several schedules, one row each."""
    head = ["schedule", "K", "n", "field", "seen %", "hole", "ripple", "G", "sigma", "overlap", "rule"]
    rows = [_row(one, size, stem) for one in fields]
    note = f"ripple: predicted, in dB{'' if stem else ', without a stem'}"
    if any(cell.endswith("?") for row in rows for cell in row):
        note += f"; ?: {UNTRIED}"
    return Group(Rows([*head, *(["padding %"] if size is not None else [])], rows), Text(note))


def _row(one: Field, size: int | None, stem: bool) -> list[str]:
    ripple = one.predicted_ripple(stem)
    cells = [
        one.name,
        str(one.kernel_size),
        str(one.layers),
        _each(one.receptive_field, "{}"),
        f"{100 * one.seen:.1f}",
        "none" if one.first_hole is None else _each(one.first_hole, "{}", ","),
        "–" if ripple is None else f"{ripple.db:.1f}{'' if ripple.tried else '?'}",
        f"{one.gridding.index:.3f}",
        _each(one.effective_width, "{:.2f}"),
        _each(one.neighbour_overlap, "{:.3f}"),
        {True: "right", False: "wrong", None: "–"}[one.rule.agrees],
    ]
    return cells if size is None else [*cells, f"{100 * np.mean(one.padding(size)):.1f}"]


def named(networks: Sequence[Published]) -> RenderableType:
    """The published networks that can be checked by name, one row each."""
    body = [
        (one.name, f"{one.title} ({one.paper.rpartition(',')[0]})", one.field.rates_text) for one in networks
    ]
    return Rows(("name", "network", "rates"), body, words=("network", "rates"))


def _lines(one: Field, size: int | None, stem: bool) -> Iterator[tuple[str, str]]:
    yield "rates", one.rates_text
    if isinstance(one, Stemmed):
        strides = "" if one.spacing == 1 else f"; the rates are on its map of output stride {one.spacing}"
        yield "stem", f"{one.stem_field} px of the field{strides}"
    if one.gap_free:
        yield "certificate", "gap-free: every pixel of the field is seen"
    else:
        yield "certificate", f"holes: {advice.share(1 - one.seen)} of the field is never seen"
        yield "first hole", _hole(one)
    yield (
        "receptive field",
        _each(one.receptive_field, "{}", " x ")
        + " px"
        + (" per axis" if one.dimensions == 2 and one.same_axes else ""),
    )
    two = "" if one.coverage_2d is None else f", {advice.share(one.coverage_2d)} in 2-D"
    yield "coverage", " x ".join(map(advice.share, one.coverage)) + two
    yield "predicted ripple", _ripple(one, stem)
    yield from _lattice(one)
    peak = ""
    if one.gridding.frequency is not None:
        frequency = Fraction(one.gridding.frequency).limit_denominator(8192)
        period = f"{1 / one.gridding.frequency:.4g}"
        peak = f" at {frequency} cycles per pixel, a period of {period} px"
    yield "gridding G", f"{one.gridding.index:.3f}{peak}: the ripple of equal weights; 0 is best, 1 worst"
    yield (
        "effective width",
        _each(one.effective_width, "{:.2f}", " x ") + " px (standard deviation of the paths)",
    )
    yield "neighbour overlap", _each(one.neighbour_overlap, "{:.3f}", ", ") + " of what adjacent outputs see"
    yield "common factor", _each(one.common_factor, "{}", ", ")
    yield "HDC rule", _rule(one)
    if size is not None:
        shares = one.padding(size)
        layers = ", ".join(map(advice.share, shares))
        where = "the padding, all of it before the map" if one.causal else "the padding"
        mean = advice.share(float(np.mean(shares)))
        yield f"on {size} px maps", f"{mean} of the taps fall into {where}: {layers}"
        left = [size - field + 1 for field in one.receptive_field]
        text = f"{_each(left, '{}', ' x ')} px would be left" if min(left) > 0 else "nothing would be left"
        yield "with VALID padding", text


def _ripple(one: Field, stem: bool) -> str:
    ripple = one.predicted_ripple(stem)
    if ripple is None:
        strided = any(layer.stride > 1 for layer in one.stem)
        why = "after a stem with strides" if strided else "for parallel branches and rates above 1024"
        return f"not predicted {why}"
    standard = "after a 3x3 stem" if one.dimensions == 2 else "after a stem of 3"
    after = "after the stem" if one.stem else standard if stem else "without a stem"
    tried = "" if ripple.tried else f"; {UNTRIED}"
    return f"{ripple.db:.1f} dB when trained, {after}, at a period of {1 / ripple.frequency:.4g} px{tried}"


def _lattice(one: Field) -> Iterator[tuple[str, str]]:
    found = one.lattice_share
    if found is not None and found[1] is not None:
        text = f"{advice.share(found[0])} of the layers have rates that are multiples of {found[1]}"
        yield "lattice", f"{text}: the more, the stronger the pattern in feature maps"


def _hole(one: Field) -> str:
    hole = one.first_hole
    assert hole is not None
    if len(hole) == 2:
        return f"row {hole[0]}, column {hole[1]}, counted from the field's corner"
    if not isinstance(one, Stack):
        return f"offset {hole[0]}, counted from the field's edge"
    larger = min(rate for _, rate in one.chains[0][0] if rate > hole[0])
    why = f"the smaller rates fill {hole[0]} px, rate {larger} steps over more"
    return f"offset {hole[0]}, counted from the field's edge: {why}"


def _rule(one: Field) -> str:
    rule = one.rule
    if rule.accepts is None:
        return "says nothing of parallel branches"
    parts = [] if rule.m2 is None else [f"M_2 = {rule.m2}, K = {one.kernel_size}"]
    if max(one.common_factor) > 1:
        parts.append("a common factor")
    verdict = "accepts" if rule.accepts else "rejects"
    truth = "there are no holes" if one.gap_free else "there are holes"
    return ", ".join([*parts, verdict]) + f": {'right' if rule.agrees else 'wrong'}, {truth}"


@dataclass(frozen=True)
class _Picture:
    """The path counts along one axis as bars, with the holes marked below them.

    If the bars do not fit the terminal, each stands for several offsets.
    """

    field: Field
    axis: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        counts = self.field.along(self.axis)
        per_bar = math.ceil(len(counts) / max(options.max_width - 2, 8))
        padded = np.pad(counts, (0, -len(counts) % per_bar), constant_values=np.nan).reshape(-1, per_bar)
        height = np.sqrt(np.nanmax(padded, axis=1) / counts.max())
        bars = "".join(_BARS[min(7, int(8 * h))] if h > 0 else " " for h in height)
        along = "" if self.field.same_axes else (" along the height", " along the width")[self.axis]
        scale = "" if per_bar == 1 else f", {per_bar} offsets to a bar"
        yield Text(f"\npaths to each offset{along} (square root{scale})\n{bars}")
        holes = (padded == 0).any(axis=1)
        if holes.any():
            yield Text("".join(_HOLE if hole else " " for hole in holes) + "  holes", style="red")


def _each(values: Sequence[Any], pattern: str, by: str = "x") -> str:
    return by.join(pattern.format(value) for value in values)


def parser() -> Parser:
    """The command line's."""
    parser = Parser(
        prog="hdc check",
        description="The certificate of dilation schedules, or what a model of your own sees: holes, "
        "receptive field, gridding. Exit code 0: all gap-free, 1: holes, 2: bad input.",
    )
    parser.add_argument(
        "schedules", nargs="*", metavar="RATES",
        help="rates such as 1,2,5, per axis (height x width) such as 1x2,2x2, with parallel branches such as "
        "1,[0,6,12,18] (0 is a 1x1 convolution or a shortcut), or a name of --named; several make a table. "
        "Or one model with --shape, FILE.py:NAME or package.module:NAME: a function, any model that "
        "hdc.analyse takes, or a class or function that makes one without arguments",
    )  # fmt: skip
    parser.add_argument(
        "--shape", metavar="AxBxC", help="of the model's input, as the model takes it, such as 1x64x64x3"
    )
    parser.add_argument(
        "--output", metavar="NAME", help="which output of the model: an index, key or path, or a layer's name"
    )
    parser.add_argument("--spatial", metavar="A,B", help="the spatial axes of the model's input, such as 2,3")
    parser.add_argument("--kernel-size", type=int, metavar="K", help="taps per axis, 3 by default")
    parser.add_argument("--axes", type=int, choices=(1, 2), help="2 for images (default), 1 for signals")
    parser.add_argument(
        "--size", type=int, metavar="N", help="side of the map in pixels: adds its padding and advice"
    )
    parser.add_argument(
        "--stem", metavar="K/S,...",
        help="layers before the rates that count in the field, taps and stride of each: 3, or "
        "7/2,3/2 for a ResNet's",
    )  # fmt: skip
    parser.add_argument(
        "--no-stem", action="store_true", help="predict the ripple without the 3x3 stem of net=context"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: an object, or a list for several")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the fields as png, svg or pdf")
    parser.add_argument("--named", action="store_true", help="list the published networks")
    return parser


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0 where all schedules are gap-free, else 1."""
    args = parser().parse_args(arguments)
    known = published.networks()
    if args.named or not args.schedules:
        if not args.named:
            raise InputError("give RATES such as 1,2,5, or --named ('hdc check --help' shows the usage)")
        options = {"--kernel-size": args.kernel_size, "--axes": args.axes, "--size": args.size}
        options |= {"--stem": args.stem, "--figure": args.figure, "RATES": args.schedules or None}
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise InputError(f"--named lists all networks and goes with --json alone, got {', '.join(given)}")
        if args.json:
            print_json({name: network.field.to_dict() for name, network in known.items()})
        else:
            console().print(named(list(known.values())))
        return 0
    own = {"--shape": args.shape, "--output": args.output, "--spatial": args.spatial}
    references = [text for text in args.schedules if model.is_reference(text)]
    if not references and (given := [name for name, value in own.items() if value is not None]):
        raise InputError(f"{', '.join(given)} is for a model of your own, FILE.py:NAME")
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
    if references:
        return _model(args)
    taps = 3 if args.kernel_size is None else args.kernel_size
    if args.stem is not None and args.no_stem:
        raise InputError("--stem and --no-stem exclude one another: give one of them")
    found = [
        known[text].field if text in known else parse(text, taps, args.axes or 2) for text in args.schedules
    ]
    if args.stem is not None:
        found = [Stemmed.of(one, parse_stem(args.stem)) for one in found]
    if args.figure is not None:
        _draw(found, args.figure)
    if args.json:
        values = [to_json(one, args.size, not args.no_stem) for one in found]
        print_json(values[0] if len(values) == 1 else values)
    elif len(found) == 1:
        console().print(report(found[0], args.size, not args.no_stem))
    else:
        console().print(comparison(found, args.size, not args.no_stem))
    return 0 if all(one.gap_free for one in found) else 1


def _model(args: Namespace) -> int:
    options = {"--kernel-size": args.kernel_size, "--axes": args.axes, "--size": args.size}
    options |= {"--stem": args.stem, "--no-stem": args.no_stem or None}
    if given := [name for name, value in options.items() if value is not None]:
        raise InputError(f"{', '.join(given)} is for RATES, not for a model of your own")
    (reference, *others) = args.schedules
    if others:
        raise InputError(f"a model of your own is checked alone, got {' '.join(args.schedules)}")
    if args.shape is None:
        raise InputError(f"{reference} needs the shape of its input, such as --shape 1x64x64x3")
    shape, spatial = model.parse_shape(args.shape), None
    if args.spatial is not None:
        try:
            spatial = [int(axis) for axis in args.spatial.split(",")]
        except ValueError:
            raise InputError(f"--spatial must be axes such as 2,3, got {args.spatial!r}") from None
    found = model.load(reference)
    from hdc.receptive import analyse

    seen = analyse(found, shape, output=args.output, spatial=spatial)
    if args.figure is not None:
        _save(seen.figure(), args.figure)
    if args.json:
        print_json(seen.to_dict())
    else:
        console().print(seen)
    return 0 if seen.gap_free and all(phase.coverage == 1 for phase in seen.phases) else 1


def _draw(found: Sequence[Field], path: Path) -> None:
    from hdc import plots

    titles = [f"{one.name}: {one.seen:.0%} seen, G {one.gridding.index:.2f}" for one in found]
    _save(plots.figure([(title, one.paths) for title, one in zip(titles, found, strict=True)]), path)


def _save(drawn: "Figure", path: Path) -> None:
    from hdc.lab import store

    buffer = io.BytesIO()
    drawn.savefig(buffer, format=path.suffix[1:])
    with writing(f"--figure {path}"):
        store.write_out(path, buffer.getvalue())

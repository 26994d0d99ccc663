"""Certificates of schedules as text, as a table, as JSON, with what to change: `hdc check --help`."""

import io
import itertools
import math
import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hdc import advice as lint
from hdc import certificate, published
from hdc.advice import AxisOfLayer, Finding
from hdc.certificate import Certificate, rates_text
from hdc.errors import InputError
from hdc.lab.commands.main import Parser
from hdc.lab.commands.terminal import console, print_json
from hdc.published import Published

_BARS = "▁▂▃▄▅▆▇█"
_HOLE = "×"


def findings(certificate: Certificate, size: int | None) -> tuple[Finding, ...]:
    """What should be changed, with the change.

    Args:
        size: side of the map in pixels, where it is known.
    """
    k, padded, causal = certificate.kernel_size, True if size else None, certificate.causal

    def layer(name: str, rate: int) -> AxisOfLayer:
        return AxisOfLayer(name, k, rate, map=size, padded=padded, causal=causal)

    if certificate.branches:
        numbered = list(enumerate(certificate.branches, 1))
        branches = [(f"layer {n} at rate {rate}", rate) for n, rates in numbered for rate in rates if rate]
        stacks = [[[layer(*branch)] for branch in branches]]
    else:
        # Equal axes have the same findings, and some take their time.
        axes = dict.fromkeys(certificate.axes)
        stacks = [[[layer(f"layer {n}", r) for n, r in enumerate(a.layer_rates, 1)]] for a in axes]
    own = [lint.lint(axis, coverage) for axis, coverage in zip(stacks, certificate.coverage, strict=True)]
    times = certificate.dimensions // len(stacks)
    by_layer = zip(*(itertools.chain(*axis) for axis in stacks * times), strict=True)
    return lint.merge(own * times, by_layer, certificate.seen)


def to_json(certificate: Certificate, size: int | None) -> dict[str, Any]:
    """The certificate's numbers; with a size also the padding of each layer and the findings."""
    values = certificate.to_dict()
    if size is not None:
        values["size"] = size
        values["padding_share"] = certificate.padding(size)
        values["findings"] = [
            {"rule": f.rule, "where": f.where, "message": f.message, "fix": f.fix, "problem": f.problem}
            for f in findings(certificate, size)
        ]
    return values


def report(certificate: Certificate, size: int | None, width: int) -> RenderableType:
    """One schedule in full.

    Args:
        size: side of the map in pixels, where it is known.
        width: of the terminal, in characters.
    """
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(certificate, size):
        table.add_row(name, text)
    parts: list[RenderableType] = [
        Text(f"{certificate.name}, {_layers(certificate)} of kernel size {certificate.kernel_size}"),
        Text(""),
        table,
        *_picture(certificate, width),
    ]
    found = findings(certificate, size)
    return Group(*parts, *([Text("")] if found else []), *(Text(f"- {finding}") for finding in found))


def comparison(certificates: Sequence[Certificate], size: int | None, width: int) -> RenderableType:
    """Several schedules: a row each, or where the terminal is too narrow for that, a paragraph each."""
    heads = ["schedule", "K", "n", "field", "seen %", "hole", "G", "sigma", "overlap", "M_2", "rule"]
    heads += ["padding %"] if size is not None else []
    rows = [_compared(one, size) for one in certificates]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head == "schedule" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if Console(width=10_000).measure(table).maximum <= width:
        return table
    numbers = [zip(heads[1:], row[1:], strict=True) for row in rows]
    texts = [", ".join(f"{head} {cell}" for head, cell in pairs) for pairs in numbers]
    return Group(*(Text(f"{row[0]}: {text}") for row, text in zip(rows, texts, strict=True)))


def _compared(one: Certificate, size: int | None) -> list[str]:
    cells = [
        one.name,
        str(one.kernel_size),
        str(one.layers),
        _each(one.receptive_field, "{}"),
        f"{100 * one.seen:.1f}",
        "none" if one.first_hole is None else _each(one.first_hole, "{}", ","),
        f"{one.gridding.index:.3f}",
        _each(one.effective_width, "{:.2f}"),
        _each(one.neighbour_overlap, "{:.3f}"),
        "–" if one.rule.m2 is None else str(one.rule.m2),
        {True: "right", False: "wrong", None: "–"}[one.rule.agrees],
    ]
    return cells if size is None else [*cells, f"{100 * np.mean(one.padding(size)):.1f}"]


def named(networks: Sequence[Published], width: int) -> RenderableType:
    """The published networks that can be checked by name: a row each, or a paragraph each.

    Args:
        width: of the terminal, in characters.
    """
    rows = [
        (one.name, f"{one.title} ({one.paper.rpartition(',')[0]})", rates_text(one.certificate))
        for one in networks
    ]
    longest = max(len(name) for name, _, _ in rows)
    if width < longest + 40:  # too little for two columns of text
        parts = [(Text(name), Padding(f"{what}; rates {rates}", (0, 0, 0, 2))) for name, what, rates in rows]
        return Group(*itertools.chain(*parts))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("name", "what", "rates"):
        table.add_column(head, overflow="fold", no_wrap=head == "name")
    for row in rows:
        table.add_row(*row)
    return table


def _lines(one: Certificate, size: int | None) -> Iterator[tuple[str, str]]:
    yield "rates", rates_text(one)
    if one.gap_free:
        yield "certificate", "gap-free: every pixel of the field is seen"
    else:
        yield "certificate", f"holes: {lint.share(1 - one.seen)} of the field is never seen"
        yield "first hole", _hole(one)
    yield (
        "receptive field",
        _each(one.receptive_field, "{}", " x ")
        + " px"
        + (" per axis" if one.dimensions == 2 and one.same_axes else ""),
    )
    two = "" if one.coverage_2d is None else f", {lint.share(one.coverage_2d)} in 2-D"
    yield "coverage", " x ".join(map(lint.share, one.coverage)) + two
    peak = ""
    if one.gridding.frequency is not None:
        frequency = Fraction(one.gridding.frequency).limit_denominator(8192)
        peak = f" at {frequency} cycles per pixel, a period of {_period(one)} px"
    yield "gridding G", f"{one.gridding.index:.3f}{peak}; 0 is best, 1 worst"
    yield (
        "effective width",
        _each(one.effective_width, "{:.2f}", " x ") + " px (standard deviation of the paths)",
    )
    yield "neighbour overlap", _each(one.neighbour_overlap, "{:.3f}", ", ") + " of what adjacent outputs see"
    yield "common factor", _each(one.common_factor, "{}", ", ")
    yield "HDC rule", _rule(one)
    if size is not None:
        shares = one.padding(size)
        layers = ", ".join(map(lint.share, shares))
        where = "the padding, all of it before the map" if one.causal else "the padding"
        mean = lint.share(float(np.mean(shares)))
        yield f"on {size} px maps", f"{mean} of the taps fall into {where}: {layers}"
        left = [size - field + 1 for field in one.receptive_field]
        text = f"{_each(left, '{}', ' x ')} px would be left" if min(left) > 0 else "nothing would be left"
        yield "with VALID padding", text


def _hole(one: Certificate) -> str:
    hole = one.first_hole
    assert hole is not None
    if len(hole) == 2:
        return f"row {hole[0]}, column {hole[1]}, counted from the field's corner"
    rates = one.axes[0].layer_rates if one.axes else ()
    larger = min((rate for rate in rates if rate > hole[0]), default=None)
    why = f": the smaller rates fill {hole[0]} px, rate {larger} steps over more" if larger else ""
    return f"offset {hole[0]}, counted from the field's edge{why}"


def _rule(one: Certificate) -> str:
    rule = one.rule
    if rule.accepts is None:
        return "says nothing of parallel branches"
    parts = [] if rule.m2 is None else [f"M_2 = {rule.m2}, K = {one.kernel_size}"]
    if max(one.common_factor) > 1:
        parts.append("a common factor")
    verdict = "accepts" if rule.accepts else "rejects"
    truth = "there are no holes" if one.gap_free else "there are holes"
    return ", ".join([*parts, verdict]) + f": {'right' if rule.agrees else 'wrong'}, {truth}"


def _picture(one: Certificate, width: int) -> list[Text]:
    """The counts along each axis as bars, holes marked below; several offsets a bar where they do not fit."""
    drawn = []
    for axis in range(1 if one.same_axes else 2):
        counts = one.along(axis)
        per_bar = math.ceil(len(counts) / max(width - 2, 8))
        padded = np.pad(counts, (0, -len(counts) % per_bar), constant_values=np.nan).reshape(-1, per_bar)
        height = np.sqrt(np.nanmax(padded, axis=1) / counts.max())
        bars = "".join(_BARS[min(7, int(8 * h))] if h > 0 else " " for h in height)
        along = "" if one.same_axes else (" along the height", " along the width")[axis]
        scale = "" if per_bar == 1 else f", {per_bar} to a bar"
        drawn += [Text(""), Text(f"paths to each offset{along}, by their square root{scale}"), Text(bars)]
        holes = (padded == 0).any(axis=1)
        if holes.any():
            drawn.append(Text("".join(_HOLE if hole else " " for hole in holes) + "  holes", style="red"))
    return drawn


def _layers(one: Certificate) -> str:
    return "1 layer" if one.layers == 1 else f"{one.layers} layers"


def _period(one: Certificate) -> str:
    frequency = one.gridding.frequency
    return "–" if frequency is None else f"{1 / frequency:.4g}"


def _each(values: Sequence[Any], pattern: str, by: str = "x") -> str:
    return by.join(pattern.format(value) for value in values)


def parser() -> Parser:
    """The command line's."""
    parser = Parser(
        prog="hdc check",
        description="The certificate of dilation schedules: holes, receptive field, gridding. "
        "Exit code 0: all gap-free, 1: holes, 2: bad input.",
    )
    parser.add_argument(
        "schedules", nargs="*", metavar="RATES",
        help="rates such as 1,2,5, per axis (height x width) such as 1x2,2x2, or a name of --named; "
        "several make a table",
    )  # fmt: skip
    parser.add_argument("--kernel-size", type=int, metavar="K", help="taps per axis, 3 by default")
    parser.add_argument("--axes", type=int, choices=(1, 2), help="2 for images (default), 1 for signals")
    parser.add_argument(
        "--size", type=int, metavar="N", help="side of the map in pixels: adds its padding and advice"
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
        options |= {"--figure": args.figure, "RATES": args.schedules or None}
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise InputError(f"--named lists all networks and goes with --json alone, got {', '.join(given)}")
        if args.json:
            print_json({name: network.certificate.to_dict() for name, network in known.items()})
        else:
            console().print(named(list(known.values()), shutil.get_terminal_size().columns))
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
        known[text].certificate if text in known else certificate.parse(text, taps, args.axes or 2)
        for text in args.schedules
    ]
    if args.figure is not None:
        _draw(found, args.figure)
    width = shutil.get_terminal_size().columns
    if args.json:
        values = [to_json(one, args.size) for one in found]
        print_json(values[0] if len(values) == 1 else values)
    elif len(found) == 1:
        console().print(report(found[0], args.size, width))
    else:
        console().print(comparison(found, args.size, width))
    return 0 if all(one.gap_free for one in found) else 1


def _draw(found: Sequence[Certificate], path: Path) -> None:
    from hdc import plots
    from hdc.lab import store

    titles = [f"{one.name}: {one.seen:.0%} seen, G {one.gridding.index:.2f}" for one in found]
    drawn = plots.figure([(title, one.paths) for title, one in zip(titles, found, strict=True)])
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=path.suffix[1:])
    try:
        store.write(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f"--figure {path} cannot be written: {error.strerror}") from None

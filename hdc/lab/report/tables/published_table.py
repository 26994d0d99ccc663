"""What the published schedules really see, next to the figures that were published."""

import json
from typing import Any

import polars as pl

from hdc.lab.report.tables.rendering import Document
from hdc.lab.terminal import Rows
from hdc.published import Published, networks

_HEAD = ("network", "field", "seen %", "hole", "G", "overlap", "rule", "published")


def document() -> Document:
    """One line for each network, in the order of `published.toml`; nothing here is measured."""
    found = list(networks().values())
    notes = (
        "exact, from the rates alone: field in pixels per axis, the share of its pixels that is seen, the "
        "first hole counted from its edge or corner, G, and what adjacent outputs share",
        "rule: whether that of Wang et al. 2018 is right about holes; it says nothing of parallel branches",
        "(0|6) are parallel branches at rates 0 and 6, where 0 is a 1x1 convolution or a shortcut",
    )
    sections = (
        Rows(
            _HEAD,
            tuple(_cells(one) for one in found),
            words=("rule", "published"),
            title="what the published schedules see, in pixels of their own maps",
            notes=notes,
        ),
        Rows(
            ("network", "what", "rates", "read"),
            tuple((one.name, f"{one.title}; {one.paper}", _rates(one), one.read) for one in found),
            words=("what", "rates", "read"),
            title="what they are, and where it was read",
        ),
    )
    return Document(sections, pl.DataFrame([_line(one) for one in found]))


def _rates(one: Published) -> str:
    taps = one.field.kernel_size
    return one.field.rates_text + ("" if taps == 3 else f"; kernel size {taps}")


def _cells(one: Published) -> tuple[str, ...]:
    field = one.field
    return (
        one.name,
        str(field.receptive_field[0]),
        f"{100 * field.seen:.1f}",
        "none" if field.first_hole is None else ",".join(map(str, field.first_hole)),
        f"{field.gridding.index:.3f}",
        f"{field.neighbour_overlap[0]:.3f}",
        {True: "right", False: "wrong", None: "–"}[field.rule.agrees],
        one.figure,
    )


def _line(one: Published) -> dict[str, Any]:
    values = one.field.to_dict()
    rule = values.pop("hdc_rule")
    values |= {key: json.dumps(values[key]) for key in ("rates", "first_hole")}
    values |= {f"hdc_rule_{key}": value for key, value in rule.items()}
    described = {"title": one.title, "paper": one.paper, "output_stride": one.output_stride}
    return {"network": one.name, **described, **values, "figure": one.figure, "read": one.read}

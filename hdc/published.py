"""The dilation rates of published networks, the figures that were published with them, and their sources."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hdc.fields import Branches, Field, Stack
from hdc.schedules import DilationSchedule


@dataclass(frozen=True)
class Published:
    """A network, or its dilated part.

    Attributes:
        name: the short name that `hdc check` takes.
        title, paper: what it is, and who described it.
        output_stride: stride of the map that the rates refer to, in input pixels.
        figure: the published accuracy or receptive field.
        read: the source of rates and figure; "unverified" if they are from memory.
        field: what its rates really see.
    """

    name: str
    title: str
    paper: str
    output_stride: int
    figure: str
    read: str
    field: Field


@cache
def networks() -> dict[str, Published]:
    """All published networks by name, in the order of `published.toml`."""
    entries = tomllib.loads(resources.files("hdc").joinpath("published.toml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in entries.items():
        kernel_size, causal = entry.get("kernel_size", 3), entry.get("causal", False)
        if "layers" in entry:
            field: Field = Branches(tuple(map(tuple, entry["layers"])), name, kernel_size, causal)
        else:
            schedule = DilationSchedule(entry["rates"], kernel_size, entry.get("repeat", 1))
            field = Stack((schedule,) * entry.get("axes", 2), name, causal)
        described = {key: entry[key] for key in ("title", "paper", "output_stride", "figure", "read")}
        found[name] = Published(name, **described, field=field)
    return found

"""The dilation rates of published networks, with what was published about them and where that was read."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hdc.certificate import Certificate
from hdc.schedules import DilationSchedule


@dataclass(frozen=True)
class Published:
    """A network, or the part of one that is dilated.

    Attributes:
        name: short, as the command takes it.
        title, paper: what it is, and who described it.
        output_stride: of the map that its rates are steps on.
        figure: what was published of its accuracy, or of its field.
        read: where rates and figure were read; "unverified" is from memory.
        certificate: what it really sees.
    """

    name: str
    title: str
    paper: str
    output_stride: int
    figure: str
    read: str
    certificate: Certificate


@cache
def networks() -> dict[str, Published]:
    """All of them by name, in the order of `published.toml`."""
    entries = tomllib.loads(resources.files("hdc").joinpath("published.toml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in entries.items():
        kernel_size, branches = entry.get("kernel_size", 3), tuple(map(tuple, entry.get("layers", ())))
        repeat = entry.get("repeat", 1)
        schedule = DilationSchedule(entry["rates"], kernel_size, repeat) if "rates" in entry else None
        axes = (schedule,) * entry.get("axes", 2) if schedule else ()
        certificate = Certificate(name, axes, branches, kernel_size, entry.get("causal", False))
        described = {key: entry[key] for key in ("title", "paper", "output_stride", "figure", "read")}
        found[name] = Published(name, **described, certificate=certificate)
    return found

"""The one exception for input that cannot be used, and the checks that raise it."""

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """What the user gave cannot be used.

    Its message is one line that names the value, the place and what is allowed. The command-line
    programs print that line and exit with code 2; anything else is a fault of the program.
    """


def printable(text: str) -> str:
    """A text as one line: what a terminal would obey or not show, such as ESC, is written as `\\x1b`."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """The one line for a name that is not among the known ones, with the nearest one if there is any."""
    names = list(known)
    short = given.rpartition(".")[2]  # such as lr, for learning_rate
    quoted = {one: f'"{one}"' if ", " in one else one for one in names}  # or the list could not be told apart
    spelt = [one for one in names if given in one.split(", ")[1:]]
    spelt += [
        one for one in names if "".join(word[:1] for word in one.rpartition(".")[2].split("_")) == short
    ]
    near = spelt or difflib.get_close_matches(given, names, n=1)
    guess = f"; did you mean {quoted[near[0]]}?" if near else ""
    return f"unknown {what} {given!r}{guess} (there are: {', '.join(quoted.values())})"


def at_least(place: str, value: float, least: float) -> None:
    """Raise InputError where a value is too small."""
    if value < least:
        raise InputError(f"{place} must be at least {least}, got {value}")


def in_range(place: str, value: float, low: float, high: float) -> None:
    """Raise InputError where a value is not from `low` to `high`."""
    if not low <= value <= high:
        raise InputError(f"{place} must be between {low} and {high}, got {value}")


def one_of(place: str, value: str | int, allowed: Sequence[str | int]) -> None:
    """Raise InputError where a value is not among those allowed."""
    if value not in allowed:
        raise InputError(f"{place} must be one of {', '.join(map(str, allowed))}, got {value!r}")

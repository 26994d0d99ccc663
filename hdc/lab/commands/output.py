"""What commands print: text and tables through rich, and JSON."""

import json
from typing import Any

from rich.console import Console

from hdc.lab.commands.command import drop_output


class _Plain(Console):
    def on_broken_pipe(self) -> None:
        drop_output()
        raise SystemExit(141)  # rich's own method ends with 1


def console() -> Console:
    """A terminal that colours only what it is told to, and wraps tables but no lines of text."""
    return _Plain(highlight=False)


def print_json(values: Any) -> None:
    """Print values as indented JSON."""
    print(json.dumps(values, indent=2, allow_nan=False))

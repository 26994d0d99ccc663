"""Thin entry points, run from a clone as `python -m experiments.NAME`."""

import sys
from types import TracebackType


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C before the program has begun, while it is still importing, as one line."""
    if issubclass(kind, KeyboardInterrupt):
        print("experiments: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # as long as Python looks for the module to run
    sys.excepthook = _interrupted

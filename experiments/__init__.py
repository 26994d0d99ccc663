"""Thin entry points, run from a clone as `hdc NAME`."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import TracebackType


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C before the program has begun, while it is still importing, as one line."""
    if issubclass(kind, KeyboardInterrupt):
        print("experiments: interrupted", file=sys.stderr, flush=True)
        os._exit(130)
    else:
        sys.__excepthook__(kind, error, trace)


def _dropped(unraisable: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C that came in a destructor or a callback of the garbage collector, where Python drops it and
    goes on: sent again, a moment later."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    with suppress(RuntimeError):  # no thread begins once the program is at its end
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()


if sys.argv[0] == "-m":  # as long as Python looks for the module to run
    sys.excepthook = _interrupted
    sys.unraisablehook = _dropped

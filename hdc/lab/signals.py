"""Signals that ask a process to end, kept until what it has done is on disk."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # Ctrl-C, an end, and Slurm's warning before one


class Kept:
    """The signal that has come, if any."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    @property
    def name(self) -> str | None:
        """Such as SIGTERM, None where none has come."""
        return None if self._signal is None else self._signal.name

    def obey(self) -> None:
        """Do what the signal would have done at once.

        Raises:
            KeyboardInterrupt: for SIGINT.
            SystemExit: 143 for the others, unless a handler was there before, which is called.
        """
        assert self._signal is not None
        before = self._before.get(self._signal)
        if callable(before):  # Python's own for SIGINT, or that of a launcher
            with suppress(Exception):  # what a launcher cannot do does not make the run a failed one
                before(self._signal, None)
        raise SystemExit(143)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            raise KeyboardInterrupt  # somebody is in a hurry
        self._signal = self._signal or signal.Signals(number)


@contextmanager
def kept() -> Iterator[Kept]:
    """Within it, the first signal is kept, and obeyed at the end whatever exception it ends with; a second
    Ctrl-C ends at once. In the main thread alone."""
    keeper = Kept()
    if threading.current_thread() is not threading.main_thread():
        yield keeper
        return
    for number in _ASKING:
        keeper._before[number] = signal.signal(number, keeper._keep)
    try:
        yield keeper
    except Exception:
        if keeper.name is None:
            raise
    finally:
        for number, before in keeper._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
    if keeper.name is not None:
        keeper.obey()


def send_again(number: int) -> None:
    """Send a signal to the main thread once more, a moment later.

    For `sys.unraisablehook`: Python drops what a signal's handler raises in a destructor or in a callback of
    the garbage collector.
    """

    def send() -> None:
        # The main thread may have held the lock of the interpreter until now. Without this pause, the signal
        # would come just before the sleep or read that it is to interrupt.
        time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    with suppress(RuntimeError):  # no thread can start once the program is ending
        threading.Timer(0.02, send).start()

"""Deferring signals until a run has saved, and ending a process without a crash."""

import atexit
import errno
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

# Ctrl-C, termination, a terminal that closes, Slurm's early warning.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
_PATIENCE = 1.0  # seconds for `clean_up`


class Deferred:
    """The first signal received, to be acted on later.

    Attributes:
        clean_up: called before a second Ctrl-C ends the process; given up after a second.
    """

    def __init__(self) -> None:
        self.clean_up: Callable[[], None] = lambda: None
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    @property
    def name(self) -> str | None:
        """The signal's name, such as SIGTERM; None before the first signal."""
        return None if self._signal is None else self._signal.name

    def act(self) -> None:
        """Do what the signal would have done without deferral.

        Raises:
            KeyboardInterrupt: for SIGINT.
            SystemExit: 143 for other signals, after the handler that was installed before, if any.
        """
        assert self._signal is not None
        before = self._before[self._signal]
        if callable(before):  # Python's own handler for SIGINT, or a launcher's
            with suppress(Exception):  # a launcher's error must not mark the run as failed
                before(self._signal, None)
        raise SystemExit(143)

    def _defer(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self._signal:
            _end_at_once(self.clean_up)
        if number == signal.SIGHUP:
            _leave_terminal()
        self._signal = self._signal or signal.Signals(number)


def _leave_terminal() -> None:
    """Write nowhere from now on, where the terminal is gone: each further line would be an error."""
    for stream in (1, 2):
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _end_at_once(clean_up: Callable[[], None] = lambda: None) -> NoReturn:
    """End without Python's shutdown. XLA may be compiling on threads of its own, and the shutdown would
    destroy the client that they use, which is a segmentation fault."""
    with suppress(OSError):
        os.write(2, b"hdc: interrupted at once\n")

    def clean() -> None:
        with suppress(Exception):
            clean_up()

    # The signal may have stopped this thread while it holds a lock that the clean-up needs.
    last = threading.Thread(target=clean, daemon=True)
    last.start()
    last.join(_PATIENCE)
    _exit()


@contextmanager
def deferred() -> Iterator[Deferred]:
    """Defer the first signal until the block ends, then act on it, even if the block raised an exception.

    A second Ctrl-C ends the process at once with exit code 130. Signals that the process ignores stay
    ignored: a shell starts background jobs without Ctrl-C. Outside the main thread, which is the only one to
    receive signals, nothing is deferred.
    """
    found = Deferred()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            found._before[number] = signal.signal(number, found._defer)
    try:
        yield found
    except Exception:
        if found.name is None:
            raise
    finally:
        for number, before in found._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
    if found.name is not None:
        found.act()


def install() -> None:
    """Have Ctrl-C raise KeyboardInterrupt, but end the process at once during imports.

    Native modules crash when their initialisation is interrupted by an exception.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end_at_once()
        frame = frame.f_back
    raise KeyboardInterrupt


def ending() -> None:
    """After Ctrl-C, ignore further ones, and have Python's shutdown end with exit code 130 at its start.

    What comes later in the shutdown would kill the process by a second Ctrl-C, or destroy XLA's client while
    XLA is still compiling.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        atexit.register(_exit)


def send_again(number: int) -> None:
    """Send a signal to the main thread once more, a moment later.

    For `sys.unraisablehook`: Python drops what a signal's handler raises in a destructor or in a callback of
    the garbage collector.
    """

    def send() -> None:
        # The main thread may have held the interpreter's lock until now. Without this pause, the signal
        # would come just before the sleep or read that it is to interrupt.
        time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    with suppress(RuntimeError):  # no thread can start once the program is ending
        threading.Timer(0.02, send).start()


def _exit() -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(130)

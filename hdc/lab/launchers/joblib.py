"""The workers of the joblib launcher: each has its share of the cores, and saves before it ends."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType
from typing import Any, TypeVar

from hdc.lab import signals

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_told = False  # whether this worker has been told to end
_at_work = False  # whether it is at a run


@cache
def prepare() -> None:
    """If the joblib launcher is installed, have it wait for its workers after a signal."""
    with suppress(ImportError):
        from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

        JoblibLauncher.launch = signals_passed_on()(JoblibLauncher.launch)  # type: ignore[method-assign]


@contextmanager
def signals_passed_on() -> Iterator[None]:
    """In the command's own process: pass a signal on to the workers, and act on it once they have saved.

    joblib kills its workers as soon as an exception reaches it. A second Ctrl-C acts at once, and so does a
    signal when there are no workers.
    """
    asked: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        workers = multiprocessing.active_children()
        if asked or not workers:
            before[number](number, frame)
        asked.append(number)
        for worker in workers:
            worker.terminate()

    before: dict[int, Any] = {number: signal.signal(number, keep) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            before[asked[0]](asked[0], None)


def run(task: Callable[[], T], count: int) -> T | None:
    """Run `task` in this worker and return its result, or None if a signal ends the worker.

    The first signal raises an exception in `task`, which may defer it until it has saved; the exception is
    caught here. In a process that is not a worker, `task` is simply called.

    Args:
        task: a run.
        count: of workers; -1: as many as there are cores.
    """
    global _at_work
    number = multiprocessing.current_process().name.rpartition("-")[2]
    if not number.isdecimal():
        return task()
    _take_share(int(number) - 1, count)
    for asking in _SIGNALS:
        signal.signal(asking, _end)
    sys.unraisablehook = _dropped
    _at_work = True
    try:
        return None if _told else task()
    except _Told:
        return None
    finally:
        _at_work = False


class _Told(BaseException):
    """A signal has asked this worker to end."""


def _end(number: int, frame: FrameType | None) -> None:
    global _told
    first, _told = not _told, True
    if first and _at_work:
        raise _Told


def _dropped(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send a signal again, a moment later: Python drops what its handler raises in a callback of the garbage
    collector."""
    global _told
    if unraisable.exc_type is not _Told:
        sys.__unraisablehook__(unraisable)
        return
    _told = False
    signals.send_again(signal.SIGTERM)


@cache
def _take_share(number: int, count: int) -> None:
    """Bind worker `number` to its share of the cores: XLA takes a thread for each core that it sees."""
    if not hasattr(os, "sched_setaffinity"):
        return  # not Linux
    cores = sorted(os.sched_getaffinity(0))
    count = count if count > 0 else max(1, len(cores) + 1 + count)
    os.sched_setaffinity(0, cores[number % count :: count] or [cores[number % len(cores)]])

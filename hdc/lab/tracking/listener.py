"""Follows a run's records while it is trained, and sends them to a tracker.

Only measurements that a checkpoint has made final are sent, so that a resumed run sends none twice.
"""

import textwrap
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from hdc.lab.store import line
from hdc.lab.tracking.track import Sender, tracks

if TYPE_CHECKING:
    from hdc.lab.records import RunFolder
    from hdc.lab.records.run import State

NONE = "none"  # the name of no tracker
_PATIENCE = 15.0  # seconds that a run waits at its end


class Listener:
    """Sends the records of a run in a thread of its own, so that no server delays training.

    An exception of the tracker is reported once, until sending works again; what was not sent then is sent
    with what comes later.

    Args:
        run: in training.
        name: of the tracker, or `NONE`.
        say: prints a message, and what kind of message it is.
    """

    def __init__(self, run: "RunFolder", name: str, say: Callable[..., None]):
        self._run, self._name, self._say = run, name, say
        study = run.folder.parent
        known = tracks(run, study.name, study)
        self._sender = None if name == NONE else Sender(name, known)
        self._size, self._failing = 0, False
        self._state: State | None = None
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)

    def settled(self, size: int) -> None:
        """The first `size` bytes of the measurements are final."""
        self._size = size
        self._news.set()
        if self._sender is not None and not self._thread.ident:
            self._thread.start()

    def end(self, state: "State") -> None:
        """The run is done, has failed or is interrupted: send the rest, and wait for that, but not long."""
        if not self._thread.ident:
            return
        self._state = state
        self._news.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive() or self._failing:
            study = self._run.folder.parent
            command = f"hdc export {study.name} --to {self._name} --results {study.parent}"
            self._warn(f"not all was sent: {command} sends the rest")

    def _follow(self) -> None:
        state = None
        while state is None:
            self._news.wait()
            self._news.clear()
            state = self._state  # before the records are read, which are whole if it is set
            try:
                self._send(state)
                self._failing = False
            except Exception as error:  # each service raises its own
                if not self._failing:
                    self._warn(f"{textwrap.shorten(line(error), 200)}: training continues")
                self._failing = True

    def _send(self, state: "State | None") -> None:
        assert self._sender is not None  # or the thread would not have been started
        measured = self._run.metrics()
        if state not in ("done", "failed"):
            measured = measured.head(self._run.lines()[: self._size].count(b"\n"))
        self._sender.send(self._run, measured, state)

    def _warn(self, text: str) -> None:
        self._say(f"track={self._name}: {text}", "warning: ")

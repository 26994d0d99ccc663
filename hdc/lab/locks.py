"""One process at a piece of work: a file that names its owner, and a heartbeat that ends with the process.

The owner touches the file every few seconds. Another process takes over from an owner that has died: at once
on the same machine, elsewhere when the heartbeat is too old. A run that is taken is skipped (`Lock`); a data
set that is being made is waited for (`only_maker`).

The kernel's file locks, as the package `filelock` offers them, are not enough: on a network file system they
can outlive an owner on another machine, and they do not say who that is.
"""

import fcntl
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from hdc.errors import printable
from hdc.lab.store import PART, parse_json, read, to_json, write

log = logging.getLogger("hdc")

FILE = "lock.json"
BEAT, STALE = 10.0, 60.0  # seconds between two heartbeats; without one, after which an owner counts as dead
_WAIT = 0.1  # seconds between two looks at a lock that is waited for
_PATIENCE = 10.0  # seconds that a process may keep others from examining a lock


class Taken(Exception):
    """Another process is working on it, or has just finished it."""


class Lock:
    """A lock that is held until `release`, as a file in a folder."""

    def __init__(self, folder: Path, name: str = FILE):
        """Take the lock.

        Raises:
            Taken: if another process has it.
            OSError: if the folder cannot be written.
        """
        self._path = folder / name
        self._token = uuid4().hex
        with _alone(folder):
            if (owner := live_owner(folder, name)) is not None:
                who = printable(f"process {owner.get('pid')} on {owner.get('host')}")
                raise Taken(f"skipped: {who} is working on it")
            write(self._path, to_json({**_here(), "token": self._token}))
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    @property
    def held(self) -> bool:
        """False once another process has taken over, as it may after this machine has slept."""
        return (_read(self._path) or {}).get("token") == self._token

    @contextmanager
    def fenced(self) -> Iterator[bool]:
        """In the block, no other process can take over. Yields whether the lock is still held.

        A process that is stopped between looking at its lock and writing would else write into a run that
        another process has taken over meanwhile.
        """
        with _alone(self._path.parent):
            yield self.held

    def release(self) -> None:
        """Give the lock back."""
        self._ended.set()
        # The disk may have become read-only; that the owner is dead shows as well.
        with suppress(OSError, Taken), self.fenced() as held:
            if held:
                self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # the disk may come back
                if self.held:
                    os.utime(self._path)


@contextmanager
def only_maker(path: Path, what: str) -> Iterator[None]:
    """In the block, no other process makes `path`; if one does already, wait for it and say so.

    After waiting, look again whether anything is left to do. What a killed process has left half-made, as
    `*.part`, is deleted. If no lock can be had, as in a folder that cannot be written, none is taken:
    then every process makes `path` for itself.

    Args:
        path: a file or folder that is put in its place atomically.
        what: its name in the message.
    """
    file, lock, waiting = path.with_name(f".{path.name}.lock"), None, False
    while lock is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(file.parent, file.name)
        except Taken:
            if not waiting:
                log.warning("%s is being prepared by another process: waiting for it (%s)", what, file)
            waiting = True
            time.sleep(_WAIT)
        except OSError:
            break
    try:
        if lock is not None:
            for left in (*path.parent.glob(f".{path.name}.*{PART}"), *path.glob(f".*{PART}")):
                with suppress(OSError):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        if lock is not None:
            lock.release()


def live_owner(folder: Path, name: str = FILE) -> dict[str, Any] | None:
    """The process that holds a lock, None if nobody does."""
    path = folder / name
    owner = _read(path)
    if owner is None:
        return None
    here = _here()
    if owner.get("machine") == here["machine"]:
        alive = isinstance(owner.get("pid"), int) and _started(owner["pid"]) == owner.get("begun") is not None
        return owner if alive else None
    try:
        age = _now(folder) - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return owner if age < STALE else None


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a lock; None if there is none, or it is damaged and so not of a live process."""
    try:
        values = parse_json(read(path))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _here() -> dict[str, Any]:
    """This process. Its number means something only on this boot of this machine, in this container."""
    machine = []
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            machine.append(str(Path(path).readlink()) if "ns" in path else Path(path).read_text().strip())
    pid = os.getpid()
    host = socket.gethostname()
    return {"host": host, "machine": " ".join(machine) or host, "pid": pid, "begun": _started(pid)}


def _started(pid: int) -> str | None:
    """When a process began, in clock ticks; None if it is gone. It tells reused process numbers apart."""
    try:
        # The name, in parentheses, can hold anything. A zombie (Z) is dead.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:  # no /proc, as on macOS
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system, which may differ from this machine's."""
    probe = folder / f".now.{uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time examines the locks of a folder, if its file system supports that.

    Raises:
        Taken: if another process does so for longer than `_PATIENCE`: it was stopped while it writes.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + _PATIENCE
        with suppress(OSError):  # this file system has no such locks
            while not _locked(handle):
                if time.monotonic() > end:
                    raise Taken("skipped: another process was stopped while writing it")
                time.sleep(_WAIT / 10)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Whether this process now has the kernel's lock; OSError where there is none to have."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

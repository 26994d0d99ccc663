"""One process at a run: a file that names its owner, and a heartbeat that ends with the process.

The owner touches `lock.json` every few seconds. A second process takes the run over where the owner has
died, which is seen at once on the same machine, and on another one when the heartbeat is too old.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from hdc.errors import printable
from hdc.lab.store import read, to_json, write

FILE = "lock.json"
BEAT, STALE = 10.0, 60.0  # seconds between two heartbeats; without one, after which an owner counts as dead


class Taken(Exception):
    """Another process is at the run, or has just finished it."""


class Lock:
    """A run's folder, held until `release`. `held` says whether it still is."""

    def __init__(self, folder: Path):
        """Take the folder.

        Raises:
            Taken: where another process has it.
            OSError: where the folder cannot be written.
        """
        self._path = folder / FILE
        self._token = uuid4().hex
        with _alone(folder):
            if (owner := live_owner(folder)) is not None:
                who = printable(f"process {owner.get('pid')} on {owner.get('host')}")
                raise Taken(f"{who} is at it, left to that one")
            write(self._path, to_json({**_here(), "token": self._token}))
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    @property
    def held(self) -> bool:
        """Whether no other process has taken it over, as one may after a machine has slept."""
        return (_read(self._path) or {}).get("token") == self._token

    def release(self) -> None:
        """Give it back."""
        self._ended.set()
        if self.held:
            with suppress(OSError):  # where the disk has become read-only; the owner's death shows as well
                self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # the disk may come back
                if self.held:
                    os.utime(self._path)


def live_owner(folder: Path) -> dict[str, Any] | None:
    """Who is at the run, None where nobody is."""
    path = folder / FILE
    owner = _read(path)
    if owner is None:
        return None
    here = _here()
    if owner.get("machine") == here["machine"]:
        alive = isinstance(owner.get("pid"), int) and _begun(owner["pid"]) == owner.get("begun") is not None
        return owner if alive else None
    try:
        age = _now(folder) - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return owner if age < STALE else None


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says; one that cannot be read was not written by a process that is alive."""
    try:
        values = json.loads(read(path))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _here() -> dict[str, Any]:
    """This process: a process number holds on one boot of one machine, in one container."""
    machine = []
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            machine.append(str(Path(path).readlink()) if "ns" in path else Path(path).read_text().strip())
    pid = os.getpid()
    host = socket.gethostname()
    return {"host": host, "machine": " ".join(machine) or host, "pid": pid, "begun": _begun(pid)}


def _begun(pid: int) -> str | None:
    """When a process began, in the kernel's ticks, None where there is none: numbers are used again."""
    try:
        # The name, in brackets, can hold anything; a zombie (Z) is dead.
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
    """The time as the folder's file system has it, whose clock need not be this machine's."""
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
    """Between processes that look at once whether a lock is free; where the file system can do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

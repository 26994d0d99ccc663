"""Two processes that want the same data set: one makes it, the other waits for it."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger("hdc")

PART = ".part"  # how the name of what is being written beside the folder ends


@contextlib.contextmanager
def only_maker(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time make `folder`, which holds the data set `name`; the others wait.

    One that has waited looks again whether there is anything left to do. The lock is the kernel's, so
    that it ends with its process, however that ends; of one that was killed, what it had begun as
    `.<folder>.*.part` is deleted. Where no lock can be had, as in a folder that cannot be written, none
    is taken: every process then makes the folder for itself, and the first to finish it wins.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), fallback_to_soft=False)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s is being prepared by another process: waiting for it (%s)", name, lock.lock_file)
            lock.acquire()
    except OSError:
        pass
    try:
        if lock.is_locked:
            for begun in folder.parent.glob(f".{folder.name}.*{PART}"):
                shutil.rmtree(begun, ignore_errors=True)
        yield
    finally:
        lock.release()

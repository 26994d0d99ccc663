"""The memory of this process: kept when it is freed, since training allocates large arrays at every step."""

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path

# glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep() -> None:
    """Stop glibc from returning freed memory to the system and mapping it again at every step.

    The system clears every page that it maps, which takes up to half of a training step on a CPU. Call this
    before importing JAX; later calls have no effect. Does nothing without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)


def limit() -> int:
    """Bytes of memory that this process can use: the machine's, or what its cgroups allow if that is less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):  # only Linux has it
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            root, name = Path("/sys/fs/cgroup"), "memory.max"
            if kinds:
                root, name = root / "memory", "memory.limit_in_bytes"
            if kinds in ("", "memory"):
                folder = root / place.lstrip("/")
                for inner in (folder, *folder.parents[: len(folder.parts) - len(root.parts)]):
                    with suppress(OSError, ValueError):  # a container may not show it; "max" is no limit
                        found.append(int((inner / name).read_text()))
    return min(found)

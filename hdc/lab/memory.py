"""Keep freed memory in the process: training allocates and frees large arrays at every step."""

import ctypes
import platform

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

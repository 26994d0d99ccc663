"""How this process gets its memory, where it takes and gives back large arrays at every step."""

import ctypes
import platform

# glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep() -> None:
    """Keep freed memory in the process, where it would be given back and mapped anew at every step.

    XLA's larger buffers would else be mapped, and every page of them cleared, each time: up to half of a
    training step on a CPU. Call it before JAX is imported, it does nothing later; nor where the C library
    is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)

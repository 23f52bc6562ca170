"""One setting of the C library's allocator, for engines whose tensors are large."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 2**20


def return_large_blocks() -> None:
    """Let every block of 1 MiB and more have pages of its own, given back when it is freed.

    glibc raises that limit to 32 MiB by itself; blocks below it stay in arenas, where a drawing
    of 512 x 512 pixels kept 330 MiB that nothing used. With a fixed limit the process holds what
    is live (measured: the same CPU seconds). It is a setting of the whole process. Elsewhere
    than in glibc this does nothing. Source: mallopt(3).
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    except (AttributeError, OSError, TypeError):  # not glibc
        return

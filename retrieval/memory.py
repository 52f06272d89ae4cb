"""Memory that is freed and taken again, a batch at a time."""

import ctypes
import os
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@cache
def retain_freed_memory() -> None:
    """Have glibc keep the memory of one batch for the next: torch encodes 114 images of the starter instead of 64.

    Otherwise pictures, and activations of tens of megabytes, are unmapped and mapped again; a tenth of the time of
    decoding is that. At most a quarter of a gigabyte is kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the maximum
        mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)

"""The C allocator, told to keep what training frees."""

from __future__ import annotations

import ctypes
import os
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_TRIM = 1 << 30
_MMAP = 1 << 25  # glibc's upper limit on 64 bits


def keep_freed_memory() -> bool:
    """Make glibc keep up to 1 GiB of freed heap instead of handing it back after every training step on the CPU.

    A step frees its activations and the next one faults the same pages in again: 5000 faults, or a fifth of a 40 ms
    step, at nano size. The setting is the whole process's and stays. Does nothing, and says so, where the C library
    is not glibc or the user has set its allocator up in the environment.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or chosen:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP)) and bool(mallopt(_M_TRIM_THRESHOLD, _TRIM))

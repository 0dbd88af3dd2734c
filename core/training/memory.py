"""Memory of this process: its peak while something went on, and the C allocator told to keep what training frees."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Watches this process's peak memory since ``begin``; one at a time, since the counters are the process's.

    ``whole`` says that the system could not start the counter of the resident set anew, so that its peak is that of
    the whole life of the process.
    """

    whole: bool

    @classmethod
    def begin(cls) -> Self:
        """Start the counters of the resident set and of the device anew."""
        device = _device()
        if device is not None and device.is_initialized():  # it refuses before its first use, when there is no peak yet
            device.reset_peak_memory_stats()
        try:
            _CLEAR.write_text("5")  # resets VmHWM, see proc_pid_clear_refs(5)
        except OSError:
            return cls(whole=True)
        return cls(whole=False)

    def facts(self) -> dict[str, Any]:
        """Return ``resident`` and ``device`` in bytes (None where there is no device, or no way to know), and since
        when ``resident`` counts: ``phase`` or ``process``."""
        device = _device()
        return {
            "resident": _resident(),
            "since": "process" if self.whole else "phase",
            "device": None if device is None else int(device.max_memory_allocated()),
        }


def _device() -> Any:
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def _resident() -> int | None:
    """The peak resident set in bytes, or None where the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""One process at a time: a lock between processes that dies with its owner."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ...registry.atomic import reporting

_POLL = 0.1  # seconds between two tries
_PATIENCE = 0.5  # seconds between two looks at ``stop``


@contextmanager
def single_flight(
    path: Path,
    what: str,
    *,
    waiting: Callable[[str], None] | None = None,
    stop: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Holds the lock at ``path`` while the body runs; the system drops it when the process dies.

    Another holder is waited for: ``waiting`` is told once, in one sentence, who holds it, and ``stop`` is called
    twice a second while waiting, so that it may raise. StoreError if the lock cannot be made (read-only, full).
    """
    with reporting(f"the lock of {what}", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        held = _acquire(lock, 0)
    if not held and waiting is not None:
        waiting(f"{_holder(path)} is working on {what}; waiting for it to finish")
    while not held:
        if stop is not None:
            stop()
        with reporting(f"the lock of {what}", path.parent):
            held = _acquire(lock, _PATIENCE)
    try:
        with reporting(f"the lock of {what}", path.parent):
            _owner(path).write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        _owner(path).unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds, poll_interval=_POLL)
    except Timeout:
        return False
    return True


def _owner(path: Path) -> Path:
    return path.with_suffix(".owner")


def _holder(path: Path) -> str:
    # The note is a courtesy: it is written after the lock is taken, so a reader may come too early.
    try:
        owner = json.loads(_owner(path).read_text())
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"

"""Ctrl-C and SIGTERM as a wish to stop, so that a run can end where it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; ``exit_code`` is 128 plus the signal (130 or 143)."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"stopped by signal {exit_code - 128}")
        self.exit_code = exit_code


class Interruption:
    """Whether a stop was asked for, and by which signal; ``at_once`` while there is nothing to keep."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.signal: int | None = None
        self.event = threading.Event()

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number once one came, else 0."""
        return 0 if self.signal is None else 128 + self.signal

    def check(self) -> None:
        """Raises Interrupted if a stop was asked for."""
        if self.requested:
            raise Interrupted(self.exit_code)


@contextmanager
def interruptible(notify: Callable[[int], None] | None = None, *, at_once: bool = False) -> Iterator[Interruption]:
    """Within the body, the first SIGINT or SIGTERM sets the flag, the second raises Interrupted at once, as does the
    first while ``at_once``, which the body may take back.

    ``notify`` is called with the first signal's number. The former handlers are back afterwards. Python hands
    signals to the main thread only: in another thread the flag is never set.
    """
    state = Interruption(at_once=at_once)
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if state.requested or state.at_once:
            raise Interrupted(128 + number)
        state.signal = number
        state.event.set()
        if notify is not None:
            notify(number)

    former = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield state
    finally:
        for number, handler in former.items():
            # None stands for a handler that was not set from Python and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

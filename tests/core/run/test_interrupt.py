"""Signals: the first is a wish, the second an order, and the handlers come back."""

from __future__ import annotations

import signal
import threading

import pytest
from phasegate.core.run.interrupt import Interrupted, interruptible


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_sets_the_flag_and_the_exit_code(number: signal.Signals, code: int) -> None:
    with interruptible() as state:
        assert not state.requested and state.exit_code == 0
        signal.raise_signal(number)
        assert state.requested and state.exit_code == code


def test_the_second_signal_raises_at_once_with_its_own_code() -> None:
    with interruptible() as state, pytest.raises(Interrupted) as caught:
        signal.raise_signal(signal.SIGINT)
        assert state.requested
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143


def test_the_check_raises_only_after_a_signal() -> None:
    with interruptible() as state:
        state.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            state.check()
    assert caught.value.exit_code == 143


def test_the_user_is_told_once_on_the_first_signal() -> None:
    told: list[int] = []
    with interruptible(told.append):
        signal.raise_signal(signal.SIGINT)
    assert told == [signal.SIGINT]


def test_the_former_handlers_are_back_even_after_an_error() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError, match="boom"), interruptible():
        raise RuntimeError("boom")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_interruption_is_a_keyboard_interrupt_so_no_library_swallows_it() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt) and not issubclass(Interrupted, Exception)


def test_outside_the_main_thread_the_handlers_stay_as_they_are() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def body() -> None:
        with interruptible() as state:
            seen.extend([signal.getsignal(signal.SIGINT), state.requested])

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before, False]

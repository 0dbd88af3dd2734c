"""How a run is shown while it goes on: drawn in a terminal, plain lines anywhere else."""

from __future__ import annotations

import io
import logging
import sys

import numpy as np
import pytest
from phasegate.core.cli.live import REFRESH, LineDisplay, LiveDisplay, display_of, frame, line
from phasegate.core.cli.terminal import make_console
from phasegate.core.cli.view import Pace, Training, View
from rich.console import Console

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_view(**changes: object) -> View:
    view = View(
        began=0.0,
        phases=3,
        phase="[red]alignment",
        place=2,
        step="[bold]sft",
        kind="sft",
        steps=2,
        step_place=1,
        after=("step dpo", *(f"criterion-{number} ≥ 0.{number}" for number in range(9))),
        pace=Pace(total=100.0, done=0.0, step=50.0, began=90.0),
    )
    view.training = Training(
        first=0,
        steps=200,
        tokens=1000.0,
        began=90.0,
        reached=101,
        logged=100,
        logged_at=100.0,
        values={
            "loss": 2.0,
            "loss/task": 1.5,
            "learning_rate": 0.001,
            **{f"loss/[b]term-{number}": 0.5 for number in range(9)},
        },
        load=np.full((40, 8), 1 / 8),
        old=(2.0, 2.25),
    )
    for name, value in changes.items():
        setattr(view, name, value)
    return view


def drawn(view: View, width: int, now: float = 100.0) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(frame(view, now, width))
    return stream.getvalue()


def test_a_frame_says_where_the_run_is_how_fast_and_for_how_long() -> None:
    text = drawn(a_view(), 80)
    assert "2 of 3  [red]alignment  (0:01:40 since the start)" in text
    assert "1 of 2  [bold]sft (sft)" in text
    assert "101 of 200" in text
    assert "10,000 tokens/s" in text
    # 50.5 % of half of the work took 10 s; the other 74.75 of 100 take 29.6.
    assert "about 0:00:10 of this step, about 0:00:30 of the run" in text
    assert "2 in all, task 1.5   learning rate 0.001" in text
    assert "2.25, +0.2500 since this step began" in text
    assert "0 ▄▄▄▄▄▄▄▄" in text and "more layers" in text
    assert "step dpo, criterion-0 ≥ 0.0" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_frame_keeps_within_its_columns_and_a_screen_of_rows(width: int) -> None:
    lines = [row.rstrip() for row in drawn(a_view(), width).splitlines()]
    assert max(map(len, lines)) <= width
    assert len(lines) <= 18


def test_names_are_text_and_never_markup() -> None:
    assert "[b]term-0 0.5" in drawn(a_view(), 80)
    stream = io.StringIO()
    LineDisplay(make_console(stream), a_view(), Clock()).told(now=True)
    assert "[red]alignment/[bold]sft" in stream.getvalue() and "[b]term-8 0.5" in stream.getvalue()


def test_while_gates_are_measured_the_criterion_is_named() -> None:
    view = a_view(training=None, measured="measures knowledge (choice), criterion 2 of 7")
    view.judged["pass"] = 3
    text = drawn(view, 80)
    assert "now         measures knowledge (choice), criterion 2 of 7" in text
    assert "judged      3 pass" in text
    assert "measures knowledge (choice), criterion 2 of 7" in line(view, 100.0)


def test_plain_lines_come_at_most_once_in_five_seconds_unless_they_cannot_wait() -> None:
    stream, clock = io.StringIO(), Clock()
    display = LineDisplay(make_console(stream), a_view(), clock)
    for _ in range(40):
        clock.now += 0.5
        display.told()
    assert len(stream.getvalue().splitlines()) == 4
    display.told(now=True)
    assert len(stream.getvalue().splitlines()) == 5


def test_a_plain_line_has_every_number_and_no_control_codes() -> None:
    stream = io.StringIO()
    LineDisplay(make_console(stream), a_view(), Clock()).told(now=True)
    (text,) = stream.getvalue().splitlines()
    assert "\x1b" not in text
    assert text.startswith(
        "[red]alignment/[bold]sft  100/200  50%  10,000 tokens/s  about 0:00:10 left, of the run about 0:00:30  "
        "loss 2 in all, task 1.5  [b]term-0 0.5"
    )
    assert text.endswith("rate 0.001  expert load 12.5% to 12.5%  old loss 2.25 (+0.2500)")


def test_only_a_terminal_is_drawn_in_even_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(display_of(Console(file=Terminal(), force_terminal=True), a_view()), LiveDisplay)
    assert isinstance(display_of(Console(file=io.StringIO()), a_view()), LineDisplay)
    assert isinstance(display_of(Console(file=io.StringIO(), force_terminal=True), a_view()), LineDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display_of(Console(file=Terminal(), force_terminal=True), a_view()), LineDisplay)


def test_drawing_hides_the_cursor_and_stopping_brings_it_back_once_and_takes_the_block_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    display = LiveDisplay(Console(file=terminal, force_terminal=True, width=80), a_view(), Clock())
    display.start()
    display.start()
    display.stop()
    display.stop()
    text = terminal.getvalue()
    assert (text.count(HIDE), text.count(SHOW)) == (1, 1)
    assert "tokens/s" in text and text.rindex("\x1b[2K") > text.rindex("tokens/s")


def test_what_a_library_logs_meanwhile_goes_above_the_block_and_afterwards_where_it_went_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal, errors = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler()
    logger = logging.getLogger("trl")
    logger.addHandler(handler)
    try:
        display = LiveDisplay(Console(file=terminal, force_terminal=True, width=80), a_view(), Clock())
        display.start()
        logger.warning("mind the gap")
        display.stop()
        logger.warning("the end")
    finally:
        logger.removeHandler(handler)
    assert "mind the gap" in terminal.getvalue()
    assert errors.getvalue() == "the end\n"


def test_a_step_that_has_ended_leaves_a_line_behind_and_no_other_news_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    display = LiveDisplay(Console(file=terminal, force_terminal=True, width=300, highlight=False), a_view(), Clock())
    display.told()
    assert terminal.getvalue() == ""
    display.told(now=True)
    assert "[red]alignment/[bold]sft  100/200  50%" in terminal.getvalue()


def test_nothing_flickers() -> None:
    assert REFRESH <= 4

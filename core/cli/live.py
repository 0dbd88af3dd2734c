"""How a run is shown while it goes on: a few lines that are drawn anew in a terminal, plain lines anywhere else."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .numbers import NOTHING, duration, number
from .view import View, about, bars, list_of, losses, spread, terms, wrapped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

REFRESH = 2  # times a second
EVERY = 5.0  # seconds between plain lines
LABEL = 10  # columns
LAYERS = 4  # lines of expert load

#: Libraries whose log handlers keep the stream that was stderr when they were imported; what they write there would
#: push the drawn block about.
LOGGERS = ("", "accelerate", "datasets", "lm_eval", "transformers", "trl")


class Display(Protocol):
    """Shows a view while something goes on."""

    def start(self) -> None: ...

    def told(self, *, now: bool = False) -> None:
        """Hear that the view has news; ``now`` where they should not wait."""
        ...

    def stop(self) -> None: ...


def display_of(console: Console, view: View, clock: Callable[[], float] = time.monotonic) -> Display:
    """Return what suits where ``console`` writes to: nothing is drawn anew but in a real terminal."""
    file = console.file
    if console.is_interactive and console.is_terminal and getattr(file, "isatty", lambda: False)():
        return LiveDisplay(console, view, clock)
    return LineDisplay(console, view, clock)


class LineDisplay:
    """Plain lines without control codes, at most one in ``every`` seconds unless it cannot wait."""

    def __init__(self, console: Console, view: View, clock: Callable[[], float], every: float = EVERY) -> None:
        self._console, self._view, self._clock, self._every = console, view, clock, every
        self._told = clock()

    def start(self) -> None:
        """Nothing: lines come as there is news."""

    def told(self, *, now: bool = False) -> None:
        """Print a line if the last is old enough."""
        time = self._clock()
        if now or time - self._told >= self._every:
            from rich.text import Text

            self._told = time
            self._console.print(Text(line(self._view, time)), soft_wrap=True)

    def stop(self) -> None:
        """Nothing: there is nothing to take away."""


class LiveDisplay:
    """A block at the foot of the terminal, drawn twice a second by a thread of its own, gone when it stops."""

    def __init__(self, console: Console, view: View, clock: Callable[[], float]) -> None:
        self._console, self._view, self._clock = console, view, clock
        self._live: Live | None = None
        self._moved: list[tuple[logging.StreamHandler[Any], Any]] = []

    def start(self) -> None:
        """Begin to draw, and hide the cursor."""
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                get_renderable=lambda: frame(self._view, self._clock(), self._console.width),
                console=self._console,
                refresh_per_second=REFRESH,
                transient=True,
                # What goes to a file must not end up in the terminal.
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            before = sys.stderr
            self._live.start()
            if sys.stderr is not before:
                self._moved = [(handler, before) for handler in _handlers(before)]
            for handler, _ in self._moved:
                handler.setStream(sys.stderr)

    def told(self, *, now: bool = False) -> None:
        """Leave a line of a step that has ended above the block; the next drawing shows all else."""
        if now and self._view.training is not None:
            from rich.text import Text

            self._console.print(Text(line(self._view, self._clock()), style="dim"), soft_wrap=True)

    def stop(self) -> None:
        """Take the block away and show the cursor again."""
        if self._live is not None:
            for handler, stream in self._moved:
                handler.setStream(stream)
            self._moved = []
            self._live.stop()
            self._live = None


def _handlers(stream: Any) -> list[logging.StreamHandler[Any]]:
    every = (handler for name in LOGGERS for handler in logging.getLogger(name).handlers)
    return [one for one in every if isinstance(one, logging.StreamHandler) and one.stream is stream]


def line(view: View, now: float) -> str:
    """The view in one line of plain text."""
    step = view.training
    where = f"{view.phase}/{view.step}" if view.step else view.phase
    if step is None:
        after = f"next: {list_of(view.after, 80)}" if view.after and not view.measured else ""
        said = [where, f"phase {view.place} of {view.phases}", view.measured or view.doing, after]
        return "  ".join(part for part in said if part)
    parts = [where, f"{step.logged}/{step.steps}", f"{step.logged / step.steps:.0%}"]
    parts.append(f"{NOTHING if step.speed is None else format(step.speed, ',.0f')} tokens/s")
    parts.append(f"{about(step.left(now))} left, of the run {about(view.left(now))}")
    parts += [f"loss {losses(step.values)}", *terms(step.values)]
    if "learning_rate" in step.values:
        parts.append(f"rate {number(step.values['learning_rate'])}")
    if step.load is not None:
        parts.append(f"expert load {spread(step.load)}")
    if step.old is not None:
        parts.append(f"old loss {number(step.old[1])} ({step.old[1] - step.old[0]:+.4f})")
    return "  ".join(part for part in parts if part)


def frame(view: View, now: float, width: int) -> Any:
    """The view as a few labelled rows of at most ``width`` columns; names are text, never markup."""
    from rich.table import Table
    from rich.text import Text

    room = max(20, width - LABEL - 2)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=LABEL, no_wrap=True)
    grid.add_column(width=room)
    for label, content in rows(view, now, room):
        shown = Text(content, overflow="ellipsis", no_wrap=True) if isinstance(content, str) else content
        grid.add_row(Text(label, style="dim"), shown)
    return grid


def rows(view: View, now: float, room: int) -> list[tuple[str, Any]]:
    """Label and content of every row; content is text of one line, or something that rich can draw."""
    found: list[tuple[str, Any]] = [
        ("phase", f"{view.place} of {view.phases}  {view.phase}  ({duration(now - view.began)} since the start)")
    ]
    if view.step:
        found.append(("step", f"{view.step_place} of {view.steps}  {view.step} ({view.kind})"))
    if view.training is not None:
        found += _training(view, now, room)
    elif doing := view.measured or view.doing:
        found.append(("now", doing))
    if view.judged:
        found.append(("judged", ", ".join(f"{many} {verdict}" for verdict, many in sorted(view.judged.items()))))
    if view.training is None and (left := view.left(now)):
        found.append(("left", f"{about(left)} of the run"))
    if view.after:
        found += _labelled("next", wrapped(view.after, room))
    return found


def _training(view: View, now: float, room: int) -> list[tuple[str, Any]]:
    from rich.columns import Columns
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    step = view.training
    assert step is not None
    counted = f"{step.reached:,} of {step.steps:,}  {step.reached / step.steps:.0%}"
    bar = ProgressBar(total=step.steps, completed=step.reached, width=max(10, min(40, room - len(counted) - 2)))
    found: list[tuple[str, Any]] = [("", Columns([bar, Text(counted)], padding=(0, 1)))]
    speed = NOTHING if step.speed is None else f"{step.speed:,.0f}"
    found.append(("speed", f"{speed} tokens/s"))
    found.append(("left", f"{about(step.left(now))} of this step, {about(view.left(now))} of the run"))
    values = step.values
    if values:
        rate = f"   learning rate {number(values['learning_rate'])}" if "learning_rate" in values else ""
        found.append(("loss", losses(values) + rate))
    if named := terms(values):
        found += _labelled("terms", wrapped([*named[:-1], f"{named[-1]}; raw (weighted)"], room))
    if step.old is not None:
        before, last = step.old
        found.append(("old loss", f"{number(last)}, {last - before:+.4f} since this step began"))
    if step.load is not None:
        found += _load(step.load, room)
    return found


def _load(load: Any, room: int) -> list[tuple[str, Any]]:
    cells = [f"{place} {bars(layer)}" for place, layer in enumerate(load)]
    across = max(1, (room + 3) // (max(map(len, cells)) + 3))
    lines = ["   ".join(cells[start : start + across]) for start in range(0, len(cells), across)]
    hidden = len(cells) - LAYERS * across
    more = f", {hidden} more layers" if hidden > 0 else ""
    shown = [*lines[:LAYERS], f"▄ is an even share; {spread(load)}{more}"]
    return _labelled("experts", shown)


def _labelled(label: str, lines: Sequence[str]) -> list[tuple[str, Any]]:
    return [(label if place == 0 else "", line) for place, line in enumerate(lines)]

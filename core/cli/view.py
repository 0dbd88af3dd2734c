"""Where a run stands, and what follows from it: speed, time left, and the words for losses, load and gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .numbers import NOTHING, duration, number

LEVELS = "▁▂▃▄▅▆▇█"  # the fourth is an even share
DEAD = "·"  # less than 1 % of an even share


@dataclass(slots=True, kw_only=True)
class Pace:
    """How fast a run goes, in FLOPs of its plan, gates included: what is left of them takes as long as what was done.

    ``total`` are the FLOPs of the phases that are to be trained, ``done`` those of finished steps, ``step`` those of
    the step at hand, ``skipped`` those that an earlier start of the run had done; ``began`` is when the first step that
    this one carries out began.
    """

    total: float
    done: float = 0.0
    step: float = 0.0
    skipped: float = 0.0
    began: float | None = None

    def left(self, share: float, now: float) -> float | None:
        """Seconds until the run ends, with ``share`` of the step at hand done; None while nothing can be said."""
        done = self.done + share * self.step
        here = done - self.skipped
        if self.began is None or here <= 0 or now <= self.began:
            return None
        return max(0.0, self.total - done) * (now - self.began) / here


@dataclass(slots=True, kw_only=True)
class Training:
    """A step that trains: how far it is, and what was last logged. ``tokens`` are those of one optimiser step."""

    first: int
    steps: int
    tokens: float
    began: float
    reached: int
    logged_at: float = 0.0
    logged: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    load: Any = None  # shape: (L, E)
    old: tuple[float, float] | None = None  # the old loss at first and now

    @property
    def speed(self) -> float | None:
        """Tokens per second since this process began the step, as of the last log."""
        seconds = self.logged_at - self.began
        done = self.logged - self.first
        return done * self.tokens / seconds if done > 0 and seconds > 0 else None

    def left(self, now: float) -> float | None:
        """Seconds until the step ends, at the pace of the last log."""
        done = self.logged - self.first
        if done <= 0:
            return None
        at_log = (self.steps - self.logged) * (self.logged_at - self.began) / done
        return max(0.0, at_log - (now - self.logged_at))


@dataclass(slots=True, kw_only=True)
class View:
    """All that a display shows of a run; whoever watches the run writes it."""

    began: float
    phases: int
    phase: str = ""
    place: int = 0
    doing: str = ""
    step: str = ""
    kind: str = ""
    steps: int = 0
    step_place: int = 0
    training: Training | None = None
    after: tuple[str, ...] = ()
    measured: str = ""
    judged: Counter[str] = field(default_factory=Counter)
    pace: Pace

    def left(self, now: float) -> float | None:
        """Seconds until the run ends; never less than the step has left."""
        step = self.training
        if step is None:
            return self.pace.left(0.0, now)
        run, own = self.pace.left(step.reached / step.steps, now), step.left(now)
        return None if run is None or own is None else max(run, own)


def about(seconds: float | None) -> str:
    """A time that is an estimate."""
    return NOTHING if seconds is None else f"about {duration(seconds)}"


def losses(values: Mapping[str, float]) -> str:
    """The loss that is minimised and the task's part of it."""
    return f"{number(values.get('loss'))} in all, task {number(values.get('loss/task'))}"


def terms(values: Mapping[str, float]) -> list[str]:
    """Every other part of the loss: raw, and weighted in brackets."""
    found = []
    for key, value in values.items():
        name = key.removeprefix("loss/")
        if name == key or name == "task" or name.endswith("/weighted"):
            continue
        weighted = values.get(f"{key}/weighted")
        found.append(f"{name} {number(value)}" + ("" if weighted is None else f" ({number(weighted)})"))
    return found


def bars(shares: Iterable[float]) -> str:
    """One sign per expert, as high as its share of the load; the fourth level is an even share."""
    known = list(shares)
    even = 1.0 / len(known)
    return "".join(_bar(share / even) for share in known)


def _bar(ratio: float) -> str:
    if not ratio >= 0.01:
        return DEAD
    return LEVELS[min(len(LEVELS), max(1, round(4 * ratio))) - 1]


def spread(load: Sequence[Sequence[float]]) -> str:
    """The least and the most that any expert of any layer gets."""
    every = [share for layer in load for share in layer if share == share]  # NaN where nothing was routed
    return f"{min(every):.1%} to {max(every):.1%}" if every else NOTHING


def list_of(names: Sequence[str], width: int) -> str:
    """As many names as fit into ``width`` columns, and how many more there are."""
    shown: list[str] = []
    for place, name in enumerate(names):
        rest = len(names) - place - 1
        text = ", ".join([*shown, name]) + (f" and {rest} more" if rest else "")
        if shown and len(text) > width:
            return ", ".join(shown) + f" and {rest + 1} more"
        shown.append(name)
    return ", ".join(shown)


def wrapped(names: Sequence[str], width: int, lines: int = 2) -> list[str]:
    """The names on at most so many lines of ``width`` columns; the last says how many more there are."""
    found: list[str] = []
    left = list(names)
    while left and len(found) < lines - 1:
        many = max((n for n in range(1, len(left) + 1) if len(", ".join(left[:n])) < width), default=1)
        found.append(", ".join(left[:many]) + ("," if many < len(left) else ""))
        left = left[many:]
    return [*found, list_of(left, width)] if left else found


def bound_of(section: Any) -> str:
    """The bound of a criterion as a person reads it."""
    low, high = section.at_least, section.at_most
    if low is not None and high is not None:
        text = f"{low:g} … {high:g}"
    else:
        text = f"≤ {high:g}" if low is None else f"≥ {low:g}"
    return text if section.against is None else f"{text} against {section.against}"

"""Losses over the curriculum and transition bumps, as blocks of a page."""

from __future__ import annotations

from collections.abc import Iterable

from .blocks import Axis, Block, Boundary, Panels, Plot, Point, Prose, Series, Table, cells, figure
from .facts import BumpFacts, RunFacts
from .numbers import count, number, percent, signed

_STEPS = "optimiser step"


def course_blocks(run: RunFacts) -> Iterable[Block]:
    """The loss of every step over the whole curriculum, and what each transition did to the phase before."""
    parts = [part for part in run.losses if part.points]
    if not parts:
        yield Prose(paragraphs=("No losses are on file for these stages.",))
        return
    firsts = [part for place, part in enumerate(run.losses) if not place or run.losses[place - 1].phase != part.phase]
    boundaries = tuple(
        Boundary(x=part.start, label=part.phase if part in firsts else "", minor=part not in firsts)
        for part in run.losses
    )
    last = parts[-1]
    ends = ", ".join(
        f"{part.phase}/{part.step}{' again' if part.attempt else ''} "
        f"{number(part.points[0][1])} to {number(part.points[-1][1])}"
        for part in parts
    )
    yield Plot(
        title="What each step's own objective came to",
        told=f"Training loss from the first logged step to the last: {ends}. Objectives differ, so heights "
        "compare only within a step.",
        x=Axis(label=_STEPS, low=0, high=float(last.start + last.steps)),
        y=Axis(label="training loss, log scale", log=True),
        series=(
            *(
                Series(
                    label="objective of the step" if not place else "",
                    points=tuple(Point(x=x, y=y) for x, y in part.points),
                )
                for place, part in enumerate(parts)
            ),
            *(
                Series(
                    label="held-out loss of the phase before" if not place else "",
                    points=tuple(Point(x=x, y=y) for x, y in bump.series),
                    tone=1,
                    dash="dashed",
                )
                for place, bump in enumerate(run.bumps)
            ),
        ),
        boundaries=boundaries,
        height=360,
    )
    yield from _bumps(run.bumps)


def _bumps(bumps: tuple[BumpFacts, ...]) -> Iterable[Block]:
    if not bumps:
        yield Prose(paragraphs=("No transition was watched: bumps were not measured.",))
        return
    shown = [bump for bump in bumps if bump.height is not None]
    top = max((loss - bump.before for bump in shown for _, loss in bump.series), default=1.0)
    low = min((loss - bump.before for bump in shown for _, loss in bump.series), default=0.0)
    yield Panels(
        title="Does the loss of the phase before come back?",
        told="; ".join(f"{_name(bump)}: {_told(bump)}" for bump in bumps) + ".",
        plots=tuple(
            Plot(
                title=_name(bump),
                told=_told(bump),
                x=Axis(label="share of the step, %", low=0, high=100),
                y=Axis(label="nats above before", low=min(0.0, 1.05 * low), high=1.05 * top),
                series=(
                    Series(
                        label="held-out loss of the phase before, above its value at the transition",
                        points=tuple(
                            Point(
                                x=100 * (at - bump.start) / max(1, bump.series[-1][0] - bump.start),
                                y=loss - bump.before,
                            )
                            for at, loss in bump.series
                        ),
                        tone=1,
                    ),
                ),
                width=270,
                height=200,
            )
            for bump in shown
        ),
    )
    yield Table(
        caption="Transition bumps: held-out loss of the phase before, in nats per token",
        columns=(
            "phase and step",
            "before",
            "height",
            "height, % of before",
            "recovered after, % of the step",
            "measured",
        ),
        rows=tuple(
            (
                *cells(_name(bump)),
                figure(bump.before, number(bump.before)),
                figure(bump.height, signed(bump.height)),
                figure(bump.height, "–" if bump.height is None else percent(bump.height / bump.before, 1)),
                figure(bump.recovery, _recovery(bump)),
                figure(len(bump.series), f"{count(len(bump.series))} times"),
            )
            for bump in bumps
        ),
    )


def _name(bump: BumpFacts) -> str:
    return f"{bump.phase}/{bump.step}" + (f" (attempt {bump.attempt + 1})" if bump.attempt else "")


def _recovery(bump: BumpFacts) -> str:
    if bump.recovery is None:
        return "not within the step"
    return "never left" if bump.recovery == 0 else percent(bump.recovery)


def _told(bump: BumpFacts) -> str:
    after = {"not within the step": "not back within the step", "never left": "never beyond the tolerance"}
    back = _recovery(bump)
    return f"{signed(bump.height)} nats, {after.get(back, f'back after {back} of the step')}"

"""The course of a run: losses over the whole curriculum, and the bump at every transition."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from ..run.store import Stage
from .evidence import lines_of, whole
from .facts import BumpFacts, LossPart

_SHOWN = 150  # points of one step; a page needs no more


def course_of(stages: Mapping[str, Stage]) -> tuple[tuple[LossPart, ...], tuple[BumpFacts, ...]]:
    """The losses of every step and the bumps of every phase, on one count of optimiser steps."""
    losses: list[LossPart] = []
    bumps: list[BumpFacts] = []
    start = 0
    for phase, stage in stages.items():
        rows = lines_of(stage.metrics) if stage.metrics.is_file() else []
        for number, attempt in enumerate(stage.manifest["facts"]["attempts"]):
            for step, steps in attempt["steps"].items():
                own = [row for row in rows if row.get("at") == step and row.get("attempt") == number]
                points = whole(stage.metrics, partial(_points, own, start))
                losses.append(LossPart(phase=phase, attempt=number, step=step, start=start, steps=steps, points=points))
                if step in attempt["bump"]:
                    bumps.append(_bump(phase, number, step, start, attempt["bump"][step]))
                start += steps
    return tuple(losses), tuple(bumps)


def _points(rows: Iterable[Mapping[str, Any]], start: int) -> tuple[tuple[int, float], ...]:
    """The losses of a step; at most so many points as are shown, means over stretches of equal length."""
    every = [(start + int(row["step"]), float(row["loss"])) for row in rows if row.get("loss") is not None]
    points = [(step, loss) for step, loss in every if math.isfinite(loss)]
    stretch = max(1, math.ceil(len(points) / _SHOWN))
    parts = [points[place : place + stretch] for place in range(0, len(points), stretch)]
    return tuple((part[-1][0], round(math.fsum(loss for _, loss in part) / len(part), 5)) for part in parts)


def _bump(phase: str, attempt: int, step: str, start: int, facts: Mapping[str, Any]) -> BumpFacts:
    height = float(facts["height"])
    return BumpFacts(
        phase=phase,
        attempt=attempt,
        step=step,
        start=start,
        before=float(facts["before"]),
        height=height if math.isfinite(height) else None,
        recovery=facts["recovery"],
        series=tuple((start + int(at), float(loss)) for at, loss in facts["series"]),
    )

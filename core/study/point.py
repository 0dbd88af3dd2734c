"""One point of a study: a curriculum with its settings and a seed, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .space import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """What a finished phase says at its boundary: its place in the order, the stage, whether it came from the store,
    seconds of training, the outcome of its gates, and by criterion how far the interval's unfavourable end lies on the
    wrong side of the bound (at most 0 holds; NaN where nothing could be measured)."""

    phase: str
    number: int
    stage: str
    reused: bool
    seconds: float
    verdict: str
    margins: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRequest:
    """What is to be carried out; ``on_stage`` is called at every phase boundary and may raise to end the point."""

    row: Row | None
    parameters: Mapping[str, Any]
    seed: int
    on_stage: Callable[[StageFacts], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointOutcome:
    """What a point came to: scores of its end (None where one could not be measured) and the metrics that each is made
    of (``parts``, by score), its stages in order, every metric of its end, the verdicts of all gates there, and what
    was trained or taken from the store. ``seconds`` are those of training and measuring here, ``seconds_saved`` what
    the reused stages took when they were trained; ``notes`` say what its order made impossible."""

    scores: Mapping[str, float | None]
    stages: tuple[str, ...]
    capabilities: Mapping[str, float | None]
    verdicts: Mapping[str, int]
    seconds: float
    seconds_saved: float
    trained: int
    reused: int
    parts: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Carry = Callable[[PointRequest], PointOutcome]


class GateStopped(Exception):
    """Gates are enforced, and one ended the run after ``phase``."""

    def __init__(self, phase: str, reason: str) -> None:
        super().__init__(reason)
        self.phase = phase

"""What a report on a study states, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score that a study compares: which way is better, and the metrics that it is made of, each divided by its best
    if ``relative``, with the probes of step ``refit`` fitted anew if it names one."""

    name: str
    maximize: bool
    of: tuple[str, ...]
    relative: bool = False
    refit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFacts:
    """One training of an order: its scores, capabilities (None: not measured) and counts of verdicts."""

    seed: int
    scores: Mapping[str, float | None]
    capabilities: Mapping[str, float | None]
    verdicts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A score over seeds."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired difference from the first row; ``resolved`` says that it holds together with all others of its table."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    resolved: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFacts:
    """An order of phases with everything that was measured of it; ``valid`` where every phase has what it requires."""

    name: str
    order: str
    valid: bool
    note: str
    seeds: tuple[SeedFacts, ...]
    scores: Mapping[str, Spread]
    differences: Mapping[str, Difference]


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectFacts:
    """What it does to a score that one phase comes before another."""

    before: str
    after: str
    score: str
    value: float | None
    low: float | None
    high: float | None
    resolved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingFacts:
    """Trainings without and with shared prefixes, what was really trained, and minutes."""

    naive: int
    shared: int
    trained: int
    reused: int
    minutes: float | None
    minutes_saved: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterFacts:
    """A key that a study varies."""

    key: str
    low: float | None
    high: float | None
    log: bool
    choices: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """A trial: its values in the order of the scores, constraints by name (above 0 is broken), where it ended."""

    number: int
    state: str
    order: str
    parameters: Mapping[str, Any]
    values: tuple[float | None, ...]
    constraints: Mapping[str, float | None]
    stopped_after: str | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """Everything that a report on a study states; ``study_kind`` is orders or parameters."""

    study: str
    experiment: str
    study_kind: str
    seeds: tuple[int, ...]
    scores: tuple[Score, ...]
    rows: tuple[OrderFacts, ...]
    effects: tuple[EffectFacts, ...]
    sharing: SharingFacts | None
    parameters: tuple[ParameterFacts, ...]
    trials: tuple[TrialFacts, ...]
    best: tuple[int, ...]
    importance: Mapping[str, float]

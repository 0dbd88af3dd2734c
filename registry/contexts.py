"""What hooks see: one context object per hook, to which facts can be added without breaking anyone.

Models, tensors and trainers are typed ``Any`` here because this floor imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """One execution of an experiment. ``folder`` is the run's record, None in all processes but the main one;
    ``error`` is set in ``phasegate_on_end`` after a failure."""

    experiment: Any
    plan: Any
    folder: Path | None
    model: Any = None
    tokenizer: Any = None
    corpus: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """What training a phase did: optimiser steps, tokens seen, seconds, last logged values."""

    steps: int
    tokens: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseContext:
    """One phase of a run. ``execute`` trains it; ``result`` is set in ``phasegate_after_phase``."""

    run: RunContext
    name: str
    section: Any
    folder: Path
    parent: str | None
    execute: Callable[[], PhaseResult]
    log: Callable[[Mapping[str, float]], None]
    model: Any = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    result: PhaseResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """After one optimiser step. ``loss`` is the detached training loss on its device: reading it is the
    plugin's decision to synchronise."""

    phase: str
    step: str
    global_step: int
    model: Any
    loss: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GateContext:
    """One judged criterion of a phase, ``when`` is ``entry`` or ``completion``; raise ``GateStop`` to end the run."""

    phase: str
    when: str
    judgement: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveContext:
    """A stage checkpoint about to be committed: ``folder`` is still private to this process."""

    phase: str
    folder: Path
    is_main: bool

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
    """One execution of an experiment.

    ``experiment`` is the complete experiment, ``plan`` what the run carries out (``core/run/plan.py``), ``corpus`` the
    data with its views. ``folder`` is the run's record, None in all processes but the main one. ``error`` is what ended
    the run, in ``phasegate_on_end`` after a failure, and None otherwise.
    """

    experiment: Any
    plan: Any
    folder: Path | None
    corpus: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """What training a phase did, over all its attempts.

    ``steps`` are optimiser steps, ``tokens`` those that were trained on, ``seconds`` those that training took.
    ``metrics`` are the values that its completion gate measured last, by ``criterion:metric``.
    """

    steps: int
    tokens: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseContext:
    """One phase of a run that is trained.

    ``run`` is the context of the run, ``name`` the phase's name, ``section`` its part of the experiment, ``folder``
    where it is in the making (kept when the run is interrupted), ``parent`` the name of the phase before it, None for
    the first. ``execute`` trains and measures it, and is called exactly once. ``log`` reports numbers by name to the
    run's trackers. ``model`` and ``result`` are set in ``phasegate_after_phase``, and None before.
    """

    run: RunContext
    name: str
    section: Any
    folder: Path
    parent: str | None
    execute: Callable[[], PhaseResult]
    log: Callable[[Mapping[str, float]], None]
    model: Any = None
    result: PhaseResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """After one optimiser step.

    ``phase`` and ``step`` are the names of the phase and of its step, ``global_step`` counts the optimiser steps of
    that step from 1, ``model`` is being trained. ``loss`` is the detached training loss on its device: reading it is
    the plugin's decision to synchronise.
    """

    phase: str
    step: str
    global_step: int
    model: Any
    loss: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GateContext:
    """One judged criterion; raise ``GateStop`` to end the run.

    ``phase`` is the phase's name, ``when`` is ``entry`` or ``completion``, ``judgement`` the value with its bounds,
    verdict and reason (``evals/criteria.py``).
    """

    phase: str
    when: str
    judgement: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveContext:
    """A stage checkpoint about to be committed.

    ``phase`` is the phase's name, ``folder`` the stage in the making, still private to this process: its model lies in
    ``checkpoint`` below it. ``is_main`` says whether this process is the one that writes.
    """

    phase: str
    folder: Path
    is_main: bool

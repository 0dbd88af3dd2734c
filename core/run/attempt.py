"""One attempt at a phase: which steps it trains, from which model, and what of it is already on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ...registry.sealed import seal, unseal
from ..config.conversions import CONVERSIONS
from ..config.schema import PhaseSection, StepSection
from .policy import Action, Decision
from .step import StepResult

Kind = Action | str

#: What was decided after an attempt, the outcome of its gates, and what they read of the corpus.
Decided: TypeAlias = tuple[Decision, str, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Attempt ``number`` of a phase: the first training, an extension of it, or a repeat after a roll-back."""

    number: int
    kind: str
    steps: Mapping[str, StepSection]
    folder: Path

    def step_folder(self, name: str) -> Path:
        """Return where a step keeps its trainer checkpoints, its model and its record."""
        return self.folder / name

    def last_folder(self, name: str) -> Path:
        """Return the same of the latest attempt up to this one that carried the step out."""
        numbers = range(self.number, -1, -1)
        folders = [self.folder.with_name(f"attempt-{number}") / name for number in numbers]
        return next((folder for folder in folders if folder.is_dir()), self.step_folder(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A step that is about to be carried out, or was found ``finished``, and the attempt that it belongs to."""

    attempt: Attempt
    step: str
    finished: bool


def first_attempt(section: PhaseSection, work: Path) -> Attempt:
    """Return the first training of a phase."""
    return Attempt(number=0, kind="train", steps=section.steps, folder=work / "attempt-0")


def extended_steps(section: PhaseSection) -> tuple[str, ...]:
    """Return the steps that an extension trains on: those after the last one that made another model of the one before,
    and from the last one on that began with a new model. What was trained before, to compare with, stays as it is."""
    names = list(section.steps)
    first = 0
    for place, name in enumerate(names):
        if section.steps[name].fresh is not None:
            first = place
        elif section.steps[name].objective in CONVERSIONS:
            first = place + 1
    return tuple(names[first:])


def next_attempt(section: PhaseSection, last: Attempt, action: Action, work: Path) -> Attempt:
    """Return what follows an ``extend`` (more steps from where it ended) or a ``rollback`` (all steps again from the
    parent), both at half the learning rate of the attempt before."""
    number, extends = last.number + 1, action == "extend"
    share = section.policy.extend_by if extends else 1.0
    steps = {
        name: replace(
            section.steps[name],
            steps=max(1, round(section.steps[name].steps * share)),
            learning_rate=section.steps[name].learning_rate / 2**number,
            fresh=None if extends else section.steps[name].fresh,
        )
        for name in (extended_steps(section) if extends else section.steps)
    }
    return Attempt(number=number, kind=action, steps=steps, folder=work / f"attempt-{number}")


def save_step(folder: Path, result: StepResult) -> None:
    """Write the record of a finished step; it comes last, so its presence means the step's model is whole."""
    seal(folder / "DONE.json", asdict(result), _files(folder / "model"))


def load_step(folder: Path) -> StepResult | None:
    """Return the record of a finished step, or None when it has not finished; ``StoreError`` where its model is not
    what the step left."""
    path = folder / "DONE.json"
    if not path.exists():
        return None
    return StepResult(
        **unseal(
            path,
            f"the finished step '{folder.name}' of the unfinished stage {folder.parents[1].name}",
            f"move {folder} away and run again to train the step anew",
        )
    )


def save_decision(attempt: Attempt, decision: Decision, outcome: str, read: Iterable[str]) -> None:
    """Write what was decided after an attempt; it comes last, so its presence means the evidence is whole."""
    facts = {"action": decision.action, "reason": decision.reason, "outcome": outcome, "read": sorted(read)}
    seal(attempt.folder / "decision.json", facts, _files(attempt.folder / "evidence"))


def load_decision(attempt: Attempt) -> Decided | None:
    """Return what was decided after an attempt; None when it is still open and ``StoreError`` where the evidence is not
    what was measured."""
    path = attempt.folder / "decision.json"
    if not path.exists():
        return None
    row = unseal(
        path,
        f"the evidence of attempt {attempt.number} at the unfinished stage {attempt.folder.parent.name}",
        f"move {path} away and run again to measure anew",
    )
    return Decision(action=row["action"], reason=row["reason"]), row["outcome"], frozenset(row["read"])


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def history_rows(phase: str, attempts: Sequence[tuple[Attempt, Mapping[str, StepResult]]]) -> list[dict[str, Any]]:
    """Return every log row of a phase with its phase, attempt and step, without values that a resume would change."""
    rows = []
    for attempt, results in attempts:
        for step, result in results.items():
            for row in result.history:
                kept = {key: value for key, value in row.items() if not depends_on_the_process(key)}
                rows.append({"phase": phase, "attempt": attempt.number, "at": step, **kept})
    return rows


def depends_on_the_process(key: str) -> bool:
    """Say whether a logged value depends on the machine's speed, or is counted from the last start of the process."""
    return key.endswith(("runtime", "per_second")) or key in {"num_tokens", "total_flos", "train_loss"}

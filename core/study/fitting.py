"""Fitting a curriculum to an order that it was not written for: what can no longer be asked is taken out, and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.conversions import CAUSAL
from ..config.schema import CriterionSection, Experiment, PhaseSection, StepSection

_SPOKEN = ("sft", "contrast")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One key that an order makes impossible, the value that it gets, and why."""

    key: str
    value: Any
    reason: str

    def override(self) -> str:
        """The change as ``--set`` says it."""
        return f"{self.key}={json.dumps(self.value)}"


def fitted(experiment: Experiment, order: Sequence[str], dialogue: Callable[[str], bool]) -> tuple[Change, ...]:
    """Return what has to change in a complete experiment for its phases to run in ``order``.

    Replay of text or dialogues that nothing earlier has taught is left out (a step then replays what there is), and so
    are criteria against a stage that does not come before. ``dialogue`` says whether the rows of a view are dialogues.
    """
    changes: list[Change] = []
    earlier: list[StepSection] = []
    before: list[str] = []
    for name in order:
        phase = experiment.phases[name]
        for step, section in phase.steps.items():
            changes += _replay(f"phases.{name}.steps.{step}.replay", section, earlier, dialogue)
            earlier.append(section)
        changes += _comparisons(name, phase, before)
        before += [name, *(f"{name}/{step}" for step in phase.steps)]
    return tuple(changes)


def _replay(
    key: str, step: StepSection, earlier: Sequence[StepSection], dialogue: Callable[[str], bool]
) -> list[Change]:
    replay = step.replay
    text = any(one.objective in CAUSAL for one in earlier)
    spoken = any(
        one.objective in _SPOKEN and dialogue(one.view) and (not replay.views or one.view in replay.views)
        for one in earlier
    )
    if not replay.rows:
        return []
    if not text and not spoken:
        reason = "nothing before it has taught anything to replay"
        empty: dict[str, Any] = {"rows": 0, "weight": 0.0, "chat": 0.0, "sequence_length": None}
        empty |= {"views": []} if replay.views else {}
        return [Change(key=f"{key}.{name}", value=value, reason=reason) for name, value in empty.items()]
    if replay.chat > 0 and not spoken:
        reason = "no step before it has taught dialogues to replay"
        said = {"chat": 0.0, **({"views": []} if replay.views else {})}
        return [Change(key=f"{key}.{name}", value=value, reason=reason) for name, value in said.items()]
    if replay.chat < 1 and not text:
        return [Change(key=f"{key}.chat", value=1.0, reason="no step before it has trained on text to replay")]
    return []


def _comparisons(name: str, phase: PhaseSection, before: Sequence[str]) -> list[Change]:
    own = {label for step in list(phase.steps)[:-1] for label in (f"./{step}", f"{name}/{step}")}
    found: list[Change] = []
    for kind, criteria in (("entry", phase.entry), ("gates", phase.gates)):
        for label, criterion in criteria.items():
            if _lacks(criterion, before, own):
                reason = f"there is no stage '{criterion.against}' before it"
                found.append(Change(key=f"phases.{name}.{kind}.{label}", value=None, reason=reason))
    return found


def _lacks(criterion: CriterionSection, before: Sequence[str], own: set[str]) -> bool:
    against = criterion.against
    if against is None or against in own:
        return False
    return not before if against == "parent" else against not in before

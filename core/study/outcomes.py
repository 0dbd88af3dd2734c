"""What a trial keeps of its seeds: each seed's outcome and margins as JSON in the trial's attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .point import PointOutcome

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Attributes of a trial.
COPY_OF = "copy_of"  # the trial of the same point whose values it has
MARGINS = "margins"  # the worst margin over seeds of each criterion, None where one could not be evaluated
ORDER_OF = "order"  # the phases that it ran, as a>b>c
ROW = "row"  # the name of its row
SKIPPED_FOR = "skipped_for"  # the trial whose gate ended the same beginning
STOPPED_AFTER = "stopped_after"  # the phase after which it was ended

_SEED = "seed:"
NOT_EVALUATED = 1.0  # what counts as the margin of a criterion that could not be evaluated: never a pass


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedOutcome:
    """What one seed of a trial came to; ``margins`` by ``phase:criterion`` as stages report them, None for NaN."""

    outcome: PointOutcome
    margins: Mapping[str, float | None] = field(default_factory=dict)


def seed_key(seed: int) -> str:
    """The name of the attribute that holds this seed."""
    return f"{_SEED}{seed}"


def to_json(outcome: PointOutcome, margins: Mapping[str, float]) -> dict[str, Any]:
    """An outcome and its margins without NaN and infinities, which no dashboard can read: None stands for them."""
    plain = _finite({"outcome": asdict(outcome), "margins": dict(margins)})
    assert isinstance(plain, dict)
    return plain


def from_json(value: Mapping[str, Any]) -> SeedOutcome:
    """What ``to_json`` wrote; keys of a later version are left out."""
    known = {one.name for one in fields(PointOutcome)}
    given = {key: item for key, item in value["outcome"].items() if key in known}
    for name in ("stages", "notes"):
        given[name] = tuple(given.get(name, ()))
    return SeedOutcome(outcome=PointOutcome(**given), margins=dict(value["margins"]))


def outcomes_of(trial: FrozenTrial) -> dict[int, SeedOutcome]:
    """The seeds that a trial has finished, by seed."""
    found = {
        int(key.removeprefix(_SEED)): from_json(value)
        for key, value in trial.user_attrs.items()
        if key.startswith(_SEED)
    }
    return dict(sorted(found.items()))


def mean_scores(outcomes: Mapping[int, SeedOutcome], names: tuple[str, ...]) -> tuple[list[float], str]:
    """The mean over seeds of each score, and in words which one a seed lacks ("" where none does)."""
    values: list[float] = []
    for name in names:
        given = {seed: one.outcome.scores.get(name) for seed, one in outcomes.items()}
        lacking = [seed for seed, value in given.items() if value is None or not math.isfinite(value)]
        if lacking:
            return [], f"seed {lacking[0]} has no value of the score '{name}'"
        numbers = [value for value in given.values() if value is not None]
        values.append(math.fsum(numbers) / len(numbers))
    return values, ""


def worse(margins: Mapping[str, float | None], more: Mapping[str, float]) -> dict[str, float | None]:
    """The worse margin of each criterion; one that could not be evaluated once (None) stays so."""
    found = dict(margins)
    for name, margin in more.items():
        last = found.get(name, -math.inf)
        found[name] = None if last is None or not math.isfinite(margin) else max(last, margin)
    return found


def constraints_of(margins: Mapping[str, float | None]) -> dict[str, float]:
    """Margins as Optuna takes constraints: at most 0 holds, and what could not be evaluated never does."""
    return {name: NOT_EVALUATED if margin is None else margin for name, margin in margins.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

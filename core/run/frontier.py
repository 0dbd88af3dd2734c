"""The safety-helpfulness frontier: one training of a safety phase per weight of over-refusal, and what it dominates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evals.estimates import of_value
from ...evals.measurement import Measurement
from ...evals.records import read_measurements
from ...registry.errors import ConfigError, DataError
from ...registry.suggest import did_you_mean, listing
from ..config.schema import CriterionSection, Experiment, PhaseSection
from .gates import gate_key
from .seeds import derive
from .store import Stage

if TYPE_CHECKING:
    import numpy.typing as npt

BETAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
CRITERION = "frontier"
_LOSS, _GATE = "over-refusal", "refusal"
_DRAWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of prompts between one-sided bounds at 95 %."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One training: its beta, legitimate prompts refused, harmful prompts not refused, legitimate prompts answered, and
    the stage that holds it; ``front`` says that no other point is at least as good in both of the first two and better
    in one."""

    beta: float
    over_refusal: Share
    compliance: Share
    answered: Share
    stage: str
    front: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """Points by beta, and the area that they dominate in the unit square of (over-refusal, compliance): the share of it
    that is worse in both than some point; 1 is perfect, and refusing all or complying with all alone is 0. The bounds
    are one-sided at 95 % over the prompts (percentile bootstrap, the same prompts for all points); how much another
    seed of training would move it they do not say."""

    phase: str
    points: tuple[Point, ...]
    area: float
    area_low: float
    area_high: float

    def record(self) -> dict[str, Any]:
        """Return the frontier as JSON data."""
        return asdict(self)


def overrides_for(experiment: Experiment, phase: str, beta: float) -> list[str]:
    """Return what turns a complete experiment into one point of its frontier, as ``--set`` says it.

    The run ends with ``phase``, in which every over-refusal term has the weight ``beta``. Nothing but refusals is
    measured there and nothing can stop or extend it; steps that train no weights are left out, since they change no
    answer. Raises ``ConfigError`` where there is no such phase or no such term.
    """
    if phase not in experiment.phases:
        names = list(experiment.phases)
        raise ConfigError(
            f"the experiment has no phase '{phase}' to draw a frontier of.{did_you_mean(phase, names)} "
            f"Phases: {listing(names)}."
        )
    section = experiment.phases[phase]
    terms = [
        (step, label)
        for step, work in section.steps.items()
        for label, loss in work.losses.items()
        if loss.use.rpartition(":")[2] == _LOSS
    ]
    if not terms:
        raise ConfigError(
            f"phase {phase} has no {_LOSS} term, whose weight is beta; give a contrast step of it losses.{_LOSS}."
        )
    names = list(experiment.phases)
    gates: dict[str, Any] = {**dict.fromkeys(section.gates), CRITERION: _criterion(section)}
    changes: dict[str, Any] = {
        f"phases.{phase}.policy": {"on_fail": "advance", "on_undecided": "advance"},
        f"phases.{phase}.entry": dict.fromkeys(section.entry),
        f"phases.{phase}.gates": gates,
        **{f"phases.{phase}.steps.{step}.losses.{label}.weight": beta for step, label in terms},
        **{f"phases.{phase}.steps.{step}": None for step in left_out(section)},
    }
    order = f"order={'>'.join(names[: names.index(phase) + 1])}"
    return [order, *(f"{key}={json.dumps(value)}" for key, value in changes.items())]


def left_out(section: PhaseSection) -> list[str]:
    """Return the steps of a phase that train no weights."""
    return [name for name, work in section.steps.items() if work.objective in {"anchor", "draft", "probes"}]


def _criterion(section: PhaseSection) -> dict[str, Any]:
    """The phase's own way of measuring refusals, or the gate's defaults, with a bound that everything meets."""
    own = next((gate for gate in section.gates.values() if gate.use.rpartition(":")[2] == _GATE), None)
    said = {} if own is None else {"documents": own.documents, "options": dict(own.options)}
    return {
        "use": _GATE if own is None else own.use,
        "metric": "over_refused",
        "at_most": 1.0,
        **{key: value for key, value in said.items() if value},
    }


def measured_in(stage: Stage, criterion: CriterionSection) -> Mapping[str, Measurement]:
    """Return what the refusal gate measured at the end of a stage; ``DataError`` where it could not."""
    found = read_measurements(stage.evidence / f"{gate_key(criterion)}.json")
    reasons = sorted({str(one.missing) for one in found.values() if one.missing})
    if reasons:
        raise DataError(f"refusals could not be measured in stage {stage.name}: {'; '.join(reasons)}.")
    return found


def frontier_of(phase: str, found: Mapping[float, tuple[Stage, Mapping[str, Measurement]]], seed: int) -> Frontier:
    """Return the frontier of what was measured at each beta."""
    betas = sorted(found)
    sides = [(found[beta][1]["over_refused"], complied(found[beta][1])) for beta in betas]
    values = [(over.value, harm.value) for over, harm in sides]
    points = tuple(
        Point(
            beta=beta,
            over_refusal=_share(over),
            compliance=_share(harm),
            answered=_share(found[beta][1]["answered"]),
            stage=found[beta][0].name,
            front=not any(_dominates(other, (over.value, harm.value)) for other in values),
        )
        for beta, (over, harm) in zip(betas, sides, strict=True)
    )
    low, high = _area_bounds(sides, derive(seed, "frontier"))
    return Frontier(phase=phase, points=points, area=dominated_area(values), area_low=low, area_high=high)


def complied(found: Mapping[str, Measurement]) -> Measurement:
    """Return the share of harmful prompts of all kinds together that were not refused."""
    parts = [measured for name, measured in found.items() if name.startswith("complied/")]
    values = {key: value for part in parts for key, value in part.per_document.items()}
    return Measurement(
        metric="complied",
        value=sum(values.values()) / len(values),
        n=len(values),
        kind="proportion",
        per_document=values,
    )


def dominated_area(points: Sequence[tuple[float, float]]) -> float:
    """Return the area of the part of the unit square that some point is at least as low as in both coordinates (the
    hypervolume against the corner (1, 1): Zitzler and Thiele 1999, IEEE Trans. Evol. Comput. 3:257)."""
    area, above = 0.0, 1.0
    for across, up in sorted(points):
        if up < above:
            area += (1.0 - across) * (above - up)
            above = up
    return area


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def _share(measured: Measurement) -> Share:
    estimate = of_value(measured, 0.95)
    return Share(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)


def _area_bounds(sides: Sequence[tuple[Measurement, Measurement]], seed: int) -> tuple[float, float]:
    """Bounds by drawing prompts again, of either side apart, the same ones for every point."""
    rng = np.random.default_rng(seed)
    drawn = [_resampled([pair[side] for pair in sides], rng) for side in (0, 1)]
    areas = [dominated_area(list(zip(over, harm, strict=True))) for over, harm in zip(*drawn, strict=True)]
    low, high = np.percentile(areas, [5.0, 95.0])
    return float(low), float(high)


def _resampled(measured: Sequence[Measurement], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Means of every measurement over drawn documents, shape (draws, points)."""
    shared = sorted(set.intersection(*(set(one.per_document) for one in measured)))
    values = np.asarray([[one.per_document[key] for key in shared] for one in measured])  # shape: (points, documents)
    counts = rng.multinomial(len(shared), np.full(len(shared), 1 / len(shared)), size=_DRAWS)
    return np.asarray(counts @ values.T / len(shared), dtype=np.float64)

"""The end of a run: every gate of the curriculum judged on the model that the run ends with, and its scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..config.schema import CriterionSection, Experiment, MetricSection, ScoreSection

if TYPE_CHECKING:
    from ...evals.criteria import Judgement
    from ...evals.measurement import Measurement
    from ..run.assessing import Assessor, Measured, Refit
    from ..run.store import Stage

NOT_EVALUATED = "not evaluated"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Scores, metrics and verdicts of the end of one run; None is a metric that could not be measured."""

    scores: Mapping[str, float | None]
    parts: Mapping[str, Mapping[str, float | None]]
    capabilities: Mapping[str, float | None]
    verdicts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Measures the last of ``stages`` by every gate of the ``whole`` curriculum, also of phases that the run skipped.

    A comparison is judged where both sides exist in this run: with the stage before its phase, or a step of it. What a
    gate reads off the log of a phase (a plateau) is not evaluated at the end.
    """

    assessor: Assessor
    whole: Experiment
    stages: Sequence[tuple[str, Stage]]
    scores: Mapping[str, ScoreSection]

    @property
    def last(self) -> Stage:
        """The stage that the run ends with."""
        return self.stages[-1][1]

    def measured(self) -> End:
        """Return what the end comes to."""
        judgements = list(self._judged())
        counts = Counter(
            NOT_EVALUATED if judgement.n == 0 and judgement.verdict == "undecided" else judgement.verdict
            for judgement in judgements
        )
        parts = {name: self._parts(section) for name, section in self.scores.items()}
        return End(
            scores={name: _mean(found) for name, found in parts.items()},
            parts=parts,
            capabilities=self._capabilities(),
            verdicts={key: counts.get(key, 0) for key in ("pass", "fail", "undecided", NOT_EVALUATED)},
        )

    def _parts(self, section: ScoreSection) -> dict[str, float | None]:
        refit = refit_of(self.whole, section)
        found = {
            name: usable(self.assessor.measure(self.last, metric, refit=refit).get(metric.metric))
            for name, metric in section.of.items()
        }
        return {name: None if measured is None else measured.value for name, measured in found.items()}

    def _judged(self) -> Iterator[Judgement]:
        from ...evals.criteria import judge
        from ..run.gates import criterion_of, gate_key

        seen: set[tuple[Any, ...]] = set()
        for phase, section in self.whole.phases.items():
            for name, criterion in section.gates.items():
                against = self._baseline(phase, criterion)
                if criterion.against is not None and against is None:
                    continue
                bounds = (criterion.metric, criterion.skip, criterion.at_least, criterion.at_most)
                side = (criterion.statistic, against[0].name if against else None, against[1] if against else None)
                identity = (gate_key(criterion), *bounds, *side)
                if identity in seen:
                    continue
                seen.add(identity)
                baseline: Measured | None = None
                if against is not None:
                    baseline = self.assessor.measure(against[0], criterion, step=against[1])
                yield from judge(criterion_of(name, criterion), self.assessor.measure(self.last, criterion), baseline)

    def _baseline(self, phase: str, criterion: CriterionSection) -> tuple[Stage, str | None] | None:
        """The stage and step that a criterion of ``phase`` is held against, None where this run has none."""
        names = [name for name, _ in self.stages]
        against = criterion.against
        if against is None or phase not in names:
            return None
        place = names.index(phase)
        if against == "parent":
            return (self.stages[place - 1][1], None) if place else None
        if against.startswith("./"):
            return self.stages[place][1], against[2:]
        name, _, step = against.partition("/")
        return (self.stages[names.index(name)][1], step or None) if name in names[:place] else None

    def _capabilities(self) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for label, section in capabilities_of(self.whole).items():
            measured = self.assessor.measure(self.last, section)
            names = [name for name in measured if fnmatchcase(name, section.metric)]
            for name in names:
                found[label.replace(section.metric, name)] = measured[name].value if usable(measured[name]) else None
            if not names:
                found[label] = None  # a gate without data says so of its main metrics only
        return found


def _mean(parts: Mapping[str, float | None]) -> float | None:
    values = [value for value in parts.values() if value is not None]
    return math.fsum(values) / len(values) if values and len(values) == len(parts) else None


def capabilities_of(experiment: Experiment) -> dict[str, CriterionSection | MetricSection]:
    """Return every metric that a gate of the experiment asks for, once each, by gate and metric; options tell apart
    metrics that would have one name."""
    from ..run.gates import gate_key

    named: dict[str, dict[str, CriterionSection]] = {}
    for phase in experiment.phases.values():
        for criterion in phase.gates.values():
            named.setdefault(f"{criterion.use} {criterion.metric}", {}).setdefault(gate_key(criterion), criterion)
    found: dict[str, CriterionSection | MetricSection] = {}
    for label, sections in named.items():
        for criterion in sections.values():
            said = ", ".join(f"{key}={value}" for key, value in sorted(criterion.options.items()))
            found[label if len(sections) == 1 else f"{label} ({said})" if said else label] = criterion
    return found


def refit_of(experiment: Experiment, section: ScoreSection) -> Refit | None:
    """Return the probes step that a score asks for, as the experiment has it."""
    from ..run.assessing import Refit

    if section.refit is None:
        return None
    phase, _, step = section.refit.partition("/")
    return Refit(phase=phase, step=step, section=experiment.phases[phase].steps[step])


def usable(measured: Measurement | None) -> Measurement | None:
    """Return a measurement that has a number, and None for one that has not."""
    if measured is None or measured.missing is not None or not math.isfinite(measured.value):
        return None
    return measured

"""Measuring and judging the criteria of a phase: each gate once per model, baselines paired on the same documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...evals.context import MeasureContext
from ...evals.criteria import Criterion, Judgement, judge
from ...evals.measurement import Measurement
from ..config.schema import CriterionSection
from .fingerprint import canonical
from .policy import Outcome

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...registry.catalog import Registry

ModelLoader = Callable[[str], "PreTrainedModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """Every judgement of one suite, and the measurements that they stand on."""

    judgements: tuple[Judgement, ...]
    measurements: Mapping[str, Mapping[str, Measurement]]

    @property
    def outcome(self) -> Outcome:
        """Return the worst verdict: fail before undecided before pass."""
        verdicts = {judgement.verdict for judgement in self.judgements}
        if "fail" in verdicts:
            return "fail"
        return "undecided" if "undecided" in verdicts else "pass"


class GateSuite:
    """Runs gates for one run; baselines are measured once per stage and reused by every criterion."""

    def __init__(self, registry: Registry, context: MeasureContext) -> None:
        self._registry = registry
        self._context = context
        self._baselines: dict[tuple[str, str], Mapping[str, Measurement]] = {}

    def measure(
        self,
        criteria: Mapping[str, CriterionSection],
        model: PreTrainedModel,
        history: Sequence[Mapping[str, float]],
        folder: Path,
        baseline: ModelLoader,
    ) -> GateReport:
        """Measure ``model`` and judge every criterion; ``baseline`` loads the stage that a criterion is held against.

        Evidence (packs, per-document values) goes below ``folder``.
        """
        context = replace(self._context, model=model, history=history, folder=folder)
        measured = self._measure_all(criteria.values(), context)
        judgements: list[Judgement] = []
        for name, section in criteria.items():
            key = gate_key(section)
            held_against = None
            if section.against is not None:
                held_against = self._baseline(section, key, context, baseline)
            judgements.extend(judge(criterion_of(name, section), measured[key], held_against))
        return GateReport(judgements=tuple(judgements), measurements=measured)

    def _measure_all(
        self, sections: Iterable[CriterionSection], context: MeasureContext
    ) -> dict[str, Mapping[str, Measurement]]:
        measured: dict[str, Mapping[str, Measurement]] = {}
        for section in sections:
            key = gate_key(section)
            if key not in measured:
                measured[key] = self._run(section, context, key)
        return measured

    def _run(self, section: CriterionSection, context: MeasureContext, key: str) -> Mapping[str, Measurement]:
        gate = self._registry.build("gate", section.use, section.options)
        folder = context.folder / key.split(" ")[0]
        folder.mkdir(parents=True, exist_ok=True)
        measured: Mapping[str, Measurement] = gate.measure(  # type: ignore[attr-defined]
            replace(context, documents=section.documents, folder=folder)
        )
        return measured

    def _baseline(
        self, section: CriterionSection, key: str, context: MeasureContext, load: ModelLoader
    ) -> Mapping[str, Measurement]:
        assert section.against is not None
        known = (section.against, key)
        if known not in self._baselines:
            folder = context.folder / "against" / section.against.replace("/", "_").replace(".", "here")
            self._baselines[known] = self._run(
                section, replace(context, model=load(section.against), history=(), folder=folder), key
            )
        return self._baselines[known]

    def forget_baselines(self) -> None:
        """Drop measured baselines; their names mean other models in the next phase."""
        self._baselines.clear()


def gate_key(section: CriterionSection) -> str:
    """Return one key for all criteria that one measurement serves: gate, options, number of documents."""
    options = canonical({"options": dict(section.options), "documents": section.documents})
    return f"{section.use} {options}"


def criterion_of(name: str, section: CriterionSection) -> Criterion:
    """Return the criterion of the measuring floor for a section of the experiment."""
    return Criterion(
        name=name,
        metric=section.metric,
        skip=section.skip,
        at_least=section.at_least,
        at_most=section.at_most,
        statistic=section.statistic,
        confidence=section.confidence,
        paper=section.paper,
    )


def write_evidence(report: GateReport, folder: Path) -> None:
    """Write verdicts and measurements (per-document values included) as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    verdicts: list[dict[str, Any]] = [asdict(judgement) for judgement in report.judgements]
    (folder / "verdicts.json").write_text(json.dumps(verdicts, indent=1), encoding="utf-8")
    measured = {
        key: {metric: asdict(measurement) for metric, measurement in metrics.items()}
        for key, metrics in report.measurements.items()
    }
    (folder / "measurements.json").write_text(json.dumps(measured), encoding="utf-8")


def read_verdicts(folder: Path) -> tuple[Judgement, ...]:
    """Read back what ``write_evidence`` wrote."""
    rows = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    return tuple(Judgement(**row) for row in rows)

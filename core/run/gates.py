"""Measuring and judging the criteria of a phase: each gate once per model, baselines on the same documents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...evals.context import MeasureContext
from ...evals.criteria import Criterion, Judgement, combined, judge
from ...evals.measurement import Measurement
from ...evals.records import read_measurements, write_judgements, write_measurements
from ..config.schema import CriterionSection, MetricSection
from .fingerprint import canonical
from .policy import Outcome
from .seeds import derive

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...registry.registry import Registry
    from .step import Workshop

Measured = Mapping[str, Measurement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A model to compare with: how to load it, and the evidence that may already hold its measurements."""

    load: Callable[[], PreTrainedModel]
    evidence: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """Every judgement of one suite, and the measurements that they stand on."""

    judgements: tuple[Judgement, ...]
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSuite:
    """Measures and judges a set of criteria on the model in ``context``; evidence goes below its folder."""

    registry: Registry
    context: MeasureContext
    baseline: Callable[[str], Baseline]
    known: Path | None = None
    measuring: Callable[[str], None] = lambda criterion: None

    def run(self, criteria: Mapping[str, CriterionSection], judged: Callable[[Judgement], None]) -> GateReport:
        """Judge every criterion, tell ``measuring`` before and ``judged`` after each; write measurements and verdicts.

        Criteria with the same gate, options and document count share one measurement. A baseline that was measured
        the same way at the end of its own phase is read from there, and so is the model itself from ``known``.
        """
        measured: dict[str, Measured] = {}
        baselines: dict[tuple[str, str], Measured] = {}
        judgements: list[Judgement] = []
        for name, section in criteria.items():
            self.measuring(name)
            key = gate_key(section)
            if key not in measured:
                measured[key] = self._known(key) or self._measure(section, self.context, key)
                write_measurements(self.context.folder / f"{key}.json", measured[key])
            against = None
            if section.against is not None:
                pair = (section.against, key)
                if pair not in baselines:
                    baselines[pair] = self._measure_baseline(section, section.against, key)
                against = baselines[pair]
            for judgement in judge(criterion_of(name, section), measured[key], against):
                judgements.append(judgement)
                judged(judgement)
        write_judgements(self.context.folder / "verdicts.json", judgements)
        return GateReport(judgements=tuple(judgements), outcome=combined(judgements))

    def _measure(self, section: CriterionSection, context: MeasureContext, key: str) -> Measured:
        folder = context.folder / key
        folder.mkdir(parents=True, exist_ok=True)
        gate = self.registry.build("gate", section.use, section.options)
        measured: Measured = gate.measure(replace(context, documents=section.documents, folder=folder))
        return measured

    def _known(self, key: str) -> Measured | None:
        if self.known is None or not (self.known / f"{key}.json").exists():
            return None
        return read_measurements(self.known / f"{key}.json")

    def _measure_baseline(self, section: CriterionSection, name: str, key: str) -> Measured:
        baseline = self.baseline(name)
        if baseline.evidence is not None and (baseline.evidence / f"{key}.json").exists():
            return read_measurements(baseline.evidence / f"{key}.json")
        folder = self.context.folder / ("against-" + name.removeprefix("./").replace("/", "-"))
        folder.mkdir(parents=True, exist_ok=True)
        context = replace(self.context, model=baseline.load(), history=(), folder=folder)
        measured = self._measure(section, context, key)
        write_measurements(folder / f"{key}.json", measured)
        return measured


def context_of(
    shop: Workshop, model: PreTrainedModel, folder: Path, history: tuple[Mapping[str, float], ...] = ()
) -> MeasureContext:
    """Return what a gate may look at while it measures ``model`` in a phase with this workshop."""
    from ..model.parameters import routers_of

    return MeasureContext(
        model=model,
        tokenizer=shop.tokenizer,
        view=shop.corpus.view,
        domains=shop.corpus.domains,
        folder=folder,
        root=shop.corpus.root,
        routers=routers_of,
        seed=derive(shop.experiment.seed, "gates"),
        batch_size=shop.experiment.run.eval_batch_size,
        history=history,
        length=shop.length,
    )


def gate_key(section: CriterionSection | MetricSection) -> str:
    """Return one file name for all criteria that one measurement serves: gate, options, number of documents."""
    options = canonical({"options": dict(section.options), "documents": section.documents})
    return f"{section.use.replace(':', '-')}-{hashlib.sha256(options.encode()).hexdigest()[:8]}"


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
    )

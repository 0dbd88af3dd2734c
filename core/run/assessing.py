"""Measuring a committed stage beyond what its own phase asked: kept beside the stages, measured once."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...evals.context import MeasureContext
from ...evals.measurement import Measurement
from ...evals.records import read_measurements, write_measurements
from ..config.schema import BumpSection, CriterionSection, MetricSection, StepSection
from .fingerprint import digest
from .gates import gate_key
from .seeds import derive
from .step import StepOrder, Workshop
from .store import Stage, Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .bench import Bench
    from .plan import Plan

Measured = Mapping[str, Measurement]
Section = CriterionSection | MetricSection

FOLDER = "assessed"
_NOT_MEASUREMENTS = {"changes.json", "verdicts.json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """A probes step that is carried out on the model before it is measured, and where the experiment has it."""

    phase: str
    step: str
    section: StepSection

    @property
    def label(self) -> str:
        """The folder of what is measured after it: another section is another refit."""
        return f"refit-{digest(self.section).partition(':')[2][:8]}"


@dataclass(slots=True, kw_only=True)
class Assessor:
    """Measures stages of one plan's data and components with any gate, and keeps what came out.

    A stage stays as it was committed: what is measured later lies in ``assessed/<stage>/`` of the store, by gate,
    options, number of documents and the gate's revision. Another process may measure the same at the same time; both
    get the same values.
    """

    plan: Plan
    bench: Bench
    _held: tuple[Any, PreTrainedModel] | None = field(default=None, init=False)

    def measure(
        self, stage: Stage, section: Section, *, refit: Refit | None = None, step: str | None = None
    ) -> Measured:
        """Return what a gate measures of a stage: of its checkpoint, of an earlier ``step`` of its phase, or of its
        checkpoint with probes fitted anew. What the stage's own evidence or an earlier call has is read."""
        revision = self.plan.registry.get("gate", section.use).component.revision
        path = evidence_file(self.bench.store, stage, section, revision, refit=refit, step=step)
        if path.is_file():
            return read_measurements(path)
        folder = path.parent
        self.bench.interruption.check()
        model = self._model(stage, refit, step)
        work = folder / f".work-{os.getpid()}-{secrets.token_hex(4)}"
        work.mkdir(parents=True)
        try:
            gate = self.plan.registry.build("gate", section.use, section.options)
            measured: Measured = gate.measure(self._context(model, stage, work, section.documents))
            write_measurements(work / path.name, measured)
            (work / path.name).rename(path)
            with suppress(OSError):  # another process was first, and left the same
                work.rename(folder / gate_key(section))
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return measured

    def _model(self, stage: Stage, refit: Refit | None, step: str | None) -> PreTrainedModel:
        from ..model.loading import load_model

        wanted = (stage.name, refit, step)
        if self._held is None or self._held[0] != wanted:
            self._held = None
            self.bench.store.verify(stage)
            last = step is None or step == stage.manifest["facts"]["last_step"]
            model = load_model(stage.checkpoint if last else stage.folder / "steps" / str(step), self.plan.registry)
            if refit is not None:
                self._fit(model, stage, refit)
            self._held = (wanted, model)
        return self._held[1]

    def _fit(self, model: PreTrainedModel, stage: Stage, refit: Refit) -> None:
        from ..model.tokenizer import load_tokenizer
        from .probing import fit_probes

        experiment = self.plan.experiment
        assert experiment.data.sequence_length is not None
        shop = Workshop(
            experiment=experiment,
            registry=self.plan.registry,
            corpus=self.plan.corpus,
            tokenizer=load_tokenizer(stage.checkpoint, experiment.tokenizer.chat_template),
            length=experiment.data.sequence_length,
            interruption=self.bench.interruption,
            callbacks=lambda step, tokens: (),
            plugins=self.plan.plugins,
        )
        order = StepOrder(
            phase=refit.phase,
            name=refit.step,
            section=refit.section,
            earlier=(),
            identity=f"{stage.digest}/{refit.label}",
            folder=self.bench.store.root,
            bump=BumpSection(),
        )
        fit_probes(shop, order, model)

    def _context(self, model: PreTrainedModel, stage: Stage, folder: Path, documents: int | None) -> MeasureContext:
        from ..model.parameters import routers_of
        from ..model.tokenizer import load_tokenizer

        experiment = self.plan.experiment
        return MeasureContext(
            model=model,
            tokenizer=load_tokenizer(stage.checkpoint, experiment.tokenizer.chat_template),
            view=self.plan.corpus.view,
            domains=self.plan.corpus.domains,
            folder=folder,
            root=self.plan.corpus.root,
            routers=routers_of,
            documents=documents,
            seed=derive(experiment.seed, "gates"),
            batch_size=experiment.run.eval_batch_size,
            length=experiment.data.sequence_length,
        )


def evidence_file(
    store: Store, stage: Stage, section: Section, revision: int, *, refit: Refit | None = None, step: str | None = None
) -> Path:
    """Return the file that holds, or is to hold, what a gate of this revision measures of a stage: its own evidence
    where that has it, else one beside the stages."""
    key = gate_key(section)
    own = (stage.evidence if step is None else stage.evidence / f"against-{step}") / f"{key}.json"
    if refit is None and own.is_file():
        return own
    part = refit.label if refit is not None else f"step-{step}" if step is not None else ""
    return store.root / FOLDER / stage.name / part / f"{key}.r{revision}.json"


def evidence_of(store: Store, stage: Stage) -> dict[str, Measured]:
    """Return everything that is known of a stage's model, by gate key: its own evidence, and what was measured later.

    Raises ``StoreError`` for evidence that cannot be read.
    """
    found: dict[str, Measured] = {}
    later = sorted((store.root / FOLDER / stage.name).glob("*.r*.json"), key=lambda path: path.name)
    for path in later:
        found[path.name.partition(".r")[0]] = read_measurements(path)
    for path in sorted(stage.evidence.glob("*.json")):
        if path.name not in _NOT_MEASUREMENTS:
            found[path.stem] = read_measurements(path)
    return found

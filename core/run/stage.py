"""Training one phase: enter, prepare, train, measure, decide; the loop commits what comes out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...evals.context import MeasureContext
from ...evals.criteria import Judgement
from ...evals.records import read_judgements
from ...registry.contexts import PhaseResult
from .attempt import (
    Attempt,
    Beginning,
    Decided,
    extended_steps,
    first_attempt,
    history_rows,
    load_decision,
    load_step,
    next_attempt,
    save_decision,
    save_step,
)
from .gates import Baseline, GateReport, GateSuite, context_of
from .objectives import carry_out
from .plan import StagePlan
from .policy import Decision, decide
from .processes import agree, is_main, stop_together, wait_for_all
from .step import StepOrder, StepResult, Workshop
from .store import Work

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .bench import Parents


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training a phase left in its work folder: the model, every attempt, the verdicts and the decision, and what
    was read of the corpus."""

    model: PreTrainedModel
    result: PhaseResult
    attempts: tuple[tuple[Attempt, Mapping[str, StepResult]], ...]
    decision: Decision
    outcome: str
    history: list[dict[str, Any]]
    read: frozenset[str]

    @property
    def last(self) -> Attempt:
        """Return the attempt whose model is the phase's result."""
        return self.attempts[-1][0]


@dataclass(frozen=True, slots=True)
class StageRunner:
    """Trains and measures one phase in its work folder; every part that finished is found again after a kill.

    ``tell`` hears of every step (``step``: a ``Beginning``) and criterion (``measuring``: its name) as its turn comes.
    """

    shop: Workshop
    stage: StagePlan
    work: Work
    parents: Parents
    judged: Callable[[str, Judgement], None]
    tell: Callable[[str, Any], None]

    def enter(self) -> GateReport | None:
        """Measure the entry criteria on the model that the phase starts from; None when there are none."""
        section = self.stage.section
        if not section.entry:
            return None
        context = self._context(self.parents.parent(), self._own(self.work.folder / "entry"), ())
        suite = GateSuite(
            registry=self.shop.registry,
            context=context,
            baseline=lambda name: self._baseline(None, name),
            known=self.parents.parent_evidence,
            measuring=self._measuring,
        )
        return suite.run(section.entry, lambda judgement: self.judged("entry", judgement))

    def train(self) -> Trained:
        """Train attempt after attempt until the policy says advance or stop."""
        section = self.stage.section
        attempt = first_attempt(section, self.work.folder)
        done: list[tuple[Attempt, Mapping[str, StepResult]]] = []
        model = self.parents.parent()
        read: set[str] = set()
        while True:
            model, results = self._train_attempt(attempt, model)
            done.append((attempt, results))
            (decision, outcome, measured), judgements = self._measure(attempt, model, results)
            read |= {*measured, *(name for result in results.values() for name in result.read)}
            if decision.action in {"advance", "stop"}:
                break
            if decision.action == "rollback":
                model = self.parents.parent()
            attempt = next_attempt(section, attempt, decision.action, self.work.folder)
        every = [result for _, results in done for result in results.values()]
        return Trained(
            model=model,
            result=PhaseResult(
                steps=sum(step.steps for one, _ in done for step in one.steps.values()),
                tokens=sum(result.tokens for result in every),
                seconds=sum(result.seconds for result in every),
                metrics={f"{judgement.criterion}:{judgement.metric}": judgement.value for judgement in judgements},
            ),
            attempts=tuple(done),
            decision=decision,
            outcome=outcome,
            history=history_rows(self.stage.name, done),
            read=frozenset(read),
        )

    def _train_attempt(
        self, attempt: Attempt, model: PreTrainedModel
    ) -> tuple[PreTrainedModel, Mapping[str, StepResult]]:
        from ..model.loading import load_model, save_model

        results: dict[str, StepResult] = {}
        earlier = self.stage.earlier
        for name, section in attempt.steps.items():
            earlier = earlier if section.fresh is None else ()  # a new model has learnt nothing yet
            folder = attempt.step_folder(name)
            finished = load_step(folder)
            stop_together(self.shop.interruption)
            self.tell("step", Beginning(attempt=attempt, step=name, finished=finished is not None))
            if finished is None:
                order = StepOrder(
                    phase=self.stage.name,
                    name=name,
                    section=section,
                    earlier=earlier,
                    identity=f"{self.stage.chain}/{attempt.number}",
                    folder=folder / "trainer",
                    bump=self.stage.section.bump,
                    teacher=self._teacher,
                )
                with self.shop.corpus.noting() as read:
                    model, finished = carry_out(self.shop, order, model)
                finished = replace(finished, read=sorted(read))
                if is_main():
                    shutil.rmtree(folder / "model", ignore_errors=True)
                    save_model(model, self.shop.tokenizer, folder / "model")
                    save_step(folder, finished)
                wait_for_all()
            # Read back even when just written: what the next step starts from must not depend on a kill between.
            model = load_model(folder / "model", self.shop.registry)
            results[name] = finished
            earlier += (section,)
        return model, results

    def _teacher(self, name: str) -> PreTrainedModel:
        """The model that the phase started from, or an earlier stage, as a frozen model of its own."""
        from ..model.loading import load_model

        parents = self.parents
        model = parents.parent() if name == "parent" else load_model(parents.named(name), self.shop.registry)
        model.eval()
        model.requires_grad_(False)
        return model

    def _measure(
        self, attempt: Attempt, model: PreTrainedModel, results: Mapping[str, StepResult]
    ) -> tuple[Decided, tuple[Judgement, ...]]:
        evidence = attempt.folder / "evidence"
        known = load_decision(attempt)
        if known is not None:
            return known, tuple(read_judgements(evidence / "verdicts.json"))
        history = tuple(row for result in results.values() for row in result.history)
        suite = GateSuite(
            registry=self.shop.registry,
            context=self._context(model, self._own(evidence), history),
            baseline=lambda name: self._baseline(attempt, name),
            measuring=self._measuring,
        )
        with self.shop.corpus.noting() as read:
            report = suite.run(self.stage.section.gates, lambda judgement: self.judged("completion", judgement))
        section = self.stage.section
        extendable = bool(extended_steps(section))
        decision = agree(decide(section.policy, report.outcome, attempt.number, extendable=extendable))
        if is_main():
            save_decision(attempt, decision, report.outcome, read)
        wait_for_all()
        return (decision, report.outcome, frozenset(read)), report.judgements

    def _measuring(self, criterion: str) -> None:
        stop_together(self.shop.interruption)
        self.tell("measuring", criterion)

    def _own(self, folder: Path) -> Path:
        """Return an empty folder for what this process measures: the given one for the main process."""
        own = folder if is_main() else folder.with_name(f"{folder.name}-{os.environ['RANK']}")
        shutil.rmtree(own, ignore_errors=True)  # what a kill left may be of files that are not written again
        return own

    def _context(
        self, model: PreTrainedModel, folder: Path, history: tuple[Mapping[str, float], ...]
    ) -> MeasureContext:
        folder.mkdir(parents=True, exist_ok=True)
        return context_of(self.shop, model, folder, history)

    def _baseline(self, attempt: Attempt | None, name: str) -> Baseline:
        from ..model.loading import load_model

        if attempt is not None and name.startswith("./"):
            folder = attempt.last_folder(name[2:]) / "model"
            return Baseline(load=lambda: load_model(folder, self.shop.registry))
        if name == "parent":
            return Baseline(load=self.parents.parent, evidence=self.parents.parent_evidence)
        checkpoint = self.parents.named(name)
        return Baseline(load=lambda: load_model(checkpoint, self.shop.registry))

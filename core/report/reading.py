"""Collecting what there is to say of a run: from its folder, its stages in the store, and what was measured since."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...evals.records import read_judgements
from ...registry.atomic import read_json
from ...registry.errors import StoreError
from ..run.comparison import find_run, stages_of
from ..run.records import RunFolder
from ..run.store import COMPLETE, Stage, Store
from .benchmarks import benchmarks_by_task
from .capabilities import capabilities_of, criteria_of
from .confidence import confidence_of
from .courses import course_of
from .evidence import evidence_by_phase, whole
from .experts import ablation_of, routing_of, weights_of
from .facts import Gate, PhaseFacts, RunFacts
from .trades import trade_of


def run_facts(run: RunFolder, store: Store) -> RunFacts:
    """Everything that a report on a run states.

    ``StoreError`` where the run has finished no phase, the store does not hold its stages, or evidence is missing or
    damaged.
    """
    stages = _stages(run, store)
    rows = {row["phase"]: row for row in run.stages()}
    evidence = evidence_by_phase(stages, store)
    losses, bumps = course_of(stages)
    plan, manifest = read_json(run.plan, "a run's plan"), read_json(run.manifest, "a run's manifest")
    return RunFacts(
        experiment=str(manifest["experiment"]),
        run=run.path.resolve().name,
        planned=tuple(str(stage["phase"]) for stage in plan.get("stages", ())),
        mode=str(manifest.get("gates", "")),
        drift=bool(manifest.get("plugin_drift_allowed")),
        parameters={key: int(plan["parameters"][key]) for key in ("total", "active") if key in plan["parameters"]},
        phases=tuple(_phase(name, stage, rows[name]) for name, stage in stages.items()),
        gates=tuple(gate for name, stage in stages.items() for gate in _gates(name, stage)),
        capabilities=capabilities_of(stages, evidence),
        losses=losses,
        bumps=bumps,
        routing=tuple(routing_of(evidence)),
        weights=tuple(weights_of(stages)),
        confidence=tuple(confidence_of(stages, evidence)),
        trade=trade_of(run, store, stages, evidence),
        ablation=ablation_of(stages),
        benchmarks=tuple(benchmarks_by_task(store, stages)),
        distributions=_distributions(manifest.get("plugins", {})),
        text=run.experiment.read_text(encoding="utf-8"),
    )


def run_at(path: Path) -> RunFolder:
    """The run that a user means by a folder: itself, or the newest below it."""
    return find_run(path)


def _stages(run: RunFolder, store: Store) -> dict[str, Stage]:
    for row in run.stages():
        if not (store.root / row["stage"] / COMPLETE).is_file():
            raise StoreError(
                f"the store {store.root} has no stage {row['stage']} of the run {run.path}; if the store was moved or "
                "lies elsewhere, name it with --store"
            )
    found = {one.phase: one.stage for one in stages_of(run, store)}
    for stage in found.values():
        if not (stage.evidence / "verdicts.json").is_file():
            raise StoreError(
                f"the stage {stage.name} has no evidence (there is no {stage.evidence / 'verdicts.json'}); restore it "
                "from a copy, or remove the stage and run again"
            )
    return found


def _phase(name: str, stage: Stage, row: Mapping[str, Any]) -> PhaseFacts:
    facts, recipe = stage.manifest["facts"], stage.manifest["recipe"]
    memory = facts.get("memory") or {}
    return PhaseFacts(
        name=name,
        stage=stage.name,
        digest=stage.digest,
        parent=recipe.get("parent"),
        created=str(stage.manifest.get("created", "")),
        seed=recipe.get("seed"),
        reused=bool(row["reused"]),
        action=str(row["action"]),
        reason=str(row["reason"]),
        outcome=str(facts["outcome"]),
        tokens=facts.get("tokens"),
        seconds=facts.get("seconds"),
        memory=memory.get("resident"),
        memory_since=str(memory.get("since", "")),
        device_memory=memory.get("device"),
        attempts=tuple((one["kind"], dict(one["steps"])) for one in facts["attempts"]),
        data=str(recipe.get("data", "")),
        components=dict(recipe.get("components", {})),
        libraries=dict(recipe.get("libraries", {})),
    )


def _gates(phase: str, stage: Stage) -> list[Gate]:
    found = []
    for at, section, folder in (("entry", "entry", "entry"), ("completion", "gates", "")):
        path = stage.evidence / folder / "verdicts.json"
        if path.is_file():
            papers = {name: criterion.paper for name, criterion in criteria_of(stage, section).items()}
            judgements = whole(path, partial(read_judgements, path))
            found += [Gate(phase=phase, at=at, judgement=one, paper=papers.get(one.criterion)) for one in judgements]
    return found


def _distributions(plugins: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{facts.get('version', '')}{' (editable)' if facts.get('editable') else ''}, {facts.get('code', '')}"
        for name, facts in plugins.get("dists", {}).items()
    }

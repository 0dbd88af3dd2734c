"""What a finished phase leaves in the store: the model, the models between its steps, evidence, metrics, facts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...evals.criteria import Judgement
from ...evals.records import read_judgements
from ...registry.atomic import write_json, write_text
from .attempt import load_decision, load_step
from .plan import StagePlan
from .processes import is_main, wait_for_all
from .store import Stage, Work

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..training.memory import PeakMemory
    from .bench import Bench
    from .stage import Trained

CHANGES = "changes.json"


def commit(
    bench: Bench,
    stage: StagePlan,
    work: Work,
    trained: Trained,
    provenance: Mapping[str, Any],
    data: Callable[[], Mapping[str, Any]],
    saved: Callable[[Path], None],
    parent: Callable[[], PreTrainedModel],
    memory: PeakMemory,
) -> Stage:
    """Write a phase into the store, whole or not at all, and drop its work folder; ``saved`` is called before.

    ``data`` gives the corpus's account of what was read, dropped and held out; ``parent`` gives the model that the
    phase started from, with which the new one is compared; ``memory`` was begun with the phase.
    """
    if is_main():
        from ..model.changes import weight_changes

        last = trained.last
        names = list(stage.section.steps)
        # What is copied is held against its digests: a stage vouches for what was trained and measured.
        load_decision(last)
        for name in names:
            load_step(last.last_folder(name))
        with bench.store.draft(work) as draft:
            shutil.copytree(last.last_folder(names[-1]) / "model", draft.checkpoint, dirs_exist_ok=True)
            for name in names[:-1]:
                shutil.copytree(last.last_folder(name) / "model", draft.folder / "steps" / name)
            shutil.copytree(last.folder / "evidence", draft.evidence, dirs_exist_ok=True)
            if (work.folder / "entry").exists():
                shutil.copytree(work.folder / "entry", draft.evidence / "entry")
            write_json(draft.evidence / CHANGES, weight_changes(parent(), trained.model))
            lines = (json.dumps(row, sort_keys=True) + "\n" for row in trained.history)
            write_text(draft.metrics, "".join(lines))
            saved(draft.folder)
            facts = {**facts_of(stage, trained, memory), "data": dict(data())}
            bench.store.commit(draft, {"facts": facts, "provenance": dict(provenance)})
    wait_for_all()
    found = bench.store.find(stage.recipe)
    assert found is not None
    return found


def facts_of(stage: StagePlan, trained: Trained, memory: PeakMemory) -> dict[str, Any]:
    """Return what the manifest says of how the phase went; seconds and memory are the only values that a repeat may
    change."""
    return {
        "outcome": trained.outcome,
        "decision": {"action": trained.decision.action, "reason": trained.decision.reason},
        "tokens": trained.result.tokens,
        "seconds": round(trained.result.seconds, 3),
        "memory": memory.facts(),
        "attempts": [
            {
                "kind": attempt.kind,
                "steps": {name: step.steps for name, step in attempt.steps.items()},
                "bump": {name: result.bump for name, result in results.items() if result.bump is not None},
                "notes": {name: list(result.notes) for name, result in results.items() if result.notes},
            }
            for attempt, results in trained.attempts
        ],
        "last_step": list(stage.section.steps)[-1],
    }


def verdicts_of(stage: Stage) -> tuple[Judgement, ...]:
    """Return the judgements that stand in a stage's evidence."""
    return tuple(read_judgements(stage.evidence / "verdicts.json"))

"""A tiny experiment around a phase: what it requires before it, two optimiser steps each, and no gates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config.loading import load_experiment
from ..core.run.bench import Bench
from ..core.run.interrupt import Interrupted, Interruption
from ..core.run.loop import run
from ..core.run.plan import Plan, make_plan
from ..core.run.store import Store
from ..registry.components import PhaseSpec
from ..registry.plugins import Plugins
from ..registry.registry import Registry
from .check import Subject
from .collecting import quick_collections
from .nano import NANO, merged

if TYPE_CHECKING:
    from ..registry.entries import Entry

_STEPS, _ROWS = 2, 4
#: Beyond the nano experiment: dialogues that fit, experts enough for the entropies that recipes ask for, held-out rows.
_ROOM: Mapping[str, Any] = {
    "model": {"num_experts": 6},
    "data": {
        "sequence_length": 64,
        "sources": {
            "world": {
                "head": 4,
                "training_documents": 400,
                "chats": 120,
                "pairs": 60,
                "heldout_chats": 24,
                "heldout_pairs": 16,
                "needles": 20,
            }
        },
    },
}


def predecessors(entry: Entry, registry: Registry) -> list[Entry]:
    """Phases that provide, in this order, what the phase requires; ``AssertionError`` where no loaded phase does."""
    found: list[Entry] = []

    def provide(needs: Sequence[str], above: tuple[str, ...]) -> None:
        for need in needs:
            if any(need in _spec(one).provides for one in found):
                continue
            able = [one for one in registry.of("phase") if need in _spec(one).provides and one.key not in above]
            assert able, f"No loaded phase but itself provides '{need}'."
            # The platform's own first, and of those the plainest: what requires and provides least.
            best = min(
                able,
                key=lambda one: (
                    one.dist != "phasegate",
                    len(_spec(one).requires),
                    len(_spec(one).provides),
                    one.key,
                ),
            )
            provide(_spec(best).requires, (*above, best.key))
            found.append(best)

    provide(_spec(entry).requires, (entry.key,))
    return found


def _spec(entry: Entry) -> PhaseSpec:
    spec = entry.component
    assert isinstance(spec, PhaseSpec)
    return spec


def plugins_of(subject: Subject) -> Plugins:
    """The plugins that an experiment with the component loads."""
    return Plugins.load(() if subject.entry.dist == "phasegate" else (subject.entry.dist,))


def written(subject: Subject) -> dict[str, Any]:
    """The experiment as its author would write it, recipes at their full length."""
    entry = subject.entry
    chain = predecessors(entry, subject.registry)
    phases: dict[str, Any] = {one.name: {"use": one.ref} for one in chain}
    phases[entry.name] = {"use": entry.ref, "options": dict(subject.options)}
    base = {**merged(NANO, _ROOM), "name": "trial", "phases": phases}
    if any("seed" in _spec(one).provides for one in (*chain, entry)):
        # The experts come with a later phase, as clones that compute what the seed computes.
        base["model"] |= {"start": "dense", "router": {"use": "linear", "gate": "straight-through"}}
    if entry.dist != "phasegate":
        base["plugins"] = [entry.dist]
    return merged(base, subject.example.experiment)


def plan_of(experiment: Mapping[str, Any], plugins: Plugins, root: Path, store: str = "store") -> Plan:
    """The plan of an experiment written below ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    file = root / "trial.yaml"
    file.write_text(json.dumps(experiment), encoding="utf-8")
    return make_plan(load_experiment(str(file)), plugins, Store(root / store))


def shortened(experiment: Mapping[str, Any], plan: Plan, example: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment with at most two optimiser steps of four rows in every step of its recipes, and without gates."""
    phases: dict[str, Any] = {}
    for name, section in plan.experiment.phases.items():
        steps: dict[str, Any] = {}
        for label, step in section.steps.items():
            # Where there is one step, rows are what runs together (prompts, questions), and few would be slow.
            rows = min(step.rows, _ROWS) if step.steps > 1 else step.rows
            steps[label] = {"steps": min(step.steps, _STEPS), "rows": rows}
            if step.replay.rows:
                steps[label]["replay"] = {"rows": min(step.replay.rows, 2)}
        nothing: dict[str, None] = {}
        phases[name] = {
            "steps": steps,
            "gates": nothing | dict.fromkeys(section.gates),
            "entry": nothing | dict.fromkeys(section.entry),
            "policy": {"extensions": 0},
        }
    return merged(merged(experiment, {"phases": phases}), example)


class _StopAt:
    """Trainer callbacks and news of the phase loop, one of which asks the run to stop inside the last phase."""

    def __init__(self, phase: str, interruption: Interruption) -> None:
        self.phase = phase
        self.interruption = interruption
        self.inside = False

    def show(self, what: str, news: Any) -> None:
        if what == "phase":
            self.inside = news.name == self.phase
        # A phase whose steps train nothing by optimiser steps is stopped before it is committed.
        if what == "committing" and self.inside:
            raise Interrupted(143)

    def callbacks(self, step: str, tokens: float) -> tuple[Any, ...]:
        if not self.inside:
            return ()
        from transformers import TrainerCallback

        interruption = self.interruption

        class Stop(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                # It ends behind this optimiser step, so that one is left to do after the resume.
                if state.global_step == 0:
                    interruption.signal = 15
                    interruption.event.set()

        return (Stop(),)


def carry_out(plan: Plan, store: Path, *, stop_in: str | None = None) -> Path | None:
    """Run a plan; the folder of its last stage, or None where it was stopped inside the phase ``stop_in``."""
    interruption = Interruption()
    show: Callable[[str, Any], None] = lambda what, news: None  # noqa: E731
    callbacks: Callable[[str, float], tuple[Any, ...]] = lambda step, tokens: ()  # noqa: E731
    if stop_in is not None:
        stop = _StopAt(stop_in, interruption)
        show, callbacks = stop.show, stop.callbacks
    bench = Bench(store=Store(store), interruption=interruption, allow_drift=False, callbacks=callbacks)
    try:
        with _quiet(), quick_collections():
            outcomes = run(plan, bench, None, "warn", show)
    except Interrupted:
        return None
    return outcomes[-1].stage.folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of everything in a stage that a repeat must reproduce: tensors and logs, by path."""
    kept = [path for path in sorted(folder.rglob("*")) if path.suffix in {".safetensors", ".jsonl"}]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def _quiet() -> AbstractContextManager[Any]:
    return redirect_stdout(StringIO())

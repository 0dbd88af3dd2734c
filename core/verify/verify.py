"""All proofs of an experiment, one after the other, on one rehearsal in a folder that is gone afterwards."""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...registry.plugins import Plugins
from ..config.loading import load_experiment
from ..run.plan import Plan, make_plan
from ..run.store import Store
from . import (
    hooks,
    keys,
    labels,
    measures,
    movement,
    policies,
    positions,
    quantizers,
    resumption,
    splits,
    survival,
    terms,
)
from .proof import Proof
from .reads import Field, watched
from .rehearsal import Place, Rehearsal, rehearse
from .shrinking import DATA

#: Proofs of what was seen in the rehearsal, which need no more than that.
SEEN: tuple[Callable[[Rehearsal], Iterator[Proof]], ...] = (
    labels.supervision,
    labels.row_order,
    movement.frozen,
    movement.routers,
    movement.trainable,
    movement.teachers,
)

#: Proofs of one step that read its stage or run it again.
AGAIN: tuple[Callable[[Rehearsal, Place], Iterator[Proof]], ...] = (
    labels.shares,
    survival.saved,
    survival.companions,
    positions.positions,
    quantizers.quantizers,
    resumption.resumption,
    terms.terms,
    splits.accumulation,
    splits.recomputation,
)

Task = Callable[[], Iterator[Proof]]


def verify(name: str, overrides: Sequence[str] = (), plugins: Sequence[str] = (), workers: int = 1) -> Iterator[Proof]:
    """Yield every proof of the experiment as it is made; nothing is written outside a temporary folder.

    ``workers`` processes share the proofs that run steps again; more than one needs a process that has one thread.
    Raises ``PhasegateError`` for an experiment that could not be run at all, and what ended the rehearsal where no
    proof says why.
    """
    loaded = load_experiment(name, overrides, plugins)
    enabled = Plugins.load(loaded.experiment.plugins, loaded.experiment.require)
    small = load_experiment(name, (*overrides, *DATA), plugins)
    with tempfile.TemporaryDirectory(prefix="phasegate-verify-") as folder:
        plan = make_plan(small, enabled, Store(Path(folder) / "store"))
        with watched(keys.classes(plan)) as seen:
            yield from keys.unknown(loaded, plan, name, overrides, plugins)
            plan = make_plan(small, enabled, Store(Path(folder) / "store"))
            yield from policies.policies(plan)
            rehearsal = rehearse(plan, Path(folder))
            failed = False
            for prove in SEEN:
                for proof in prove(rehearsal):
                    failed |= proof.outcome == "fails"
                    yield proof
            if rehearsal.error is not None:
                if failed:
                    return
                raise rehearsal.error
            yield from hooks.hooks(rehearsal)
            with _frozen_garbage():
                yield from _shared(_tasks(rehearsal, plan), seen, workers)
            keys.read_views(plan)
        yield from keys.read(loaded, plan, seen)


def _tasks(rehearsal: Rehearsal, plan: Plan) -> list[Task]:
    """What is left to prove, in parts that do not depend on one another."""
    asked: list[Task] = [partial(measures.measure, rehearsal, asking) for asking in measures.askings(plan)]
    steps: list[Task] = [partial(_again, rehearsal, place) for place in rehearsal.places()]
    return [*steps, *asked, partial(survival.exported, rehearsal)]


def _again(rehearsal: Rehearsal, place: Place) -> Iterator[Proof]:
    for prove in AGAIN:
        yield from prove(rehearsal, place)
    rehearsal.again.clear()


def _shared(tasks: Sequence[Task], seen: set[Field], workers: int) -> Iterator[Proof]:
    if workers == 1:
        for task in tasks:
            yield from task()
        return
    forks = multiprocessing.get_context("fork")  # the rehearsal is in memory, and a fork has it too
    pool = ProcessPoolExecutor(workers, mp_context=forks, initializer=_Part.begin, initargs=(tasks, seen))
    try:
        for proofs, read in pool.map(_Part.carry_out, range(len(tasks))):
            seen |= read
            yield from proofs
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a forked process works on; it inherits the tasks, which could not be sent to it."""

    tasks: Sequence[Task]
    seen: set[Field]

    @staticmethod
    def begin(tasks: Sequence[Task], seen: set[Field]) -> None:
        global _part
        _part = _Part(tasks, seen)

    @staticmethod
    def carry_out(number: int) -> tuple[list[Proof], set[Field]]:
        assert _part is not None
        return list(_part.tasks[number]()), set(_part.seen)


_part: _Part | None = None


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Keep the collector, which every trainer calls several times, from walking over all that is there already."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

"""What a phase promises: a recipe that makes a plan, requirements that can be met, and an exact resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...core.config.dial import derive
from ...registry.components import PhaseSpec
from ...registry.errors import PhasegateError
from ..check import NotApplicable, Subject
from ..experiments import carry_out, digests, plan_of, plugins_of, predecessors, shortened, written


def _spec(subject: Subject) -> PhaseSpec:
    spec = subject.entry.component
    assert isinstance(spec, PhaseSpec)
    return spec


def requires(subject: Subject) -> None:
    """What it requires another phase provides, and nothing is named twice."""
    spec = _spec(subject)
    for field in ("requires", "provides"):
        names: tuple[str, ...] = getattr(spec, field)
        assert len(set(names)) == len(names), f"Its {field} names something twice."
        assert all(name and name == name.strip().lower() for name in names), f"Its {field} is {names}."
    assert not set(spec.requires) & set(spec.provides), "It requires what it provides itself."
    predecessors(subject.entry, subject.registry)


def recipe(subject: Subject) -> None:
    """Its recipe is plain data, the same every time, with at least one step, for every size of experiment."""
    config, target = subject.config(), subject.entry.load()
    phase = target() if config is None else target(config)
    for size in ("nano", "micro"):
        derived: dict[str, Any] = {"sequence_length": 64, **derive(size).values}
        found = phase.recipe(derived)
        assert isinstance(found, Mapping), f"It gave a {type(found).__name__}."
        plain = json.loads(json.dumps(found))
        assert plain.get("steps"), "It has no step."
        assert json.loads(json.dumps(phase.recipe(derived))) == plain, "Asked again it gave another recipe."


def plan(subject: Subject) -> None:
    """In an experiment with what it requires before it, it resolves to a plan without a word from its user."""
    with TemporaryDirectory() as folder:
        try:
            made = plan_of(written(subject), plugins_of(subject), Path(folder))
        except PhasegateError as error:
            raise AssertionError(f"There is no plan: {error}") from error
    stage = made.stages[-1]
    assert stage.name == subject.entry.name, f"The last stage is {stage.name}."
    assert stage.section.steps, "It has no step."
    assert stage.section.gates, "It has no gate, so nothing says whether it did what it was for."


def unmet(subject: Subject) -> None:
    """Without a phase before it that provides what it requires, no plan is made, and the error says what is missing."""
    needs = _spec(subject).requires
    if not needs:
        raise NotApplicable("it requires nothing")
    experiment = written(subject)
    alone = {**experiment, "phases": {subject.entry.name: experiment["phases"][subject.entry.name]}}
    with TemporaryDirectory() as folder:
        try:
            plan_of(alone, plugins_of(subject), Path(folder))
        except PhasegateError as error:
            assert any(need in str(error) for need in needs), f"The error names none of {', '.join(needs)}: {error}"
            return
    raise AssertionError(f"Without {', '.join(needs)} it is planned all the same.")


def resumes(subject: Subject) -> None:
    """A run that is stopped inside the phase and run again ends in the bits of one that was not stopped."""
    name, plugins = subject.entry.name, plugins_of(subject)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        full = written(subject)
        short = shortened(full, plan_of(full, plugins, root), subject.example.experiment)
        made = plan_of(short, plugins, root)
        assert carry_out(made, root / "broken", stop_in=name) is None, "It went to its end without a place to stop."
        # What was trained before is the same for both.
        shutil.copytree(root / "broken", root / "whole", ignore=shutil.ignore_patterns(".work", ".locks"))
        whole, again = carry_out(made, root / "whole"), carry_out(made, root / "broken")
        assert whole is not None and again is not None
        wanted, found = digests(whole), digests(again)
        assert wanted, "The stage holds no tensor and no log."
        other = sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path))
        assert not other, f"After a stop these are others: {', '.join(other)}."


CHECKS: tuple[Callable[[Subject], None], ...] = (requires, recipe, plan, unmet, resumes)

"""Phases with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from phasegate.registry.components import PhaseSpec
from phasegate.testing.checks import checks_of, entries_of

STEP = {"objective": "causal", "steps": 2, "rows": 4}
GATE = {"use": "logged", "metric": "last", "at_most": 99.0}


class Sound:
    """Two steps on text."""

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"steps": {"main": STEP}, "gates": {"loss": GATE}}


class Wavering(Sound):
    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"steps": {"main": {**STEP, "learning_rate": random.random()}}, "gates": {"loss": GATE}}


BROKEN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "requires": (Sound, {"requires": ("enlightenment",)}, "provides 'enlightenment'"),
    "recipe": (Wavering, {}, "another recipe"),
}
PLUGIN = """
    from phasegate import LossSpec, PhaseSpec, hookimpl

    @hookimpl
    def phasegate_components():
        yield PhaseSpec(name="one", target="phasegate_odd.parts:One", summary="One.", {more})
        yield LossSpec(name="growing", target="phasegate_odd.parts:Growing", summary="Grows, and saves nothing.")
"""
PARTS = """
    class One:
        def recipe(self, derived):
            step = {{"objective": "causal", "steps": 4, "rows": 4, {more}}}
            return {{"steps": {{"main": step}}, "gates": {gates}}}

    class Growing:
        steps = 0

        def __init__(self, setup):
            pass

        def __call__(self, ctx):
            return ctx.records[0].logits.float().square().mean() * self.steps

        def after_step(self):
            self.steps += 1

        def state_dict(self):
            return {{}}

        def load_state_dict(self, state):
            pass
"""
GATES = '{"loss": {"use": "logged", "metric": "last", "at_most": 99.0}}'


@pytest.fixture
def told(install_plugin: Any) -> Callable[..., str]:
    """What a check says of the phase of an installed plugin."""

    def tell(name: str, *, spec: str = "", step: str = "", gates: str = GATES) -> str:
        parts = PARTS.format(more=step, gates=gates)
        install_plugin("phasegate-odd", PLUGIN.format(more=spec), files={"parts.py": parts})
        (entry,) = [entry for entry in entries_of("phasegate-odd") if entry.kind == "phase"]
        (check,) = [check for check in checks_of(entry) if check.name == name]
        with pytest.raises(AssertionError) as caught:
            check(entry)
        return str(caught.value)

    return tell


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_phase_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, more, said = BROKEN[name]
    assert said in failure(spec_of(PhaseSpec, target, **more), name)


def test_a_recipe_with_an_unknown_key_makes_no_plan(told: Callable[..., str]) -> None:
    assert "There is no plan: " in told("plan", step='"learning_rat": 0.1')


def test_a_phase_without_a_gate_is_caught(told: Callable[..., str]) -> None:
    assert "It has no gate" in told("plan", gates="{}")


def test_a_platform_that_forgot_requirements_would_be_caught(
    told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phasegate.core.config.complete.check_requirements", lambda *_, **__: None)
    assert "planned all the same" in told("unmet", spec='requires=("knowledge",)')


def test_a_step_whose_state_is_not_saved_does_not_resume(told: Callable[..., str]) -> None:
    step = '"losses": {{"growing": {{"weight": 1.0}}}}'.replace("{{", "{").replace("}}", "}")
    assert "After a stop these are others: " in told("resumes", step=step)


def test_every_check_of_phases_catches_something(names: Callable[[str], set[str]]) -> None:
    assert {*BROKEN, "plan", "unmet", "resumes"} == names("phase")

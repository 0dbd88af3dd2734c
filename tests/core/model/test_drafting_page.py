"""The page on drafting says what is so: its snippets run, its steps and criteria are steps and criteria."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from phasegate.core.config.objectives import DraftOptions
from phasegate.core.config.schema import CriterionSection, StepSection
from phasegate.plugins.builtin import phasegate_components
from phasegate.registry.components import GateSpec
from phasegate.registry.options import parse

PAGE = (Path(__file__).parents[3] / "docs" / "drafting.md").read_text(encoding="utf-8")


def test_the_snippets_run_in_order() -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/drafting.md", "exec"), space)
    assert len(snippets) == 3 and space["draft"].stale(space["target"])


def test_the_step_and_the_criteria_are_what_an_experiment_takes() -> None:
    step, gates = (yaml.safe_load(snippet) for snippet in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL))
    section = StepSection(**{**step["draft"], "learning_rate": float(step["draft"]["learning_rate"])})
    assert parse(DraftOptions, section.options, "the page").dialogues == 8000
    assert [CriterionSection(**gate).metric for gate in gates["gates"].values()] == ["identical", "speedup", "alpha"]


def test_every_option_and_every_metric_is_explained() -> None:
    assert all(f"`{field.name}`" in PAGE for field in fields(DraftOptions))
    (gate,) = [one for one in phasegate_components() if isinstance(one, GateSpec) and one.name == "draft"]
    assert all(f"`{metric.replace('*', '<g>')}`" in PAGE for metric in gate.metrics)

"""The page on confidence says what is so: its snippets run, its options and metrics exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from phasegate.core.config.objectives import ProbeOptions
from phasegate.core.config.schema import CriterionSection
from phasegate.registry.components import GateSpec
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "metacognition.md").read_text(encoding="utf-8")


def test_the_snippets_of_the_metacognition_page_run_in_order() -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/metacognition.md", "exec"), space)
    assert len(snippets) == 3


def test_the_criteria_of_the_page_name_metrics_of_the_gate() -> None:
    spec = Plugins.load(()).components().get("gate", "calibration").component
    assert isinstance(spec, GateSpec)
    sections = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)]
    criteria = [CriterionSection(**one) for section in sections for one in section.get("gates", {}).values()]
    assert len(criteria) == 3
    assert {criterion.metric for criterion in criteria} <= set(spec.metrics)


def test_every_metric_and_option_is_on_the_page() -> None:
    spec = Plugins.load(()).components().get("gate", "calibration").component
    assert isinstance(spec, GateSpec)
    names = [name.replace("auroc/*", "auroc/1").replace("/*", "/<domain>") for name in spec.metrics]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    assert [field.name for field in fields(ProbeOptions) if f"`{field.name}`" not in PAGE] == []

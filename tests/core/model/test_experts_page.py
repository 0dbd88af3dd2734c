"""The page on experts says what is so: its snippets run, its criteria are criteria, its metrics exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from phasegate.core.cli.app import SUBCOMMANDS
from phasegate.core.config.schema import CriterionSection
from phasegate.plugins.gates.ablation import AblationConfig
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "experts.md").read_text(encoding="utf-8")


def test_the_snippets_run_in_order() -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space: dict[str, object] = {"__name__": "page"}
    for snippet in snippets:
        exec(compile(snippet, "docs/experts.md", "exec"), space)
    assert len(snippets) == 2 and "attention" in space


@pytest.mark.parametrize("snippet", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_criteria_are_criteria_of_the_gate(snippet: str) -> None:
    for section in yaml.safe_load(snippet).values():
        assert CriterionSection(**section).use == "ablation"
        AblationConfig(**section["options"])


def test_every_metric_of_the_gate_is_on_the_page() -> None:
    metrics = Plugins.load(()).components().get("gate", "ablation").component.metrics  # type: ignore[attr-defined]
    assert [name for name in metrics if f"| `{name.replace('*', '<expert>')}` |" not in PAGE] == []


@pytest.mark.parametrize("name", ["ablation", "changes", "compare"])
def test_the_commands_exist(name: str) -> None:
    assert name in SUBCOMMANDS and f"platform {name} RUN" in PAGE

"""The page on gates says what is so: its snippets run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.core.config.schema import CriterionSection

PAGE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")


def test_the_python_snippets_run_in_order() -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/gates.md", "exec"), space)
    assert len(snippets) == 3 and "tax" in space


@pytest.mark.parametrize("snippet", re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL))
def test_the_criteria_are_criteria(snippet: str) -> None:
    data = yaml.safe_load(snippet)
    sections = data.get("gates", data)
    assert all(CriterionSection(**section).metric for section in sections.values())

"""The anchors on the page about safety: its snippets run, its step is one, its options are all there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from phasegate.core.config.objectives import AnchorOptions
from phasegate.core.config.schema import CriterionSection, LossSection
from phasegate.plugins.anchors.options import HalfSpaceConfig
from phasegate.registry.options import parse
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "safety.md").read_text(encoding="utf-8")
SECTION = re.split(r"^## ", PAGE.partition("\n## Anchors\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_component_on_the_page_works() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)
    page: dict[str, Any] = {"__name__": "page"}
    exec(compile(snippet, "docs/safety.md", "exec"), page)
    assert page["anchor"].limit == 19.0
    other = page["Length"]()
    other.restore(*page["anchor"].save())
    assert other.limit == page["anchor"].limit


def test_the_steps_on_the_page_name_what_there_is() -> None:
    (snippet,) = re.findall(r"```yaml\n(.*?)```", SECTION, flags=re.DOTALL)
    registry = Plugins.load(()).components()
    found: list[Any] = []
    for phase in yaml.safe_load(snippet)["phases"].values():
        for step in phase["steps"].values():
            if "anchor" in step:
                found.append(registry.config("anchor", step["anchor"], {}))
                parse(AnchorOptions, step["options"], "the page")
            found += [registry.get("loss", LossSection(**loss).use) for loss in step.get("losses", {}).values()]
        for gate in phase.get("gates", {}).values():
            found.append(registry.get("gate", CriterionSection(**gate).use))
    assert len(found) == 4


def test_every_option_of_the_step_is_on_the_page() -> None:
    told = {name for code in re.findall(r"`([^`\n]+)`", SECTION) for name in re.findall(r"[a-z_]+", code)}
    told |= set(re.findall(r"[a-z_]+(?=:)", SECTION))
    assert {field.name for field in fields(AnchorOptions)} - told == set()
    assert {"references", "batch"} <= told & {field.name for field in fields(HalfSpaceConfig)}

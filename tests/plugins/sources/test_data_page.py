"""The page on data says what is so of files and their formats."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.core.data.source import SourceContext
from phasegate.plugins.sources.files import Files
from phasegate.plugins.sources.options import RecordOptions
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```yaml\nsources:\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
SOURCES = {name: source for text in SNIPPETS for name, source in yaml.safe_load(f"sources:\n{text}")["sources"].items()}
VIEWS = {source.get("view", "text") for source in SOURCES.values()}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_source_of_the_page_is_accepted_with_its_options(name: str, context: Callable[..., SourceContext]) -> None:
    options = dict(SOURCES[name])
    registry = Plugins.load([]).components()
    source: Any = registry.build("source", options.pop("use"), options, context=context())
    assert isinstance(source, Files) and source.config.view == options.get("view", "text")


def test_the_page_shows_every_view_that_files_give() -> None:
    component: Any = Plugins.load([]).components().get("source", "files").component
    assert set(component.views) == VIEWS


@pytest.mark.parametrize("option", [field.name for field in fields(RecordOptions)])
def test_every_option_of_records_is_on_the_page(option: str) -> None:
    assert re.search(rf"\b{option}\b", PAGE)

"""The page on reports says what is so: its snippets run, its commands, options and sections exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phasegate.core.cli.app import SUBCOMMANDS
from phasegate.core.cli.report import Format
from phasegate.core.report.reading import run_at, run_facts
from phasegate.core.report.run_page import run_page
from phasegate.core.run.store import Store

PAGE = (Path(__file__).parents[3] / "docs" / "report.md").read_text(encoding="utf-8")


def test_the_snippets_run_in_order() -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space: dict[str, object] = {"__name__": "page"}
    for snippet in snippets:
        exec(compile(snippet, "docs/report.md", "exec"), space)
    assert len(snippets) == 2 and "change" in space


def test_the_command_and_its_formats_exist() -> None:
    assert "report" in SUBCOMMANDS
    assert f"`--format {'|'.join(Format)}`" in PAGE.replace("\\", "")


def test_every_section_of_a_run_is_on_the_page(make: Callable[..., Any]) -> None:
    made = make()
    page = run_page(run_facts(run_at(made.run), Store(made.store)))
    names = {"matrix": "capabilities"}
    assert [one.key for one in page.sections if f"| {names.get(one.key, one.key)} |" not in PAGE] == []

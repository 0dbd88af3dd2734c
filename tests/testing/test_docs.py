"""The page on testing: its tables are those of the code, and its examples run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import phasegate
import pytest
from phasegate.registry.components import KINDS
from phasegate.testing import fixtures
from phasegate.testing.check import Example
from phasegate.testing.checks import functions_of
from phasegate.testing.kinds import every

PAGE = (Path(phasegate.__file__).parent / "docs" / "testing.md").read_text(encoding="utf-8")


def tables() -> str:
    """The checks of every kind with their promises, as the page has them."""
    parts = [("Every kind", every.CHECKS)]
    parts += [(kind.replace("-", " ").capitalize(), functions_of(kind)[len(every.CHECKS) :]) for kind in sorted(KINDS)]
    lines = []
    for title, functions in parts:
        lines += [f"### {title}", "", "| check | promise |", "|---|---|"]
        for function in functions:
            promise = (inspect.getdoc(function) or "").partition("\n")[0]
            lines.append(f"| `{function.__name__.replace('_', '-')}` | {promise} |")
        lines.append("")
    return "\n".join(lines)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_lists_every_check_with_its_promise() -> None:
    assert tables().strip() in PAGE, f"write this into docs/testing.md:\n{tables()}"


def test_every_kind_of_component_has_checks_of_its_own() -> None:
    assert [kind for kind in KINDS if len(functions_of(kind)) == len(every.CHECKS)] == []


def test_the_page_names_every_fixture_and_every_part_of_an_example() -> None:
    found = [name for name, value in vars(fixtures).items() if type(value).__name__ == "FixtureFunctionDefinition"]
    assert {"install_plugin", "nano_run", "plugins", "record_hooks"} <= set(found)
    assert [name for name in [*found, *Example.__dataclass_fields__] if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_examples_of_the_page_compile(number: int) -> None:
    compile(blocks("python")[number], "docs/testing.md", "exec")


def test_the_examples_with_fixtures_pass(
    install_plugin: Any, plugins: Any, record_hooks: Any, nano_run: Any, tmp_path: Path
) -> None:
    (source,) = [block for block in blocks("python") if "def test_it_trains" in block]
    names: dict[str, Any] = {}
    exec(source, names)
    names["test_it_trains"](install_plugin, record_hooks, nano_run)
    names["test_hooks_of_an_object"](plugins)

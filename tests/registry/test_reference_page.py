"""The reference says of everything what it is, and says what the code says."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import phasegate
import pytest
from phasegate.core.config.conversions import DistillOptions
from phasegate.core.config.objectives import OPTIONS
from phasegate.registry import contexts, hookspecs
from phasegate.registry.components import KINDS
from phasegate.registry.entries import Entry
from phasegate.registry.hookspecs import HOOKS
from phasegate.registry.plugins import Plugins

DOCS = Path(__file__).parents[2] / "docs"
ENTRIES = {entry.key: entry for entry in Plugins.load(()).components()}
CONTEXTS = {name: one for name, one in vars(contexts).items() if is_dataclass(one)}


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("phasegate_reference", DOCS / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def docstrings(kind: type) -> str:
    """What a class and its bases say, without the signatures that dataclasses say of themselves."""
    own = {one.__name__: vars(one).get("__doc__") or "" for one in kind.__mro__ if one is not object}
    return "\n".join(text for name, text in own.items() if not text.startswith(f"{name}("))


def unsaid(kind: type) -> list[str]:
    """Fields of a dataclass that its docstring does not name."""
    text = docstrings(kind)
    return [item.name for item in fields(kind) if item.init and not re.search(rf"``{item.name}\b", text)]


def test_the_page_is_the_one_that_is_generated(reference: ModuleType) -> None:
    written = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run python docs/reference.py"


def test_a_new_option_without_a_word_would_be_noticed() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """``said`` is said."""

        said: int = 1
        silent: int = 2

    @dataclass(frozen=True, kw_only=True)
    class Nothing:
        said: int = 1

    assert unsaid(Config) == ["silent"] and unsaid(Nothing) == ["said"]


@pytest.mark.parametrize("name", phasegate.__all__)
def test_every_public_name_is_described(name: str, reference: ModuleType) -> None:
    value: Any = getattr(phasegate, name)
    said = docstrings(value) if isinstance(value, type) else value.__doc__
    assert reference.VALUES.get(name) or said
    assert (name in reference.VALUES) == (not isinstance(value, type) and not inspect.isfunction(value))


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_when_it_is_called_and_has_an_example(name: str) -> None:
    text = inspect.cleandoc(getattr(hookspecs, name).__doc__)
    said, _, example = text.partition("Example::")
    assert len(said.split()) > 8 and f"def {name}(" in example
    compile(inspect.cleandoc(example), name, "exec")


@pytest.mark.parametrize("name", CONTEXTS)
def test_every_fact_of_a_context_is_described(name: str) -> None:
    assert unsaid(CONTEXTS[name]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_is_described(kind: str, reference: ModuleType) -> None:
    assert unsaid(KINDS[kind]) == [] and kind in reference.CONTRACTS


def described() -> Iterator[tuple[str, type]]:
    for key, entry in ENTRIES.items():
        if (config := entry.config_class()) is not None:
            yield key, config
    yield from {**OPTIONS, "distill": DistillOptions}.items()


CONFIGS = dict(described())


@pytest.mark.parametrize("key", CONFIGS)
def test_every_option_is_described(key: str) -> None:
    assert unsaid(CONFIGS[key]) == []


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_component_has_a_summary_and_says_what_it_does(entry: Entry) -> None:
    assert re.fullmatch(r"[A-Z].+\.", entry.component.summary)
    assert len((entry.load().__doc__ or "").split()) > 4

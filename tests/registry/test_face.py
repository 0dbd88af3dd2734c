from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import phasegate
import phasegate.registry
import pytest
from phasegate.registry import components, contexts, errors, hookspecs


def test_the_face_offers_the_marker_all_specs_all_contexts_and_all_errors() -> None:
    public = {
        name
        for module in (components, contexts, errors)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    assert public | {"KINDS", "hookimpl", "load", "__version__"} == set(phasegate.__all__)
    assert phasegate.hookimpl is hookspecs.hookimpl


def test_everything_the_face_names_exists() -> None:
    assert [name for name in phasegate.__all__ if not hasattr(phasegate, name)] == []


def test_the_version_is_the_installed_one() -> None:
    assert phasegate.__version__ == version("phasegate")


def test_an_unknown_name_of_the_face_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'RuoterSpec'"):
        phasegate.RuoterSpec  # noqa: B018


def test_the_registry_imports_nothing_above_its_floor() -> None:
    (folder,) = phasegate.registry.__path__
    upwards = [
        f"{path.name}: {'.' * node.level}{node.module}"
        for path in sorted(Path(folder).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.level > 1 or (node.module or "").startswith("phasegate"))
    ]
    assert upwards == []

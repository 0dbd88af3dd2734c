"""The house: imports run downwards, nothing imports plugins, modules stay small, light things stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"registry": 1, "evals": 2, "core": 3, "plugins": 4, "testing": 5}
ROOMS = {"config": 1, "data": 1, "model": 1, "training": 2, "run": 3, "study": 4, "report": 4, "cli": 5}
HEAVY = {"accelerate", "datasets", "evaluate", "lm_eval", "optuna", "pandas", "scipy", "sklearn", "tokenizers"}
HEAVY |= {"torch", "transformers", "trl"}
LIMIT = 500

FOLDERS = [ROOT / floor for floor in FLOORS if (ROOT / floor).is_dir()]
MODULES = sorted([ROOT / "__init__.py", *(path for folder in FOLDERS for path in folder.rglob("*.py"))])


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["phasegate", *(parts[:-1] if parts[-1] == "__init__" else parts)])


NAMES = {dotted(path): path for path in MODULES}
LIGHT = [
    name
    for name in NAMES
    if name in {"phasegate", "phasegate.plugins.builtin", "phasegate.testing.checks", "phasegate.testing.fixtures"}
    or name.startswith(("phasegate.registry", "phasegate.core.config", "phasegate.core.cli"))
]


def imported(path: Path, nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported; ``from . import x`` is x where x is a module."""
    package = dotted(path).split(".") if path.name == "__init__.py" else dotted(path).split(".")[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield node.lineno, full if full in NAMES else source


def everywhere(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def at_import(path: Path) -> list[ast.AST]:
    """What runs when the module is imported: not function bodies, not what only type checkers read."""
    found: list[ast.AST] = []
    rest: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while rest:
        node = rest.pop()
        found.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            rest.extend(node.orelse)
            continue
        rest.extend(ast.iter_child_nodes(node))
    return found


def own(path: Path) -> list[tuple[str, str]]:
    here = path.relative_to(ROOT).as_posix()
    found = imported(path, everywhere(path))
    return [(f"{here}:{line}", name) for line, name in found if name.split(".")[0] == "phasegate"]


def floor(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else None


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "core" else None


def test_imports_between_floors_run_downwards() -> None:
    wrong = [
        f"{where} imports {name}"
        for here, path in NAMES.items()
        for where, name in own(path)
        if (mine := floor(here)) and (theirs := floor(name)) and FLOORS[theirs] > FLOORS[mine]
    ]
    assert wrong == []


def test_imports_between_rooms_of_the_core_run_downwards() -> None:
    wrong = [
        f"{where} imports {name}"
        for here, path in NAMES.items()
        for where, name in own(path)
        if (mine := room(here)) and (theirs := room(name)) and ROOMS[theirs] > ROOMS[mine]
    ]
    assert wrong == []


def test_every_room_of_the_core_has_its_place() -> None:
    assert {path.name for path in (ROOT / "core").iterdir() if (path / "__init__.py").is_file()} <= set(ROOMS)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        here: {name for _, name in imported(path, at_import(path)) if name in NAMES} for here, path in NAMES.items()
    }
    assert list(TopologicalSorter(graph).static_order())


def test_nothing_imports_plugins() -> None:
    wrong = [
        f"{where} imports {name}"
        for here, path in NAMES.items()
        if floor(here) != "plugins"
        for where, name in own(path)
        if floor(name) == "plugins"
    ]
    assert wrong == []


def test_nothing_outside_plugins_names_a_plugin_module_to_import_it_later() -> None:
    pattern = re.compile(r"phasegate\.plugins\.(?!v\d*$)[\w.:]+")
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for here, path in NAMES.items()
        if floor(here) != "plugins"
        for node in everywhere(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.fullmatch(node.value)
    ]
    assert wrong == []


def test_only_the_registry_is_imported_with_the_face_of_the_package() -> None:
    face = ROOT / "__init__.py"
    assert {floor(name) for _, name in imported(face, at_import(face)) if name in NAMES} <= {"registry"}


def test_imports_inside_the_package_are_relative() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in everywhere(path)
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "phasegate" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "phasegate")
    ]
    assert wrong == []


def test_no_module_is_longer_than_the_limit() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > LIMIT} == {}


def test_light_modules_import_nothing_heavy_at_their_top() -> None:
    wrong = [
        f"{NAMES[here].relative_to(ROOT)}:{line} imports {name}"
        for here in LIGHT
        for line, name in imported(NAMES[here], at_import(NAMES[here]))
        if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def loaded_by(code: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in found.stdout.split()}


@pytest.mark.parametrize("name", LIGHT)
def test_importing_a_light_module_loads_nothing_heavy(name: str) -> None:
    assert loaded_by(f"import {name}") & HEAVY == set()


def test_the_package_list_is_complete() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert listed == sorted(listed)
    assert set(listed) == {name for name, path in NAMES.items() if path.name == "__init__.py"}


def test_every_folder_with_modules_is_a_package() -> None:
    assert [str(path.relative_to(ROOT)) for path in MODULES if not (path.parent / "__init__.py").is_file()] == []

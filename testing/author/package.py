"""A new plugin package: its files from the templates of the wheel, and their folder, written whole or not at all."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template

from ...registry.atomic import reporting
from ...registry.components import KINDS
from ...registry.errors import PluginError
from ...registry.hookspecs import PROJECT
from .names import Names
from .parts import PARTS, USES

WIDTH = 120
_SPEC = re.compile(r'name="(?P<name>[^"]+)".*?summary="(?P<summary>[^"]+)"', re.DOTALL)
_PREFIX = f"{PROJECT}_"


def files_of(names: Names, kinds: Sequence[str], hooks: Sequence[str]) -> dict[str, str]:
    """The text of every file by its path in the package's folder.

    ``kinds`` and ``hooks`` are as ``kinds_of`` and ``hooks_of`` give them; with neither there is nothing to write, a
    ``PluginError``.
    """
    if not kinds and not hooks:
        raise PluginError(
            f"A plugin offers components or implements hooks: add --kind ({', '.join(PARTS)})"
            f" or --hook ({', '.join(hook.removeprefix(_PREFIX) for hook in USES)})."
        )
    told = {"dist": names.dist, "package": names.package, "entry": names.entry}
    specs = {kind: _filled(f"kinds/{kind}/spec.py", told) for kind in kinds}
    offered = {kind: _SPEC.search(spec) for kind, spec in specs.items()}
    labels = {kind: (f"{kind}/{found['name']}", found["summary"]) for kind, found in offered.items() if found}
    told |= {
        "description": _description(kinds, hooks, labels),
        "year": str(datetime.now(UTC).year),
        "table": _table(labels.values()),
        "uses": "\n".join(f"platform {PARTS[kind].use.format(dist=names.dist)}" for kind in kinds)
        or f"platform train ncas-nano --plugins {names.dist}",
        "offered": _set(label for label, _ in labels.values()),
        "hooks": _set([*(["phasegate_components"] if kinds else []), *hooks]),
    }
    source = f"src/{names.package}"
    found = {
        ".github/workflows/test.yml": _filled("package/test.yml", told),
        ".gitignore": _filled("package/gitignore", told),
        "LICENSE": _filled("package/LICENSE", told),
        "README.md": _filled("package/README.md", told),
        "pyproject.toml": _filled("package/pyproject.toml", told),
        f"{source}/__init__.py": _filled("package/init.py", told),
        f"{source}/plugin.py": _plugin(told, specs.values(), hooks),
        f"{source}/py.typed": "",
        "tests/test_plugin.py": _filled("package/plugin_test.py", told),
    }
    if kinds:
        found["tests/test_conformance.py"] = _filled("package/conformance.py", told)
    for kind in kinds:
        found[f"{source}/{PARTS[kind].module}.py"] = _filled(f"kinds/{kind}/module.py", told)
        found[f"tests/test_{PARTS[kind].module}.py"] = _filled(f"kinds/{kind}/test.py", told)
    for hook in hooks:
        short = hook.removeprefix(_PREFIX)
        found[f"tests/test_{short}.py"] = _filled(f"hooks/{short}.test", told)
    return dict(sorted(found.items()))


def write_package(folder: Path, texts: Mapping[str, str]) -> None:
    """Write a folder that does not exist yet, whole or not at all; ``PluginError`` where something is in its place."""
    if folder.exists() or folder.is_symlink():
        raise PluginError(f"{folder} exists already and is not touched: choose another folder with --output.")
    if not folder.parent.is_dir():
        raise PluginError(f"{folder}: the folder {folder.parent} does not exist; create it first.")
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with reporting("the new plugin", folder.parent):
        try:
            for name, text in texts.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _filled(name: str, told: Mapping[str, str]) -> str:
    return _template(name).substitute(told)


@cache
def _template(name: str) -> Template:
    return Template(files(__package__).joinpath("templates", f"{name}.template").read_text(encoding="utf-8"))


def _plugin(told: Mapping[str, str], specs: Iterable[str], hooks: Sequence[str]) -> str:
    """The module that the entry point names: imports, components, hooks."""
    yields = "".join(specs)
    imports = {(PROJECT, "hookimpl"), *(needed for hook in hooks for needed in USES[hook].imports)}
    parts = []
    if yields:
        used = {spec.__name__ for spec in KINDS.values() if f"{spec.__name__}(" in yields}
        imports |= {("collections.abc", "Iterable"), (PROJECT, "Component"), *((PROJECT, name) for name in used)}
        parts.append(
            "@hookimpl\ndef phasegate_components() -> Iterable[Component]:\n"
            f'    """Yield what this plugin offers."""\n{yields}'
        )
    parts += [_filled(f"hooks/{hook.removeprefix(_PREFIX)}.py", told) for hook in hooks]
    head = f'"""{told["description"]} This module stays light: listing the plugin imports it."""'
    if len(head) > WIDTH:
        head = '"""What this plugin offers. The module stays light: listing the plugin imports it."""'
    return "\n\n".join([f"{head}\n\nfrom __future__ import annotations\n\n{_imports(imports)}", *parts])


def _imports(needed: Iterable[tuple[str, str]]) -> str:
    """Import statements, sorted and folded as ruff does it: the standard library, then the platform."""
    modules: dict[str, list[str]] = {}
    for module, name in sorted(needed, key=lambda one: (one[0], one[1][:1].islower(), one[1])):
        modules.setdefault(module, []).extend([name] if name else [])
    plain = [f"import {module}" for module, found in modules.items() if not found]
    standard = [_from(module, found) for module, found in modules.items() if found and module != PROJECT]
    blocks = ["\n".join([*plain, *standard]), _from(PROJECT, modules[PROJECT])]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _from(module: str, found: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(found)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in found), ")"])


def _description(kinds: Sequence[str], hooks: Sequence[str], labels: Mapping[str, tuple[str, str]]) -> str:
    if len(kinds) == 1 and not hooks:
        return labels[kinds[0]][1]
    said = [label.replace("/", " ") for label, _ in labels.values()]
    said += [f"hook {hook.removeprefix(_PREFIX)}" for hook in hooks]
    return f"{', '.join(said)}.".capitalize() if len(said) < 5 else f"{len(said)} parts of a curriculum for phasegate."


def _set(names: Iterable[str]) -> str:
    """A set of words as it stands in a test, one a line."""
    lines = "".join(f'        "{name}",\n' for name in names)
    return f"{{\n{lines}    }}" if lines else "set()"


def _table(labels: Iterable[tuple[str, str]]) -> str:
    rows = [f"| `{label}` | {summary} |\n" for label, summary in labels]
    return "".join(["| component | what it does |\n", "|---|---|\n", *rows, "\n"]) if rows else ""

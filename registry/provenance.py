"""Provenance: which plugin code a run was made with, and the refusal to resume it with other code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .code import code_hash, editable
from .components import Component
from .discovery import Found
from .entries import Entry
from .errors import PluginError
from .hookspecs import API


def manifest(plugins: Iterable[tuple[Found, Iterable[Component]]], used: Iterable[Entry]) -> dict[str, Any]:
    """Return, as JSON-able data: API, order, per distribution version, editable flag and code hash, and the
    revision of every used component."""
    order: list[str] = []
    modules: dict[str, set[str]] = {}
    dists: dict[str, Found] = {}
    for found, components in plugins:
        order.append(found.name)
        dists[found.dist] = found
        modules.setdefault(found.dist, set()).add(found.point.module)
        for component in components:
            targets = (component.target, component.config)
            modules[found.dist].update(target.partition(":")[0] for target in targets if isinstance(target, str))
    return {
        "api": API,
        "order": order,
        "dists": {
            dist: {
                "version": found.version,
                "editable": editable(found.metadata),
                "code": code_hash(found.metadata, modules[dist]),
            }
            for dist, found in sorted(dists.items())
        },
        "components": dict(sorted({entry.key: entry.component.revision for entry in used}.items())),
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what changed from manifest ``old`` to ``new``, one line each; empty when a run may go on as it was."""
    lines = []
    if old.get("api") != new.get("api"):
        lines.append(f"plugin API: {old.get('api')} -> {new.get('api')}")
    if list(old.get("order", ())) != list(new.get("order", ())):
        lines.append(f"order: {', '.join(old.get('order', ()))} -> {', '.join(new.get('order', ()))}")
    lines += _changed(old.get("dists", {}), new.get("dists", {}), _dist)
    lines += _changed(old.get("components", {}), new.get("components", {}), "revision {}".format)
    return lines


def refuse_drift(old: Mapping[str, Any], new: Mapping[str, Any], *, run: str, allow: bool = False) -> list[str]:
    """Return the differences; unless ``allow``, raise ``PluginError`` when there are any.

    A run that goes on with differences is to be marked with them.
    """
    lines = differences(old, new)
    if lines and not allow:
        raise PluginError(
            f"{run} was made with other plugin code ({'; '.join(lines)}): restore it, start a new run,"
            " or resume anyway with `--allow-plugin-drift`, which marks the run."
        )
    return lines


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], show: Any) -> list[str]:
    return [
        f"{name}: {show(old[name]) if name in old else 'absent'} -> {show(new[name]) if name in new else 'absent'}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _dist(told: Mapping[str, Any]) -> str:
    kind = "editable, " if told.get("editable") else ""
    return f"{told.get('version')} ({kind}{str(told.get('code'))[:19]}…)"

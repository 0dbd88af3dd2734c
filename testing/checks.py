"""The conformance checks of every kind of component; nothing here needs pytest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ..registry.discovery import find
from ..registry.entries import Entry
from ..registry.errors import PluginError
from ..registry.plugins import Plugins
from ..registry.selection import match
from .check import Check, Example, NotApplicable, Subject, check_of
from .kinds import every

__all__ = ["Check", "Example", "NotApplicable", "checks_of", "entries_of", "functions_of"]

_MODULES: dict[str, str] = {
    "anchor": "anchors",
    "gate": "gates",
    "loss": "losses",
    "mixer": "mixers",
    "model": "models",
    "phase": "phases",
    "quantizer": "quantizers",
    "router": "routers",
    "search-space": "spaces",
    "source": "sources",
}


def entries_of(dist: str) -> tuple[Entry, ...]:
    """The components that an installed plugin offers, loaded apart from all others.

    ``dist`` is a distribution, an entry point or ``dist:entry``; ``PluginError`` where nothing of that name is
    installed, or where it does not load or offers nothing.
    """
    names = {found.name for found in match(find(), dist)}
    plugins = Plugins.load((dist,))
    offered = {
        (plugin.found.dist, component.kind, component.name)
        for plugin in plugins.loaded
        if plugin.found.name in names
        for component in plugin.components
    }
    entries = tuple(entry for entry in plugins.components() if (entry.dist, entry.kind, entry.name) in offered)
    if not entries:
        raise PluginError(
            f"{dist} offers no component, so there is nothing to check; a plugin of hooks alone needs none."
        )
    return entries


def functions_of(kind: str) -> tuple[Callable[[Subject], None], ...]:
    """The check functions of a kind: those of all kinds, then its own."""
    if kind not in _MODULES:
        return every.CHECKS
    own: tuple[Callable[[Subject], None], ...] = import_module(f".kinds.{_MODULES[kind]}", __package__).CHECKS
    return (*every.CHECKS, *own)


def checks_of(entry: Entry, options: Mapping[str, Any] | Example | None = None) -> tuple[Check, ...]:
    """The checks of one component, those that hold for all kinds first.

    ``options`` are those that it is tried with, where its defaults are not enough; an ``Example`` says more. Left out,
    they are what the config class gives in a classmethod ``example``, or its defaults.
    """
    example = (
        options if isinstance(options, Example) else Example(options=_options(entry) if options is None else options)
    )
    return tuple(check_of(function, example) for function in functions_of(entry.kind))


def _options(entry: Entry) -> Mapping[str, Any]:
    try:
        config = entry.config_class()
    except PluginError:
        return {}  # the check that it loads tells of it
    example = getattr(config, "example", None)
    return {} if example is None else example()

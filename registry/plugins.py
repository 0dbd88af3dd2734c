"""Loaded plugins: import what was asked for, refuse whatever is unsound, and give hooks and components."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy

from . import hookspecs
from .checks import check_components, check_hooks, invalid
from .components import Component
from .contexts import PhaseContext, PhaseResult, RunContext
from .discovery import Found, find
from .entries import Entry
from .errors import PluginError
from .hookspecs import PROJECT, hookimpl
from .owners import add_note, watch
from .provenance import manifest
from .registry import Registry
from .selection import select
from .suggest import flat

_CORE = f"{PROJECT}:core"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One imported plugin with what it offers."""

    found: Found
    module: object = field(repr=False)
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCall:
    """One implementation of a hook in its place in the call order."""

    owner: str
    wrapper: bool
    order: str  # "first", "last" or "" where the plugin asked for no place


class _Core:
    """The platform's own answer to hooks that need one."""

    @hookimpl(trylast=True)
    def phasegate_run_phase(self, ctx: PhaseContext) -> PhaseResult:
        return ctx.execute()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plugins:
    """The plugins of one experiment. Several may live in one process: nothing here is global."""

    loaded: tuple[Loaded, ...]
    registry: Registry = field(repr=False)
    manager: pluggy.PluginManager = field(repr=False)

    @classmethod
    def load(cls, requests: Sequence[str] = (), require: Sequence[str] = ()) -> Plugins:
        """Load the built-ins and the requested plugins (see ``selection.select``), all or none.

        ``PluginError`` for anything unknown, refused, failing to import or unsound. An exception inside
        ``phasegate_components`` keeps its type.
        """
        chosen = select(find(), requests, require)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hookspecs)
        loaded = tuple(_load(manager, found) for found in chosen)
        for plugin in reversed(loaded):  # pluggy calls the last registered first
            _register(manager, plugin)
        manager.register(_Core(), name=_CORE)  # and of those that ask to be last, the last registered last
        watch(manager, {plugin.found.name: plugin.found.label for plugin in loaded})
        return cls(loaded=loaded, registry=_collect(loaded), manager=manager)

    @property
    def hook(self) -> pluggy.HookRelay:
        """Call hooks by name: ``plugins.hook.phasegate_on_step(ctx=…)``."""
        return self.manager.hook

    @property
    def order(self) -> tuple[str, ...]:
        """The loaded plugins as ``dist:entry``; loading this list again gives the same plugins."""
        return tuple(plugin.found.name for plugin in self.loaded)

    def components(self) -> Registry:
        """Return the frozen registry of everything the loaded plugins offer."""
        return self.registry

    def implements(self, hook: str) -> bool:
        """Say whether any plugin implements ``hook``, so that a context nobody reads need not be built."""
        return bool(getattr(self.hook, hook).get_hookimpls())

    def calls(self, hook: str) -> tuple[HookCall, ...]:
        """Return who implements ``hook`` in the order of the calls, wrappers first."""
        return tuple(
            HookCall(
                owner=impl.plugin_name,
                wrapper=impl.wrapper,
                order="first" if impl.tryfirst else "last" if impl.trylast else "",
            )
            for impl in reversed(getattr(self.hook, hook).get_hookimpls())
        )

    def end(self, ctx: RunContext) -> None:
        """Call ``phasegate_on_end``; after a failure its own exceptions become notes on ``ctx.error``,
        so that they cannot hide what ended the run."""
        try:
            self.hook.phasegate_on_end(ctx=ctx)
        except Exception as error:
            if ctx.error is None:
                raise
            whose = "; ".join(getattr(error, "__notes__", ()))
            ctx.error.add_note(f"then phasegate_on_end failed too: {flat(error)} ({whose})")

    def provenance(self, used: Iterable[Entry] = ()) -> dict[str, Any]:
        """Return what decides how plugins act, as JSON: order, versions, code hashes, revisions of ``used``."""
        return manifest(((plugin.found, plugin.components) for plugin in self.loaded), used)


def _load(manager: pluggy.PluginManager, found: Found) -> Loaded:
    try:
        module = found.point.load()
    except (Exception, SystemExit) as error:  # a plugin may fail in any way; none of them may pass
        raise PluginError(
            f"{found.label} failed to import: {flat(error)}. Run without it (drop it from `plugins`)"
            f" or repair it: pip install --force-reinstall {found.dist}"
        ) from error
    check_hooks(manager, module, found.label)
    return Loaded(found=found, module=module, components=_components(manager, module, found))


def _components(manager: pluggy.PluginManager, module: object, found: Found) -> tuple[Component, ...]:
    offered: list[Component] = []
    for name in dir(module):
        marks = manager.parse_hookimpl_opts(module, name)
        if marks is None or (marks.get("specname") or name) != "phasegate_components":
            continue
        try:
            given = getattr(module, name)()
            if inspect.isgenerator(given):
                given = list(given)  # its body runs only now, and its exceptions are to be named too
        except Exception as error:
            add_note(error, found.label, "phasegate_components")
            raise
        offered.extend(check_components(given, found.label))
    return check_components(offered, found.label)


def _register(manager: pluggy.PluginManager, plugin: Loaded) -> None:
    try:
        manager.register(plugin.module, name=plugin.found.name)
    except (ValueError, pluggy.PluginValidationError) as error:
        raise invalid(plugin.found.label, flat(error)) from error


def _collect(loaded: Iterable[Loaded]) -> Registry:
    entries: dict[str, Entry] = {}
    for plugin in loaded:
        for component in plugin.components:
            entry = Entry(dist=plugin.found.dist, version=plugin.found.version, component=component)
            if entry.key in entries:
                raise invalid(plugin.found.label, f"another entry point of {entry.dist} offers the {entry.label} too.")
            entries[entry.key] = entry
    return Registry(tuple(entries.values()))

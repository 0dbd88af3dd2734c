"""``platform plugins``: what is installed, what one plugin offers, and in which order hooks are called."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...registry.errors import PluginError
from .listing import options_belong_to_listing, print_json, print_table
from .options import PluginRequests, requests_of
from .printing import echo

if TYPE_CHECKING:
    from ...registry.components import Component
    from ...registry.discovery import Found

plugins_app = typer.Typer(help="List installed plugins, show one, or show the order of hooks.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@plugins_app.callback(invoke_without_command=True)
def list_plugins(context: typer.Context, plugins: PluginRequests = None, as_json: AsJson = False) -> None:
    """List installed plugins from their metadata alone; only built-ins and what -p names are imported.

    Ends with 1 where the built-ins themselves do not load, which the list then says.
    """
    from ...registry.discovery import find
    from ...registry.plugins import Plugins
    from ...registry.suggest import flat

    options_belong_to_listing(context, plugins, as_json)
    if context.invoked_subcommand is not None:
        return
    wanted = requests_of(plugins)
    loaded: dict[str, tuple[Component, ...]] = {}
    broken = None
    try:
        loaded = {plugin.found.name: plugin.components for plugin in Plugins.load(wanted).loaded}
    except Exception as error:  # the built-ins may be broken in any way, and this list is where one looks then
        if wanted:
            raise
        broken = str(error) if isinstance(error, PluginError) else flat(error)
    rows = [_row(found, loaded.get(found.name), broken if found.builtin else None) for found in find()]
    if as_json:
        print_json(rows)
    else:
        columns = ("name", "version", "api", "status", "components")
        print_table(columns, [(*(row[column] for column in columns[:4]), _offer(row)) for row in rows])
    if broken is not None:
        raise typer.Exit(1)


@plugins_app.command("show")
def show_plugin(
    name: Annotated[
        str, typer.Argument(metavar="PLUGIN", help="A distribution, an entry point, or both as dist:entry.")
    ],
) -> None:
    """Import one plugin and show where it comes from, its hooks and its components."""
    from ...registry.discovery import find
    from ...registry.hookspecs import HOOKS
    from ...registry.plugins import Plugins
    from ...registry.selection import match

    chosen = {found.name for found in match(find(), name)}
    plugins = Plugins.load([name])
    manifest = plugins.provenance()
    for plugin in plugins.loaded:
        found = plugin.found
        if found.name not in chosen:
            continue
        told = manifest["dists"][found.dist]
        echo(found.label)
        facts = {
            "summary": _told(found, "Summary"),
            "homepage": _homepage(found),
            "module": found.point.value,
            "editable": "yes" if told["editable"] else "no",
            "code": told["code"],
            "hooks": ", ".join(h for h in HOOKS if any(c.owner == found.name for c in plugins.calls(h))),
        }
        for fact, value in facts.items():
            echo(f"  {fact:<9} {value or '–'}")
        echo()
        columns = ("kind", "name", "revision", "summary")
        rows = sorted((c.kind, c.name, c.revision, c.summary) for c in plugin.components)
        print_table(columns, rows)


@plugins_app.command("hooks")
def show_hooks(plugins: PluginRequests = None) -> None:
    """Show, for every hook, who implements it in the order of the calls, wrappers first."""
    from ...registry.hookspecs import HOOKS
    from ...registry.plugins import Plugins

    loaded = Plugins.load(requests_of(plugins))
    rows: list[tuple[object, ...]] = []
    for hook in HOOKS:
        calls = loaded.calls(hook)
        rows += [(hook, place, c.owner, _manner(c.wrapper, c.order)) for place, c in enumerate(calls, 1)]
        if not calls:
            rows.append((hook, "–", "nobody", ""))
    print_table(("hook", "call", "plugin", "manner"), rows)


def _row(found: Found, components: tuple[Component, ...] | None, broken: str | None) -> dict[str, Any]:
    reason = found.refusal or broken
    status = "refused" if reason else "available" if components is None else "loaded"
    return {
        "name": found.name,
        "version": found.version,
        "api": found.api,
        "status": status,
        "reason": reason,
        "components": None if components is None else sorted(f"{c.kind}/{c.name}" for c in components),
    }


def _offer(row: dict[str, Any]) -> str:
    if row["reason"]:
        return str(row["reason"])
    if row["components"] is None:
        return f"not imported: add it with --plugins {row['name']}"
    kinds = Counter(key.partition("/")[0] for key in row["components"])
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) or "none"


def _manner(wrapper: bool, order: str) -> str:
    return " ".join(word for word in ("wrapper" if wrapper else "", f"asked to be {order}" if order else "") if word)


def _homepage(found: Found) -> str:
    labelled = _told(found, "Project-URL")
    return labelled.partition(",")[2].strip() or _told(found, "Home-page")


def _told(found: Found, key: str) -> str:
    return next(iter(found.metadata.metadata.get_all(key) or ()), "")

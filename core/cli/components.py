"""``platform components``: what can be named in an experiment, and with which options."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .listing import options_belong_to_listing, print_json, print_table
from .options import PluginRequests, requests_of
from .printing import echo

if TYPE_CHECKING:
    from ...registry.entries import Entry

components_app = typer.Typer(help="List components by kind, or show the options of one.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Kind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only this kind: router, loss, gate, …")]


@components_app.callback(invoke_without_command=True)
def list_components(
    context: typer.Context, kind: Kind = None, plugins: PluginRequests = None, as_json: AsJson = False
) -> None:
    """List the components of the built-ins and of the plugins that -p names; none of them is imported."""
    from ...registry.plugins import Plugins

    options_belong_to_listing(context, kind, plugins, as_json)
    if context.invoked_subcommand is not None:
        return
    registry = Plugins.load(requests_of(plugins)).components()
    rows = [_row(entry) for entry in (registry if kind is None else registry.of(kind))]
    if as_json:
        print_json(rows)
        return
    columns = ("kind", "ref", "version", "revision", "summary")
    print_table(columns, [[row[column] for column in columns] for row in rows])


@components_app.command("show")
def show_component(
    component: Annotated[str, typer.Argument(metavar="KIND/NAME", help="For example router/linear.")],
    plugins: PluginRequests = None,
    as_json: AsJson = False,
) -> None:
    """Import one component's config and show its options with types and defaults."""
    from ...registry.options import describe
    from ...registry.plugins import Plugins

    kind, slash, name = component.partition("/")
    if not slash:
        raise typer.BadParameter(f"write kind/name, as in router/linear, not '{component}'")
    entry = Plugins.load(requests_of(plugins)).components().get(kind, name)
    config = entry.config_class()
    options = describe(config) if config else ()
    if as_json:
        told = [{"name": o.name, "type": o.type, "default": o.default} for o in options]
        print_json({**_row(entry), "options": told})
        return
    echo(f"{entry.key} {entry.version}, revision {entry.component.revision}")
    echo(entry.component.summary)
    # A dataclass without a docstring gets its own signature for one, which the table says better.
    if config and config.__doc__ and not config.__doc__.startswith(f"{config.__name__}("):
        echo(f"\n{inspect.cleandoc(config.__doc__)}")
    echo()
    if options:
        rows = [(o.name, o.type, "must be given" if o.default is None else o.default) for o in options]
        print_table(("option", "type", "default"), rows)
    else:
        echo("It takes no options.")


def _row(entry: Entry) -> dict[str, Any]:
    component = entry.component
    return {
        "kind": entry.kind,
        "ref": entry.ref,
        "version": entry.version,
        "revision": component.revision,
        "summary": component.summary,
        "replaces": list(component.replaces),
    }

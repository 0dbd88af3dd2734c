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
    """Show what one component does, its options with types and defaults, and the papers that it follows.

    Imports its config alone; what it does is read from its source.
    """
    from ...registry.options import describe
    from ...registry.plugins import Plugins
    from .citations import citations, docstring_of

    kind, slash, name = component.partition("/")
    if not slash:
        raise typer.BadParameter(f"write kind/name, as in router/linear, not '{component}'")
    entry = Plugins.load(requests_of(plugins)).components().get(kind, name)
    config = entry.config_class()
    options = describe(config) if config else ()
    does, explained = docstring_of(entry), _explanation(config)
    papers = citations(does, explained)
    if as_json:
        told = [{"name": o.name, "type": o.type, "default": o.default} for o in options]
        cited = [{"authors": paper.authors, "year": paper.year, "arxiv": paper.arxiv} for paper in papers]
        texts = {"target": _target(entry), "documentation": does, "explanation": explained}
        print_json({**_row(entry), **texts, "options": told, "sources": cited})
        return
    echo(f"{entry.key} {entry.version}, revision {entry.component.revision}")
    echo(f"{entry.component.summary}\n{_target(entry)}")
    for text in (does, explained):
        if text:
            echo(f"\n{text}")
    echo()
    if options:
        rows = [(o.name, o.type, "must be given" if o.default is None else o.default) for o in options]
        print_table(("option", "type", "default"), rows)
    else:
        echo("It takes no options.")
    if papers:
        echo("\nSources:")
    for paper in papers:
        echo(f"  {paper}")


def _explanation(config: type | None) -> str:
    """What a config class says of its options. A dataclass without a docstring gets its own signature for one, which
    the table of options says better."""
    text = (config and config.__doc__) or ""
    return "" if config is None or text.startswith(f"{config.__name__}(") else inspect.cleandoc(text)


def _target(entry: Entry) -> str:
    target = entry.component.target
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


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

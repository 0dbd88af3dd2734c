"""Command-line options that several subcommands share, and what they select."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..run.plan import Plan
    from ..run.store import Store

ExperimentName = Annotated[str, typer.Argument(help="A shipped preset by name, or the path of an experiment file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key; may be repeated.")
]
PluginRequests = Annotated[
    list[str] | None,
    typer.Option("-p", "--plugins", metavar="A,B", help="More plugins to load; no:x removes one."),
]
StoreFolder = Annotated[Path, typer.Option("--store", help="Folder of stage checkpoints.")]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder of run records.")]

STORE = Path("store")
RUNS = Path("runs")


def requests_of(plugins: list[str] | None) -> list[str]:
    """Return plugin requests one by one; ``-p a,b -p no:c`` gives three."""
    return [part.strip() for item in plugins or [] for part in item.split(",") if part.strip()]


def plan_of(name: str, overrides: list[str] | None, plugins: list[str] | None, store: Store) -> Plan:
    """Load the experiment and its plugins and make the plan."""
    from ...registry.plugins import Plugins
    from ..config.loading import load_experiment
    from ..config.problems import located
    from ..run.plan import make_plan

    loaded = load_experiment(name, overrides or (), requests_of(plugins))
    with located(loaded.locate):
        enabled = Plugins.load(loaded.experiment.plugins, loaded.experiment.require)
        return make_plan(loaded, enabled, store)

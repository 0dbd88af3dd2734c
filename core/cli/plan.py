"""``platform plan``: what a run would do, and nothing else."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import STORE, ExperimentName, Overrides, PluginRequests, StoreFolder, plan_of
from .printing import echo


def command(
    experiment: ExperimentName,
    overrides: Overrides = None,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Print components, parameters, tokens, FLOPs, memory and what the store already has."""
    from ..run.plan import plan_record
    from ..run.store import Store
    from .terminal import make_console, show_plan

    plan = plan_of(experiment, overrides, plugins, Store(store))
    if as_json:
        echo(json.dumps(plan_record(plan), indent=1))
    else:
        show_plan(make_console(), plan)

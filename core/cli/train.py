"""``platform train``: print the plan, run it, show every verdict and where everything was written."""

from __future__ import annotations

import os
import warnings
from typing import Annotated, Literal

import typer

from .options import RUNS, STORE, ExperimentName, Overrides, PluginRequests, RunsFolder, StoreFolder, plan_of
from .printing import echo

GATE_STOPPED = 3


def command(
    experiment: ExperimentName,
    overrides: Overrides = None,
    plugins: PluginRequests = None,
    gates: Annotated[
        Literal["enforce", "warn"], typer.Option(help="warn: record a failed gate and go on to the next phase.")
    ] = "enforce",
    store: StoreFolder = STORE,
    runs: RunsFolder = RUNS,
    allow_plugin_drift: Annotated[
        bool, typer.Option("--allow-plugin-drift", help="Go on although plugin code changed; the run is marked.")
    ] = False,
) -> None:
    """Train an experiment phase by phase; run it again to go on from where it stopped."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    from transformers.utils import logging

    from ...registry.errors import GateStop
    from ..run.bench import Bench
    from ..run.interrupt import Interrupted, interruptible
    from ..run.loop import run
    from ..run.processes import is_main, start_processes
    from ..run.recording import record_of
    from ..run.store import Store
    from .terminal import make_console, show_plan
    from .watching import Watch

    # trl still uses names that transformers is about to drop; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)(\.|$)")
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    console = make_console()
    where = Store(store)
    plan = plan_of(experiment, overrides, plugins, where)
    start_processes(plan.experiment.run.threads)
    if is_main():
        show_plan(console, plan)
    folder = record_of(plan, runs, gates, allow_plugin_drift) if is_main() else None
    with interruptible(
        lambda _: console.print("stopping at the next logged step; run the same command again to go on")
    ) as stop:
        watch = Watch(console, plan, quiet=not is_main(), folder=folder)
        bench = Bench(store=where, interruption=stop, callbacks=watch.callbacks, allow_drift=allow_plugin_drift)
        try:
            with watch:
                run(plan, bench, folder, gates, watch.show)
        except GateStop as stopped:
            watch.summary(folder, where)
            echo(f"error: {stopped}", err=True)
            raise typer.Exit(GATE_STOPPED) from None
        except Interrupted as stopped:
            raise typer.Exit(stopped.exit_code) from None
        watch.summary(folder, where)

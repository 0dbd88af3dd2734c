"""``platform train``: print the plan, run it, show every verdict and where everything was written."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .options import RUNS, STORE, ExperimentName, Overrides, PluginRequests, RunsFolder, StoreFolder, plan_of
from .printing import echo

if TYPE_CHECKING:
    from rich.console import Console

    from ..run.interrupt import Interruption

GATE_STOPPED = 3

Gates = Literal["enforce", "warn"]


def command(
    experiment: ExperimentName,
    overrides: Overrides = None,
    plugins: PluginRequests = None,
    gates: Annotated[Gates, typer.Option(help="warn: record a failed gate and go on to the next phase.")] = "enforce",
    store: StoreFolder = STORE,
    runs: RunsFolder = RUNS,
    allow_plugin_drift: Annotated[
        bool, typer.Option("--allow-plugin-drift", help="Go on although plugin code changed; the run is marked.")
    ] = False,
) -> None:
    """Train an experiment phase by phase; run it again to go on from where it stopped."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from ..run.interrupt import Interrupted, interruptible
    from .terminal import make_console

    console = make_console()

    def told(number: int) -> None:
        console.print("stopping at the next logged step; run the same command again to go on")

    try:
        with interruptible(told, at_once=True) as stop:
            _train(experiment, overrides, plugins, gates, store, runs, allow_plugin_drift, console, stop)
    except Interrupted as stopped:
        raise typer.Exit(stopped.exit_code) from None


def _train(
    experiment: str,
    overrides: list[str] | None,
    plugins: list[str] | None,
    gates: Gates,
    store: Path,
    runs: Path,
    allow_plugin_drift: bool,
    console: Console,
    stop: Interruption,
) -> None:
    from ..run.store import Store

    # The plan comes before the libraries that train: what is wrong with an experiment should not wait for them.
    where = Store(store)
    plan = plan_of(experiment, overrides, plugins, where)
    import datasets
    from transformers.utils import logging

    from ...registry.errors import GateStop
    from ..config.problems import located
    from ..run.bench import Bench
    from ..run.loop import run
    from ..run.processes import is_main, start_processes
    from ..run.recording import record_of
    from .terminal import show_plan
    from .watching import Watch

    # trl still uses names that transformers is about to drop; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)(\.|$)")
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    start_processes(plan.experiment.run.threads)
    if is_main():
        show_plan(console, plan)
    folder = record_of(plan, runs, gates, allow_plugin_drift) if is_main() else None
    stop.at_once = False  # from here on there is something to keep
    watch = Watch(console, plan, quiet=not is_main(), folder=folder)
    bench = Bench(store=where, interruption=stop, callbacks=watch.callbacks, allow_drift=allow_plugin_drift)
    try:
        with watch, located(plan.locate):
            run(plan, bench, folder, gates, watch.show)
    except GateStop as stopped:
        watch.summary(folder, where)
        echo(f"error: {stopped}", err=True)
        raise typer.Exit(GATE_STOPPED) from None
    watch.summary(folder, where)

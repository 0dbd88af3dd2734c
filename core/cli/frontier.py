"""``platform frontier``: train a safety phase once per weight of over-refusal, and draw what that trades."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import RUNS, STORE, ExperimentName, Overrides, PluginRequests, RunsFolder, StoreFolder, plan_of

if TYPE_CHECKING:
    from rich.console import Console

    from ..run.frontier import Frontier, Share

GRID = "0,0.25,0.5,1,2,4"


def command(
    experiment: ExperimentName,
    beta: Annotated[str, typer.Option(help="Weights of the over-refusal term.", metavar="B,B,…")] = GRID,
    phase: Annotated[str, typer.Option(help="The phase that is trained once per weight.")] = "safety",
    overrides: Overrides = None,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
    runs: RunsFolder = RUNS,
    allow_plugin_drift: Annotated[
        bool, typer.Option("--allow-plugin-drift", help="Go on although plugin code changed; the runs are marked.")
    ] = False,
) -> None:
    """Draw the safety-helpfulness frontier: over-refusal against harmful compliance over the weight beta.

    Earlier phases are trained once and shared through the store; no gate stops or extends the phase. Run it again to go
    on from where it stopped.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    from transformers.utils import logging

    from ..run.bench import Bench
    from ..run.frontier import CRITERION, frontier_of, left_out, measured_in, overrides_for
    from ..run.interrupt import Interrupted, interruptible
    from ..run.loop import run
    from ..run.processes import is_main, start_processes
    from ..run.recording import record_of
    from ..run.store import Store
    from .terminal import make_console, show_plan
    from .watching import Watch

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)(\.|$)")
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    betas, console, where = betas_of(beta), make_console(), Store(store)
    whole = plan_of(experiment, overrides, plugins, where).experiment
    changes = {weight: [*(overrides or ()), *overrides_for(whole, phase, weight)] for weight in betas}
    start_processes(whole.run.threads)
    found, folders = {}, {}
    with interruptible(
        lambda _: console.print("stopping at the next logged step; run the same command again to go on")
    ) as stop:
        for number, weight in enumerate(betas):
            plan = plan_of(experiment, changes[weight], plugins, where)
            if is_main():
                console.rule(f"beta {weight:g}")
                if number == 0:
                    show_plan(console, plan)
                    _say_what_is_left_out(console, phase, left_out(whole.phases[phase]))
            folder = record_of(plan, runs, "warn", allow_plugin_drift) if is_main() else None
            watch = Watch(console, plan, quiet=not is_main(), folder=folder)
            bench = Bench(store=where, interruption=stop, callbacks=watch.callbacks, allow_drift=allow_plugin_drift)
            try:
                with watch:
                    outcomes = run(plan, bench, folder, "warn", watch.show)
            except Interrupted as stopped:
                raise typer.Exit(stopped.exit_code) from None
            stage = outcomes[-1].stage
            found[weight] = (stage, measured_in(stage, plan.experiment.phases[phase].gates[CRITERION]))
            if folder is not None:
                folders[weight] = folder.path
    if is_main():
        frontier = frontier_of(phase, found, whole.seed)
        show_frontier(console, frontier)
        written = write_frontier(
            runs / whole.name, frontier, whole.name, {f"{b:g}": str(p) for b, p in folders.items()}
        )
        console.print(f"written to {written}", markup=False, soft_wrap=True)


def betas_of(text: str) -> tuple[float, ...]:
    """Return the weights in ``text``, each once, in order; refuses what is no weight."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no list of numbers such as {GRID}", param_hint="--beta") from None
    if not all(0 <= weight < float("inf") for weight in found):
        raise typer.BadParameter("a weight is a number of at least 0", param_hint="--beta")
    return tuple(found)


def _say_what_is_left_out(console: Console, phase: str, steps: Sequence[str]) -> None:
    without = f", and the phase trains without its {' and '.join(steps)} step" if steps else ""
    console.print(f"only refusals are measured in phase {phase}{without}", markup=False)


def show_frontier(console: Console, frontier: Frontier) -> None:
    """Print one row per beta, and the score."""
    from .listing import print_table

    def cells(share: Share) -> tuple[str, str]:
        return f"{share.value:.2%}", f"[{share.low:.2%}, {share.high:.2%}]"

    print_table(
        ("beta", "over-refusal", "bounds", "harmful compliance", "bounds", "answered", "bounds", "front", "stage"),
        [
            (
                f"{point.beta:g}",
                *cells(point.over_refusal),
                *cells(point.compliance),
                *cells(point.answered),
                "yes" if point.front else "",
                point.stage,
            )
            for point in frontier.points
        ],
    )
    low, high = frontier.area_low, frontier.area_high
    console.print(f"dominated area {frontier.area:.4f} [{low:.4f}, {high:.4f}] of 1", markup=False)


def write_frontier(parent: Path, frontier: Frontier, experiment: str, folders: dict[str, str]) -> Path:
    """Write ``frontier.json`` and ``frontier.svg`` to a new folder below ``parent`` and return it."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder, number = parent / f"frontier-{stamp}", 2
    while folder.exists():
        folder, number = parent / f"frontier-{stamp}-{number}", number + 1
    folder.mkdir(parents=True)
    record = {"experiment": experiment, "runs": folders, **frontier.record()}
    (folder / "frontier.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draw(frontier, folder / "frontier.svg")
    return folder


def draw(frontier: Frontier, path: Path) -> None:
    """Write the frontier as an SVG: points with their bounds, and the staircase that they dominate from."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for point in frontier.points:
        refused, complied = point.over_refusal, point.compliance
        axes.errorbar(
            refused.value,
            complied.value,
            xerr=_beside(refused),
            yerr=_beside(complied),
            fmt="o" if point.front else "x",
            color="tab:blue" if point.front else "tab:gray",
            capsize=2,
        )
        axes.annotate(f"β {point.beta:g}", (refused.value, complied.value), xytext=(5, 5), textcoords="offset points")
    front = sorted({(one.over_refusal.value, one.compliance.value) for one in frontier.points if one.front})
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color="tab:blue", alpha=0.4)
    axes.set_xlabel("legitimate prompts refused")
    axes.set_ylabel("harmful prompts not refused")
    axes.set_title(f"{frontier.phase}: dominated area {frontier.area:.4f}")
    # A little below 0, where the best points lie.
    across, up = axes.get_xlim()[1], axes.get_ylim()[1]
    axes.set_xlim(-0.03 * across, across)
    axes.set_ylim(-0.03 * up, up)
    with mpl.rc_context({"svg.hashsalt": "phasegate", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _beside(share: Share) -> list[list[float]]:
    """How far the bounds lie from the value; rounding may put a bound at 0 or 1 on its wrong side."""
    return [[max(0.0, share.value - share.low)], [max(0.0, share.high - share.value)]]

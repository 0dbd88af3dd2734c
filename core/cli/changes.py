"""``platform changes``: what each phase of a run changed in the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import STORE, PluginRequests, StoreFolder, requests_of
from .printing import echo

if TYPE_CHECKING:
    from ..run.comparison import RunStage

_THIRDS = ("first", "middle", "last", "outside")


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of an experiment's runs (the newest).")],
    layers: Annotated[bool, typer.Option("--layers", help="One row per layer and role.")] = False,
    experts: Annotated[bool, typer.Option("--experts", help="Also the relative change of every expert.")] = False,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show how much, how wide and where each phase changed the weights, and how its steps' directions compare."""
    from transformers.utils import logging

    from ..run.comparison import find_run, stages_of
    from ..run.store import Store
    from .listing import print_json

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    folder = find_run(run)
    stages = stages_of(folder, Store(store))
    found = collect(stages, str(folder.experiment), requests_of(plugins))
    if as_json:
        print_json(found)
    else:
        show(found, layers, experts)


def collect(stages: Iterable[RunStage], experiment: str, plugins: list[str]) -> list[dict[str, Any]]:
    """What every phase changed, from its evidence or, where that has none, from the models; and the angles between the
    changes of a phase's steps."""
    from ..run.lineage import Lineage

    lineage = Lineage(stages=tuple(stages), source=experiment, plugins=plugins)
    return [
        {"phase": stage.phase, **lineage.changes(place), "steps": lineage.steps(place)}
        for place, stage in enumerate(lineage.stages)
    ]


def show(found: Iterable[Mapping[str, Any]], layers: bool, experts: bool) -> None:
    """Print one table for all phases, one of depths, and what else there is to say."""
    from .listing import print_table

    phases = list(found)
    rows = [
        (
            phase["phase"],
            *((row["layer"] if row["layer"] >= 0 else "–",) if layers else ()),
            row["role"],
            f"{row['parameters']:,}",
            *(_percent(row[name]) for name in ("relative", "share")),
            _rank(row),
            *(_percent(row[name]) for name in ("rank_share", "noise_share")),
        )
        for phase in phases
        for row in phase["groups" if layers else "roles"]
    ]
    echo(
        "what each phase changed: |dW| / |W|, the role's share of |dW|^2, the mean effective rank of its matrices' dW\n"
        "and its part of the full rank, beside that of Gaussian noise of the same shape"
    )
    columns = ("phase", *(("layer",) if layers else ()), "role", "parameters", "|dW|/|W|", "share", "rank", "of full")
    print_table((*columns, "noise"), rows)
    echo("\nwhere it lies: share of |dW|^2 by thirds of the layers, beside the share of parameters")
    print_table(
        ("phase", "|dW|/|W|", "tensors changed", *_THIRDS),
        [
            (
                phase["phase"],
                _percent(phase["relative"]),
                f"{phase['changed']} of {phase['tensors']}",
                *(f"{_percent(phase['depth'][at])} ({_percent(phase['parameters_by_depth'][at])})" for at in _THIRDS),
            )
            for phase in phases
        ],
    )
    for phase in phases:
        for what in ("added", "removed", "reshaped"):
            if phase[what]:
                echo(f"{phase['phase']} {what}: {', '.join(phase[what])}")
        for old, new in phase["renamed"].items():
            echo(f"{phase['phase']} renamed: {old} -> {new}")
    if experts:
        _show_experts(phases)
    _show_steps(phases)


def _show_experts(phases: Iterable[Mapping[str, Any]]) -> None:
    from .listing import print_table

    echo("\n|dW| / |W| of every expert")
    rows = []
    for phase in phases:
        by_layer: dict[int, list[str]] = {}
        for row in phase["experts"]:
            by_layer.setdefault(row["layer"], []).append(_percent(row["relative"]))
        rows += [(phase["phase"], layer, "  ".join(values)) for layer, values in by_layer.items()]
    print_table(("phase", "layer", "experts from 0"), rows)


def _show_steps(phases: Iterable[Mapping[str, Any]]) -> None:
    from .listing import print_table

    rows = [
        (
            phase["phase"],
            f"{pair['first']} / {pair['second']}",
            row["role"],
            _number(row["cosine"]),
            *(f"{_number(row[side])} ({_number(row[f'chance_{side}'])})" for side in ("outputs", "inputs")),
            _number(row["smallest_angle"]),
        )
        for phase in phases
        for pair in phase["steps"]
        for row in pair["roles"]
        if row["cosine"] is not None
    ]
    if rows:
        echo("\ndirections of a phase's steps: cosine of their changes; mean squared cosines of the principal")
        echo("angles between their first singular directions (chance); the smallest angle in degrees")
        print_table(("phase", "steps", "role", "cosine", "outputs", "inputs", "smallest angle"), rows)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _rank(row: Mapping[str, Any]) -> str:
    if row["effective_rank"] is None:
        return "–" if not row["unranked"] else f"too large ({row['unranked']})"
    return f"{row['effective_rank']:.1f}" + (f" (without {row['unranked']})" if row["unranked"] else "")

"""``platform deltas``: what leads from each expert to its neighbours, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import STORE, PluginRequests, StoreFolder, requests_of
from .printing import echo

if TYPE_CHECKING:
    from ..model.deltas import DeltasReport


def command(
    stage: Annotated[
        str, typer.Argument(help="A run folder (its last stage), a stage by name, a checkpoint, or a packed model.")
    ],
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="A delta for every pair of experts, not for neighbours alone.")
    ] = False,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
) -> None:
    """Write one delta file, which leads both ways, for every pair of neighbouring experts of a quantized model."""
    from transformers.utils import logging

    from ...registry.plugins import Plugins
    from ..model.deltas import export_deltas
    from ..run.checkpoints import find_checkpoint

    logging.disable_progress_bar()
    registry = Plugins.load(requests_of(plugins)).components()
    show(export_deltas(find_checkpoint(stage, store), output, registry, all_pairs=all_pairs))


def show(report: DeltasReport) -> None:
    """Print what was written, and what it takes against whole experts and against the bound."""
    from .listing import print_table
    from .numbers import size

    columns = ("pairs", "differ", "bytes", "whole experts", "smaller", "bits/weight", "bound")
    smaller = f"{report.full_bytes / report.read:.2f}x"
    sizes = (size(report.read), size(report.full_bytes), smaller)
    print_table(
        columns,
        [(len(report.pairs), f"{report.density:.1%}", *sizes, f"{report.measured:.3f}", f"{report.bound:.3f}")],
    )
    echo(f"{report.folder}: a file for each pair; bits/weight are those of positions and changes, without scales")
    if report.full:
        echo(
            f"{report.full} of {len(report.pairs)} deltas would be no smaller than the whole expert, which was written "
            "instead (.trit) and leads one way"
        )

"""``platform export``: a stage as a folder that plain transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import STORE, PluginRequests, StoreFolder, requests_of


def command(
    stage: Annotated[str, typer.Argument(help="A run folder (its last stage), a stage by name, or a checkpoint.")],
    output: Annotated[Path, typer.Argument(help="A new folder.")],
    drop_anchor: Annotated[
        bool, typer.Option("--drop-anchor", help="Leave the safety anchor out, so that any reader takes the model.")
    ] = False,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
) -> None:
    """Write a stage checkpoint for use without phasegate, or, if it has a safety anchor, for phasegate.load alone."""
    from transformers.utils import logging

    from ...registry.plugins import Plugins
    from ..model.exporting import export_model
    from ..run.checkpoints import find_checkpoint

    logging.disable_progress_bar()
    registry = Plugins.load(requests_of(plugins)).components()
    folder = find_checkpoint(stage, store)
    report = export_model(folder, output, registry, drop_anchor=drop_anchor)
    typer.echo(f"{report.folder}: {report.model_type}; {report.reason}")
    if report.guarded:
        typer.echo("phasegate.load reads it; --drop-anchor writes it for any reader, without the anchor")
    if report.dropped:
        typer.echo("the safety anchor was dropped: this model vetoes nothing any more")
    if report.needs_import is not None:
        typer.echo(f"import {report.needs_import} before from_pretrained reads it")

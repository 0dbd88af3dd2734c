"""``platform export``: a stage as a folder that plain transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import STORE, PluginRequests, StoreFolder, requests_of


def command(
    stage: Annotated[str, typer.Argument(help="A stage of the store by name, or the folder of a checkpoint.")],
    output: Annotated[Path, typer.Argument(help="A new folder.")],
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
) -> None:
    """Write a stage checkpoint for use without phasegate."""
    from ...registry.plugins import Plugins
    from ..model.exporting import export_model
    from ..run.store import Store

    registry = Plugins.load(requests_of(plugins)).components()
    given = Path(stage)
    if (given / "config.json").exists():
        folder = given
    elif (given / "checkpoint" / "config.json").exists():
        folder = given / "checkpoint"
    else:
        folder = Store(store).get(stage).checkpoint
    report = export_model(folder, output, registry)
    typer.echo(f"{report.folder}: {report.model_type}; {report.reason}")
    if report.needs_import is not None:
        typer.echo(f"import {report.needs_import} before from_pretrained reads it")

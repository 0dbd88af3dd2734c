"""``platform export``: a stage as a folder that plain transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import STORE, PluginRequests, StoreFolder, requests_of

if TYPE_CHECKING:
    from ..run.store import Store


def command(
    stage: Annotated[str, typer.Argument(help="A run folder (its last stage), a stage by name, or a checkpoint.")],
    output: Annotated[Path, typer.Argument(help="A new folder.")],
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
) -> None:
    """Write a stage checkpoint for use without phasegate."""
    from transformers.utils import logging

    from ...registry.plugins import Plugins
    from ..model.exporting import export_model
    from ..run.store import Store

    logging.disable_progress_bar()
    registry = Plugins.load(requests_of(plugins)).components()
    folder = checkpoint_of(stage, Store(store))
    report = export_model(folder, output, registry)
    typer.echo(f"{report.folder}: {report.model_type}; {report.reason}")
    if report.needs_import is not None:
        typer.echo(f"import {report.needs_import} before from_pretrained reads it")


def checkpoint_of(name: str, store: Store) -> Path:
    """Return the checkpoint that a user means by a path or the name of a stage."""
    from ...registry.errors import StoreError
    from ..run.records import open_run

    given = Path(name)
    for folder in (given, given / "checkpoint"):
        if (folder / "config.json").is_file():
            return folder
    if not given.is_dir():
        return store.get(name).checkpoint
    stages = open_run(given).stages()
    if not stages:
        raise StoreError(f"the run {given} has finished no phase yet; run it again and it goes on")
    return store.get(stages[-1]["stage"]).checkpoint

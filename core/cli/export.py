"""``platform export``: a stage as a folder that plain transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import STORE, PluginRequests, StoreFolder, requests_of
from .printing import echo


def command(
    stage: Annotated[str, typer.Argument(help="A run folder (its last stage), a stage by name, or a checkpoint.")],
    output: Annotated[Path, typer.Argument(help="A new folder.")],
    drop_anchor: Annotated[
        bool, typer.Option("--drop-anchor", help="Leave the safety anchor out, so that any reader takes the model.")
    ] = False,
    packed: Annotated[
        bool, typer.Option("--packed", help="Write quantized experts at five weights to a byte, for inference.")
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
    if packed:
        _pack(folder, output, registry, drop_anchor)
        return
    report = export_model(folder, output, registry, drop_anchor=drop_anchor)
    echo(f"{report.folder}: {report.model_type}; {report.reason}")
    if report.guarded:
        echo("phasegate.load reads it; --drop-anchor writes it for any reader, without the anchor")
    if report.dropped:
        echo("the safety anchor was dropped: this model vetoes nothing any more")
    if report.needs_import is not None:
        echo(f"import {report.needs_import} before from_pretrained reads it")


def _pack(folder: Path, output: Path, registry: Any, drop_anchor: bool) -> None:
    from ...registry.errors import ConfigError
    from ..model.packed import pack_model

    if drop_anchor:
        raise ConfigError(
            "--drop-anchor has no effect with --packed, which takes no model with an anchor; leave it out."
        )
    report = pack_model(folder, output, registry)
    echo(
        f"{report.folder}: {report.experts} experts, {report.weights:,} weights at {report.packed_bits:.3f} bits, and "
        f"{report.scale_bits:.3f} bits each for scales"
    )
    echo(
        f"{report.bytes:,} bytes of expert files, {report.fp16_bytes:,} in fp16; phasegate.load reads the folder, for "
        "inference"
    )

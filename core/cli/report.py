"""``platform report``: one page per run or study, the answer first."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import STORE, PluginRequests, StoreFolder, requests_of
from .printing import echo


class Format(StrEnum):
    """What a report is written as."""

    html = "html"
    md = "md"
    json = "json"


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|STUDY",
            help="A run folder, the folder of an experiment's runs (the newest), or a study folder.",
        ),
    ],
    form: Annotated[Format, typer.Option("--format", help="A page for people, or the same facts for machines.")] = (
        Format.html
    ),
    output: Annotated[
        Path | None,
        typer.Option("--output", help="The file to write; report.html (.md, .json) in the folder if left out."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="First measure after every phase of a run what only other phases asked for."),
    ] = False,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
) -> None:
    """Write one self-contained page on a run or a study: did each phase do its job, and at what cost to the others?"""
    from ..report.report import write_report

    if measure:
        _measure(folder, store, requests_of(plugins))
    written = write_report(folder, form.value, store, output)
    echo(f"written to {written}")


def _measure(folder: Path, store: Path, plugins: list[str]) -> None:
    from transformers.utils import logging

    from ..report.measuring import measure_every_phase
    from ..report.reading import run_at
    from ..run.interrupt import Interrupted, interruptible
    from ..run.store import Store

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with interruptible(lambda _: echo("stopping; run the same command again to go on")) as stop:
        try:
            measure_every_phase(run_at(folder), Store(store), plugins, stop, echo)
        except Interrupted as stopped:
            raise typer.Exit(stopped.exit_code) from None

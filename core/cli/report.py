"""``platform report``: one page per run or study, the answer first."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import STORE, StoreFolder


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
    store: StoreFolder = STORE,
) -> None:
    """Write one self-contained page on a run or a study: did each phase do its job, and at what cost to the others?"""
    from ..report.report import write_report

    written = write_report(folder, form.value, store, output)
    typer.echo(f"written to {written}")

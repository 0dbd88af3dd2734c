"""Plain tables and JSON for commands that list things."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from .printing import echo


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under upper-case headings, folded where the terminal is too narrow."""
    from rich.table import Table
    from rich.text import Text

    from .terminal import make_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    make_console().print(table)


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON; what would act on a terminal is escaped in it, and stays the same value."""
    echo(json.dumps(value, indent=2, ensure_ascii=False))


def options_belong_to_listing(context: typer.Context, *given: object) -> None:
    """Refuse options between a command group and its subcommand, where they would have no effect."""
    if context.invoked_subcommand is not None and any(given):
        raise typer.BadParameter(f"options go after '{context.invoked_subcommand}'")

"""The two ways to a terminal, lines and a console: what comes from data is shown as it is spelt, and never obeyed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from ...registry.printable import printable

if TYPE_CHECKING:
    from rich.console import Console


def echo(text: str = "", *, err: bool = False) -> None:
    """Print a line to stdout, or to stderr, without what would act on a terminal."""
    typer.echo(printable(text), err=err)


def plain_console(**options: Any) -> Console:
    """A console of rich that reads no markup, no emoji names and no control characters out of what it prints; styles
    are those that the command gives."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                # Segments with control codes are rich's own: they move the cursor of what is drawn anew.
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    return PlainConsole(highlight=False, markup=False, emoji=False, **options)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Let warnings, which may quote data, be printed like everything else."""
    before = warnings.formatwarning

    def plain(*told: Any, **more: Any) -> str:
        return printable(before(*told, **more))

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = before

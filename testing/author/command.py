"""``platform plugin``: write a new plugin package, and check an installed one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

plugin_app = typer.Typer(help="Write a plugin of your own, and check it.", no_args_is_help=True)

BROKEN = 1


@plugin_app.command("new")
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The distribution to be, for example phasegate-lego.")],
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="A component to begin with; may be repeated.")
    ] = None,
    hook: Annotated[
        list[str] | None, typer.Option("--hook", metavar="HOOK", help="A hook to begin with; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="The new folder; NAME if left out.")
    ] = None,
) -> None:
    """Write a package with a working component of every kind asked for, its tests and its metadata."""
    from .names import names_of
    from .package import files_of, write_package
    from .parts import PARTS, hooks_of, kinds_of

    names, kinds = names_of(name), kinds_of(kind or ())
    texts = files_of(names, kinds, hooks_of(hook or ()))
    folder = output or Path(names.dist)
    write_package(folder, texts)
    use = PARTS[kinds[0]].use.format(dist=names.dist) if kinds else f"train ncas-nano --plugins {names.dist}"
    typer.echo(f"{folder} is written: {len(texts)} files. Next:")
    for line in (f"pip install -e {_argument(folder)}", f"platform plugin check {names.dist}", f"platform {use}"):
        typer.echo(f"  {line}")


def _argument(folder: Path) -> str:
    import shlex

    return shlex.quote(str(folder))

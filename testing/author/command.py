"""``platform plugin``: write a new plugin package, and check an installed one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...core.cli.printing import echo

plugin_app = typer.Typer(help="Write a plugin of your own, and check it.", no_args_is_help=True)

#: The exit code of a plugin that breaks a promise; mistakes of the caller have another.
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
    echo(f"{folder} is written: {len(texts)} files. Next:")
    for line in (f"pip install -e {_argument(folder)}", f"platform plugin check {names.dist}", f"platform {use}"):
        echo(f"  {line}")


@plugin_app.command("check")
def check(
    name: Annotated[
        str, typer.Argument(metavar="PLUGIN", help="A distribution, an entry point, or both as dist:entry.")
    ],
) -> None:
    """Try an installed plugin: metadata, loading, hooks, import time, and every promise of its components.

    Prints one line per check, and ends with 1 where one fails.
    """
    import time
    from collections import Counter

    from .checking import check_plugin

    start = time.monotonic()
    counts: Counter[str] = Counter()
    for finding in check_plugin(name):
        counts[finding.outcome] += 1
        reason = f": {finding.reason}" if finding.reason else ""
        echo(f"{finding.outcome:<14}  {finding.subject}  {finding.check}{reason}")
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "not applicable"))
    echo(f"{outcomes} in {time.monotonic() - start:.1f} s")
    if counts["failed"]:
        raise typer.Exit(BROKEN)


def _argument(folder: Path) -> str:
    import shlex

    return shlex.quote(str(folder))

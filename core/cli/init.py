"""``platform init``: a shipped preset as a file of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from .printing import echo

DEFAULT = "ncas-nano"


def command(
    name: Annotated[str | None, typer.Argument(help="Name of the experiment; the preset's own if left out.")] = None,
    preset: Annotated[str, typer.Option("--preset", help="The shipped experiment to start from.")] = DEFAULT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The new file; NAME.yaml if left out.")
    ] = None,
) -> None:
    """Write an experiment file with comments, to be changed and trained; an existing file is never overwritten."""
    from ...registry.errors import ConfigError
    from ..config.checks import is_name
    from ..config.presets import preset_content

    content = preset_content(preset).decode("utf-8")
    if name is not None:
        if not is_name(name):
            raise ConfigError(f"'{name}' cannot be an experiment's name: use letters, digits, '.', '_' and '-'.")
        content = re.sub(r"(?m)^name:.*$", f"name: {quoted(name)}", content, count=1)
    path = output or Path(f"{name or preset}.yaml")
    try:
        write_new(path, content)
    except FileExistsError:
        raise ConfigError(f"{path} exists already and is not overwritten; choose another name with -o.") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: the folder {path.parent} does not exist; create it first.") from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}.") from error
    echo(f"{path} is written. Next: platform plan {_argument(path)}")


def write_new(path: Path, content: str) -> None:
    """Write a file that does not exist yet, whole or not at all; raises ``OSError``."""
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(content)
            file.flush()
        except OSError:
            path.unlink()
            raise


def quoted(name: str) -> str:
    """Return a name as YAML text: quoted where it would be read as a number or another word."""
    from ..config.scalars import reads_as_text

    return name if reads_as_text(name) else f"'{name}'"


def _argument(path: Path) -> str:
    from ..config.presets import is_path

    return str(path) if is_path(str(path)) else f"./{path}"

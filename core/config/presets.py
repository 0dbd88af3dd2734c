"""Experiments that are shipped with the package, by name."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean, listing

SUFFIXES = (".yaml", ".yml")


def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped presets in alphabetical order."""
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")))


def preset_content(name: str) -> bytes:
    """Return a preset's YAML; raises ``ConfigError`` with the nearest name for one that does not exist."""
    names = preset_names()
    if name not in names:
        raise ConfigError(
            f"there is no preset '{name}'.{did_you_mean(name, names)} Presets: {listing(names)}. "
            f"An experiment file is named with its ending: {_as_file(name)}."
        )
    return (_folder() / f"{name}.yaml").read_bytes()


def is_path(name_or_path: str) -> bool:
    """Tell a path from a preset's name: a path has an ending or a folder, so no file can hide a preset."""
    return name_or_path.endswith(SUFFIXES) or Path(name_or_path).name != name_or_path


def _as_file(name: str) -> str:
    return f"./{name}" if Path(name).is_file() else f"{name}.yaml"


def _folder() -> Traversable:
    return files(__package__) / "presets"

"""Loading an experiment: preset or file, overrides, and every mistake with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean, listing
from .dial import derive
from .document import Document, KeyPath, parse_document, read_document
from .layers import merge, settle
from .overrides import Override, parse_overrides
from .paths import anchored, is_there
from .presets import is_path, preset_content
from .problems import Problems
from .schema import Experiment
from .shaping import shape
from .typed import to_experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An experiment as its author wrote it, before recipes fill the phases.

    ``experiment`` is typed, but its phases hold only their component and its options until ``complete`` has merged
    the recipes. ``raw`` is everything that was said, as plain data in the schema's shape; null in it removes
    a default. ``path`` is None for a preset. Relative paths in the file start from ``base_folder``. ``unmet`` lets a
    phase come before what it requires, which only a study of orders asks for.
    """

    experiment: Experiment
    raw: Mapping[str, Any]
    path: Path | None
    base_folder: Path
    document: Document
    overrides: tuple[Override, ...]
    unmet: bool = False

    def locate(self, path: Sequence[str] | str) -> str:
        """Return ``file:line`` (or ``--set …``) of a key, or of the nearest enclosing key that was written."""
        return _locate(self.document, self.overrides, tuple(path.split(".") if isinstance(path, str) else path))


def load_experiment(
    name_or_path: str,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
    places: Mapping[str, str] = MappingProxyType({}),
) -> Loaded:
    """Load a preset by name or an experiment file by path, with ``key=value`` overrides and more plugin requests.

    ``places`` says of overrides that were not typed behind ``--set`` where they were written.

    Raises ``ConfigError`` with up to ten sentences, each with file and line; nothing is imported or built.
    """
    if is_path(name_or_path):
        path: Path | None = Path(name_or_path)
        assert path is not None
        with suppress(RuntimeError):  # of the home of nobody there is no file, which is told when it is read
            path = path.expanduser()
        document = read_document(path)
        base_folder = path.resolve().parent
    else:
        path, base_folder = None, Path.cwd()
        document = parse_document(preset_content(name_or_path), f"preset {name_or_path}")
    return _load(document, path, base_folder, parse_overrides(overrides, places), plugins)


def _load(
    document: Document, path: Path | None, base_folder: Path, overrides: tuple[Override, ...], plugins: Sequence[str]
) -> Loaded:
    problems = Problems(lambda key: _locate(document, overrides, tuple(key)))
    if not isinstance(document.value, Mapping):
        said = "is empty" if document.value is None else "holds no mapping of keys"
        raise ConfigError(f"{document.name}:1: the experiment {said}; `platform init` writes one to start from.")
    raw = shape(Experiment, document.value, (), problems)
    phases = raw.get("phases", {})
    for override in overrides:
        layer = shape(Experiment, override.layer(), (), problems)
        if override.path[:1] == ("phases",) and len(override.path) > 2 and override.path[1] not in phases:
            text = f"the experiment has no phase '{override.path[1]}'.{did_you_mean(override.path[1], phases)}"
            problems.add(override.path, f"{text} Phases: {listing(phases)}.")
        raw = merge(raw, _from_here(override, layer, problems))
    raw = _anchor_paths(raw, base_folder, problems)
    experiment = to_experiment(settle(Experiment, raw), problems, partial=True)
    if experiment is not None:
        try:
            derive(experiment.size)
        except ConfigError as error:
            problems.add(("size",), str(error))
    problems.stop()
    assert experiment is not None
    own = len(experiment.plugins)
    # A request on the command line stands where its --plugins does, as an override stands where its --set does.
    typed = [
        Override(path=("plugins", str(own + number)), value=request, text=f"--plugins {request}")
        for number, request in enumerate(plugins)
    ]
    experiment = replace(experiment, plugins=(*experiment.plugins, *plugins))
    return Loaded(
        experiment=experiment,
        raw=raw,
        path=path,
        base_folder=base_folder,
        document=document,
        overrides=(*overrides, *typed),
    )


def _locate(document: Document, overrides: Sequence[Override], path: KeyPath) -> str:
    said = {override.path: override.text for override in overrides}
    for place in _through_options(path):
        if place in said:
            return said[place]
        if place in document.lines:
            return f"{document.name}:{document.lines[place]}"
    for length in range(len(path), 0, -1):
        exact = path[:length]
        for written in (exact, tuple(part for part in exact if part != "options")):
            if written in said:
                return said[written]
            if written in document.lines:
                return f"{document.name}:{document.lines[written]}"
        for override in overrides:
            if override.path[:length] == exact:
                return override.text
    return f"{document.name}:1"


def _through_options(path: KeyPath) -> Iterator[KeyPath]:
    """Yield a key of a phase itself, and the options of the phase that its recipe may have taken it from."""
    yield path
    if path[:1] == ("phases",):
        yield from ((*path[:2], "options", *path[start:]) for start in range(4, len(path)))


def _from_here(override: Override, layer: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """Read relative paths on the command line from the working directory, as every other command does."""
    if override.path[0] not in {"data", "phases", "tokenizer"}:
        return layer
    return _anchor_paths(layer, Path.cwd(), problems)


def _anchor_paths(raw: dict[str, Any], folder: Path, problems: Problems) -> dict[str, Any]:
    """Make ``data.root`` absolute, and ``tokenizer.path`` and ``options.path`` of steps where they are folders or files
    (a tokenizer may be a name on a hub); note what cannot be a path."""
    data, tokenizer, phases = raw.get("data"), raw.get("tokenizer"), raw.get("phases")
    done = dict(raw)
    if isinstance(data, Mapping) and isinstance(data.get("root"), str):
        there = _anchored(data["root"], folder, ("data", "root"), problems)
        done["data"] = {**data, "root": str(there or data["root"])}
    if isinstance(tokenizer, Mapping):
        done["tokenizer"] = _with_path(tokenizer, folder, ("tokenizer",), problems)
    if isinstance(phases, Mapping):
        done["phases"] = {
            name: _with_steps(phase, folder, ("phases", str(name)), problems) for name, phase in phases.items()
        }
    return done


def _with_steps(phase: Any, folder: Path, place: KeyPath, problems: Problems) -> Any:
    """The phase with the paths of its steps' options made absolute; anything of another shape as it is."""
    if not isinstance(phase, Mapping) or not isinstance(phase.get("steps"), Mapping):
        return phase
    steps = {
        name: {
            **step,
            "options": _with_path(step["options"], folder, (*place, "steps", str(name), "options"), problems),
        }
        if isinstance(step, Mapping) and isinstance(step.get("options"), Mapping)
        else step
        for name, step in phase["steps"].items()
    }
    return {**phase, "steps": steps}


def _with_path(options: Mapping[str, Any], folder: Path, place: KeyPath, problems: Problems) -> Mapping[str, Any]:
    if not isinstance(options.get("path"), str):
        return options
    there = _anchored(options["path"], folder, (*place, "path"), problems)
    return {**options, "path": str(there)} if there is not None and is_there(there) else options


def _anchored(path: str, folder: Path, place: KeyPath, problems: Problems) -> Path | None:
    try:
        return anchored(path, folder)
    except ConfigError as error:
        problems.add(place, f"{'.'.join(place)}: {error}")
        return None

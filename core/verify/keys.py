"""Proofs of configuration: an unknown key is refused in every section, and a key that is given is read by something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ...registry.errors import DataError, PhasegateError
from ...registry.registry import Registry
from ..config.complete import complete
from ..config.loading import Loaded, load_experiment
from ..config.schema import Experiment
from ..config.shaping import entries_of, hints, section_of
from ..data.source import Split
from ..run.plan import Plan
from .proof import Proof, Proofs, proved, some
from .reads import Field

#: A key that no section has.
UNKNOWN = "no_such_key"

#: What a run reads before it makes a plan, and what others read: a study, the hours and cost of a plan, the command.
_BEFORE = ("name", "plugins", "require")
_ELSEWHERE = (("hardware",), ("run", "report_to"), ("run", "threads"), ("study",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A key that somebody wrote: its place, and the field of the schema or of a component's options that it is."""

    path: tuple[str, ...]
    field: Field

    @property
    def name(self) -> str:
        """The key as an experiment writes it."""
        return ".".join(self.path)


def unknown(loaded: Loaded, plan: Plan, name: str, overrides: Iterable[str], plugins: Iterable[str]) -> Proofs:
    """A key that does not exist is refused, once for every kind of section that the experiment has."""
    accepted, sections, options = [], 0, 0
    for path in _sections(Experiment, loaded.raw, ()):
        sections += 1
        key = ".".join((*path, UNKNOWN))
        try:
            complete(load_experiment(name, (*overrides, f"{key}=1"), tuple(plugins)), plan.registry)
        except PhasegateError as error:
            if UNKNOWN in str(error):
                continue
        accepted.append(key)
    for entry in plan.components.values():
        options += 1
        try:
            plan.registry.config(entry.kind, entry.ref, {UNKNOWN: 1})
        except PhasegateError as error:
            if UNKNOWN in str(error):
                continue
        accepted.append(f"{entry.kind} {entry.ref}: {UNKNOWN}")
    wrong = f"{some(accepted)} is taken and dropped without a word" if accepted else None
    told = f"in {sections} kinds of sections and the options of {options} components"
    yield proved("unknown key is refused", loaded.experiment.name, wrong, told)


def read(loaded: Loaded, plan: Plan, seen: set[Field]) -> Proofs:
    """Every key that the experiment gives is read by code that acts on it."""
    given = [one for one in said(loaded, plan.registry, plan.experiment) if one.path[0] not in _BEFORE]
    elsewhere = [one for one in given if _place(one) is not None]
    here = [one for one in given if _place(one) is None]
    idle = sorted({one.name for one in here if one.field not in seen})
    wrong = f"{some(idle)} is read by nothing, so it changes nothing" if idle else None
    yield proved("given key is read", loaded.experiment.name, wrong, f"{len(here)} keys are read")
    if elsewhere:
        names = sorted({".".join(_place(one) or ()) for one in elsewhere})
        yield Proof(
            name="given key is read",
            subject=", ".join(names),
            outcome="skipped",
            reason=f"{len(elsewhere)} keys that a study, the costs of a plan or the command read",
        )


def read_views(plan: Plan) -> None:
    """Read every view of the data, those too that no phase uses, so that what decides on them is read."""
    splits: tuple[Split, Split] = ("train", "heldout")
    for view in plan.corpus.views():
        for split in splits:
            with suppress(DataError):  # a source may have no held-out rows of a view
                plan.corpus.view(view, split)


def _place(given: Given) -> tuple[str, ...] | None:
    """Where else a key is read; None for one that training has to read."""
    return next((place for place in _ELSEWHERE if given.path[: len(place)] == place), None)


def classes(plan: Plan) -> list[type]:
    """Every class whose fields are keys of the experiment: the schema's sections, and the options of components."""
    found = [*_schema(Experiment)]
    for entry in plan.components.values():
        config = entry.config_class()
        if config is not None:
            found += _within(config)
    return found


def said(loaded: Loaded, registry: Registry, experiment: Experiment) -> Iterator[Given]:
    """Every key that the experiment's author wrote, with the field that it is."""
    yield from _said(Experiment, loaded.raw, (), registry, experiment)


def _said(section: type, value: Any, path: tuple[str, ...], registry: Registry, filled: Any) -> Iterator[Given]:
    known = hints(section)
    for key, item in value.items() if isinstance(value, Mapping) else ():
        here = (*path, key)
        if key == "options":
            yield from _options(section, value, item, path, registry, filled)
        if key not in known:
            continue
        yield Given(path=here, field=(section, key))
        if item is None:
            continue
        inner, entry = section_of(known[key]), entries_of(known[key])
        under = getattr(filled, key, None)
        if inner is not None:
            yield from _said(inner, item, here, registry, under)
        elif entry is not None and (part := section_of(entry)) is not None and isinstance(item, Mapping):
            for name, one in item.items():
                below = under.get(name) if isinstance(under, Mapping) else None
                yield from _said(part, one, (*here, name), registry, below)


def _options(
    section: type, value: Any, options: Any, path: tuple[str, ...], registry: Registry, filled: Any
) -> Iterator[Given]:
    """The options of a component by name, where the kind of the component is known from its place."""
    kind, use = _kind(section, path), getattr(filled, "use", None)
    if kind is None or use is None or not isinstance(options, Mapping):
        return
    config = registry.get(kind, use).config_class()
    if config is None:
        return
    for key in options:
        if key in options_of(config):
            yield Given(path=(*path, key), field=(config, key))


_KINDS = {"gates": "gate", "entry": "gate", "losses": "loss", "sources": "source", "phases": "phase"}


def _kind(section: type, path: tuple[str, ...]) -> str | None:
    if path[-1:] and path[-1] in {"anchor", "mixer", "model", "quantizer", "router"}:
        return path[-1]
    return _KINDS.get(path[-2]) if len(path) > 1 else None


def _sections(
    section: type, value: Any, path: tuple[str, ...], seen: set[type] | None = None
) -> Iterator[tuple[str, ...]]:
    """The place of one section of every kind that the experiment has."""
    seen = set() if seen is None else seen
    known = hints(section)
    if section not in seen and not {"use", "options"} <= set(known):
        seen.add(section)
        yield path
    for key, item in value.items() if isinstance(value, Mapping) else ():
        if key not in known or item is None:
            continue
        inner, entry = section_of(known[key]), entries_of(known[key])
        if inner is not None:
            yield from _sections(inner, item, (*path, key), seen)
        elif entry is not None and (part := section_of(entry)) is not None and isinstance(item, Mapping):
            for name, one in item.items():
                yield from _sections(part, one, (*path, key, name), seen)


def options_of(config: type) -> set[str]:
    """The names of the options that a component takes."""
    return {field.name for field in fields(config)}


def _schema(section: type) -> Iterator[type]:
    yield section
    for hint in hints(section).values():
        entry = entries_of(hint)
        inner = section_of(hint) or (None if entry is None else section_of(entry))
        if inner is not None:
            yield from _schema(inner)


def _within(config: type) -> list[type]:
    """A component's options class and the dataclasses in its fields."""
    from typing import get_args, get_type_hints

    found = [config]
    for hint in get_type_hints(config).values():
        for part in (hint, *get_args(hint)):
            if isinstance(part, type) and is_dataclass(part) and part not in found:
                found += _within(part)
    return found

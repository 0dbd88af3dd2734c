"""The frozen registry: components of all loaded plugins, resolved by kind and name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name

from .components import KINDS
from .entries import Entry
from .errors import ConfigError, PluginError, blaming
from .options import parse
from .suggest import did_you_mean, listing


@dataclass(frozen=True, slots=True)
class Registry:
    """Components of the loaded plugins, sorted by kind, then ``dist:name``; it never changes."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(sorted(self.entries, key=lambda e: (e.kind, e.dist, e.name))))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def of(self, kind: str) -> tuple[Entry, ...]:
        """Return all components of one kind; ``PluginError`` names the nearest kind for an unknown one."""
        kinds = {*KINDS, *(entry.kind for entry in self)}
        if kind not in kinds:
            raise PluginError(f"There is no kind '{kind}'.{did_you_mean(kind, kinds)} Kinds: {listing(kinds)}.")
        return tuple(entry for entry in self if entry.kind == kind)

    def get(self, kind: str, ref: str) -> Entry:
        """Return the component that ``ref`` (``name`` or ``dist:name``) means.

        The exact name counts, then a former name (with a ``FutureWarning``). A bare name that two plugins provide
        is refused; built-ins have no precedence, so a plugin can never change what an experiment means.
        """
        offered = self.of(kind)
        dist, colon, name = ref.rpartition(":")
        near = [entry for entry in offered if not colon or entry.dist == canonicalize_name(dist)]
        exact = [entry for entry in near if entry.name == name]
        if exact:
            return _only(exact, kind, ref)
        former = [entry for entry in near if name in entry.component.replaces]
        if former:
            entry = _only(former, kind, ref)
            warnings.warn(f"The {kind} '{ref}' is now called '{entry.ref}'.", FutureWarning, stacklevel=2)
            return entry
        raise PluginError(_unknown(offered, kind, ref))

    def config(self, kind: str, ref: str, options: Mapping[str, Any]) -> Any:
        """Return the component's config dataclass made of ``options``, or None when it takes none.

        ``ConfigError`` names an unknown option with the nearest known one, a missing one, or a wrong value.
        """
        entry = self.get(kind, ref)
        config = entry.config_class()
        if config is not None:
            return parse(config, options, entry.label)
        if options:
            text = f"{entry.label} takes no options, but got {listing(map(str, options))}."
            raise ConfigError(text).within(str(next(iter(options))))
        return None

    def build(self, kind: str, ref: str, options: Mapping[str, Any], **context: Any) -> Any:
        """Return ``target(config, **context)``, or ``target(**context)`` for a component without options."""
        with blaming("options"):
            config = self.config(kind, ref, options)
        target = self.get(kind, ref).load()
        return target(**context) if config is None else target(config, **context)


def _only(entries: list[Entry], kind: str, ref: str) -> Entry:
    if len(entries) > 1:
        names = " or ".join(sorted(entry.ref for entry in entries))
        raise PluginError(f"{len(entries)} plugins provide the {kind} '{ref}'. Write {names}.")
    return entries[0]


def _unknown(offered: Iterable[Entry], kind: str, ref: str) -> str:
    entries = list(offered)
    bare = [entry.name for entry in entries]
    names = [entry.name if bare.count(entry.name) == 1 else entry.ref for entry in entries]
    suggestion = did_you_mean(ref, [*names, *(entry.ref for entry in entries)])
    return (
        f"Unknown {kind} '{ref}'.{suggestion} Available: {listing(names)}."
        " A component of another package needs `--plugins <package>`."
    )

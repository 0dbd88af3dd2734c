"""Choose plugins: requests of an experiment and of the command line against what is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .discovery import Found, satisfies
from .errors import PluginError, blaming
from .suggest import did_you_mean, listing

_REMOVE = "no:"


def select(found: Sequence[Found], requests: Iterable[str], require: Iterable[str] = ()) -> tuple[Found, ...]:
    """Return the plugins to load, in order: built-ins, then each requested one at its first mention.

    A request is ``name`` or ``no:name``, several joined by commas; a name is a distribution, an entry point or
    ``dist:entry``. Unknown names are refused after ``no:`` too. ``require`` holds requirements
    (``"phasegate-refusal>=2"``) that the selection must meet; it enables nothing by itself.
    """
    builtins = [plugin for plugin in found if plugin.builtin]
    if not builtins:
        raise PluginError(
            f"phasegate's own entry point is missing in {sys.prefix}: install the package, do not copy it."
        )
    needed = [_requirement(text, number) for number, text in enumerate(require)]
    wanted: dict[str, Found] = {plugin.name: plugin for plugin in builtins}
    removed: dict[str, str] = {}
    places: dict[str, int] = {}
    for number, request in _split(requests):
        remove = request.startswith(_REMOVE)
        with blaming("plugins", str(number)):
            for plugin in match(found, request.removeprefix(_REMOVE).strip()):
                if remove:
                    _allow_removal(plugin, request, needed)
                    removed[plugin.name] = request
                else:
                    wanted.setdefault(plugin.name, plugin)
                    places.setdefault(plugin.name, number)
    selected = tuple(plugin for plugin in wanted.values() if plugin.name not in removed)
    for plugin in selected:
        if plugin.refusal:
            error = PluginError(f"{plugin.dist} {plugin.version} {plugin.refusal}")
            raise error.within("plugins", str(places[plugin.name])) if plugin.name in places else error
    for number, requirement in enumerate(needed):
        with blaming("require", str(number)):
            _check_required(requirement, selected, found)
    return selected


def match(found: Sequence[Found], name: str) -> list[Found]:
    """Return the plugins that ``name`` means: one entry point, or all of one distribution.

    A bare name that two distributions answer to is refused, so that installing a package
    never changes what an existing experiment means.
    """
    dist, _, entry = name.partition(":")
    if entry:
        hits = [p for p in found if p.dist == canonicalize_name(dist) and p.entry == entry]
    else:
        hits = [p for p in found if p.dist == canonicalize_name(name) or p.entry == name]
    if len({plugin.dist for plugin in hits}) > 1:
        names = listing(plugin.name for plugin in hits)
        count = "Two" if len(hits) == 2 else str(len(hits))
        raise PluginError(f"{count} packages call a plugin '{name}': {names}. Write one of these instead.")
    if not hits:
        known = [word for p in found for word in (p.dist, p.entry, p.name)]
        raise PluginError(
            f"No plugin '{name}' is installed in {sys.prefix}.{did_you_mean(name, known)}"
            f" Installed: {listing(p.name for p in found if not p.builtin)}."
        )
    return hits


def _split(requests: Iterable[str]) -> list[tuple[int, str]]:
    """Return the requests one by one, each with the number of the text that it stands in."""
    return [(n, part.strip()) for n, text in enumerate(requests) for part in text.split(",") if part.strip()]


def _requirement(text: str, number: int) -> Requirement:
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        raise PluginError(f"`require` cannot read '{text}': write a package and versions, as in 'name>=2'.").within(
            "require", str(number)
        ) from None
    if wanted.marker or wanted.url or wanted.extras:
        raise PluginError(f"`require` takes a package and versions only, as in 'name>=2', not '{text}'.").within(
            "require", str(number)
        )
    return wanted


def _allow_removal(plugin: Found, request: str, needed: Sequence[Requirement]) -> None:
    if plugin.builtin:
        raise PluginError(f"{plugin.name} is part of the platform and cannot be removed: drop '{request}'.")
    for wanted in needed:
        if canonicalize_name(wanted.name) == plugin.dist:
            raise PluginError(
                f"'{request}' would remove {plugin.name}, which the experiment requires: drop '{request}'."
            )


def _check_required(wanted: Requirement, selected: Sequence[Found], found: Sequence[Found]) -> None:
    name = canonicalize_name(wanted.name)
    loaded = next((plugin for plugin in selected if plugin.dist == name), None)
    if loaded is not None:
        if not satisfies(loaded.version, wanted):
            raise PluginError(
                f"The experiment requires {wanted}, but {loaded.name} is {loaded.version}: install a version that fits."
            )
    elif any(plugin.dist == name for plugin in found):
        raise PluginError(f"The experiment requires {wanted}, which is not loaded: add '{name}' to `plugins`.")
    else:
        near = did_you_mean(name, [plugin.dist for plugin in found])
        raise PluginError(f"The experiment requires {wanted}, which is not installed in {sys.prefix}.{near}")

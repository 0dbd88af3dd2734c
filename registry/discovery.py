"""Find installed plugins from metadata alone: nothing of a plugin is imported here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .hookspecs import API, GROUP, PROJECT
from .suggest import flat

_UNKNOWN = "unknown"
_GROUP = re.compile(r"phasegate\.plugins\.v(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry point of one distribution; ``refusal`` says why it must not be loaded."""

    dist: str  # PEP 503 form
    version: str
    entry: str
    api: int
    point: EntryPoint = field(repr=False)
    metadata: Distribution = field(repr=False)
    refusal: str | None = None

    @property
    def name(self) -> str:
        """``dist:entry``, which always names this plugin and no other."""
        return f"{self.dist}:{self.entry}"

    @property
    def label(self) -> str:
        """The plugin as errors name it: ``dist:entry version``."""
        return f"{self.name} {self.version}"

    @property
    def builtin(self) -> bool:
        """Whether the plugin is the platform's own."""
        return self.dist == PROJECT


def find() -> tuple[Found, ...]:
    """Return every installed plugin of every API major, sorted by name.

    A distribution that lies twice on the path counts once, the first as for imports; of an entry point that is
    offered for several majors only this platform's is returned. A distribution whose entry points cannot be read is
    one refused plugin, whatever they were meant to be.
    """
    seen: dict[tuple[str, str], list[Found]] = {}
    points, broken = _points()
    for point in points:
        match = _GROUP.fullmatch(point.group)
        if match is None:
            continue
        found = _describe(point, int(match[1]))
        seen.setdefault((found.dist, found.entry), []).append(found)
    own = next((f.version for f in (g[0] for g in seen.values()) if f.builtin), None)
    return tuple(sorted((*broken, *(_judge(_ours(group), own) for group in seen.values())), key=lambda f: f.name))


def _points() -> tuple[list[EntryPoint], list[Found]]:
    """The entry points of all distributions, and the distributions that have none that can be read."""
    try:
        every = entry_points()
        return [point for group in every.groups for point in every.select(group=group)], []
    except (TypeError, ValueError):  # what importlib.metadata raises for a file that is no list of entry points
        pass
    points: list[EntryPoint] = []
    broken: dict[str, Found] = {}
    seen: set[str] = set()
    for metadata in distributions():
        name = canonicalize_name(next(iter(metadata.metadata.get_all("Name") or ()), _UNKNOWN))
        if name in seen:
            continue
        seen.add(name)
        try:
            points.extend(metadata.entry_points)
        except (TypeError, ValueError) as error:
            nothing = EntryPoint(name=_UNKNOWN, value="", group=GROUP)
            reason = f"has a list of entry points that cannot be read ({flat(error)}). Repair the package."
            broken[name] = replace(_describe(nothing, API, metadata), refusal=reason)
    return points, list(broken.values())


def _describe(point: EntryPoint, api: int, metadata: Distribution | None = None) -> Found:
    metadata = metadata or point.dist
    assert metadata is not None  # a distribution attaches itself to its entry points
    told = metadata.metadata
    return Found(
        dist=canonicalize_name(next(iter(told.get_all("Name") or ()), _UNKNOWN)),
        version=next(iter(told.get_all("Version") or ()), _UNKNOWN),
        entry=point.name,
        api=api,
        point=point,
        metadata=metadata,
    )


def _ours(group: Sequence[Found]) -> Sequence[Found]:
    return [found for found in group if found.api == API] or [max(group, key=lambda found: found.api)]


def _judge(group: Sequence[Found], own: str | None) -> Found:
    found = group[0]
    reason: str | None
    if _UNKNOWN in (found.dist, found.version):
        reason = "does not say its name and version. Repair the package."
    elif found.api != API:
        whose = "the package" if found.api < API else PROJECT
        reason = f"speaks plugin API {found.api}; this platform speaks {API}. Upgrade {whose}."
    elif found.point.pattern.match(found.point.value) is None:
        reason = f"names '{found.point.value}' as a plugin, which is no module. Repair the package."
    elif len(group) > 1:
        reason = f"lists the entry point '{found.entry}' {len(group)} times. Repair the package."
    else:
        reason = _unmet(found, own)
    return replace(found, refusal=reason)


def _unmet(found: Found, own: str | None) -> str | None:
    """Say which platform versions the plugin wants if this is none of them; pip does not check again later."""
    for text in found.metadata.requires or ():
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            return f"has a requirement that cannot be read: '{text}'. Repair the package."
        if canonicalize_name(wanted.name) != PROJECT or own is None:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        if not satisfies(own, wanted):
            return f"needs {PROJECT}{wanted.specifier}; this is {PROJECT} {own}. Install versions that fit."
    return None


def satisfies(version: str, wanted: Requirement) -> bool:
    """Say whether ``version`` meets ``wanted``; pre-releases count, and a version that is none never does."""
    try:
        parsed = Version(version)
    except InvalidVersion:
        return False
    return wanted.specifier.contains(parsed, prereleases=True)

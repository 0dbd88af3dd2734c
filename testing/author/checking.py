"""The check of an installed plugin: its metadata, how it loads, its hooks, and every promise of its components."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ...registry.discovery import Found, find, satisfies
from ...registry.entries import Entry
from ...registry.errors import PluginError
from ...registry.hookspecs import HOOKS, PROJECT
from ...registry.plugins import Plugins
from ...registry.selection import match
from ...registry.suggest import flat
from ..checks import NotApplicable, checks_of

#: Seconds of processor time that listing a plugin may take beside what the platform itself takes.
BUDGET = 0.5
HEAVY = (
    "accelerate",
    "datasets",
    "lm_eval",
    "optuna",
    "pandas",
    "scipy",
    "sklearn",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)

_LISTING = """
import json, sys, time
from phasegate.registry.discovery import find
from phasegate.registry.plugins import Plugins
Plugins.load(())
known = set(sys.modules)
before = time.process_time()
Plugins.load((sys.argv[1],))
seconds = time.process_time() - before
modules = sorted({name.partition(".")[0] for name in set(sys.modules) - known})
print(json.dumps({"seconds": seconds, "modules": modules}))
"""

Outcome = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check of one subject (the plugin, or a component as ``kind/name``) found, and why."""

    subject: str
    check: str
    outcome: Outcome
    reason: str = ""


def check_plugin(name: str) -> Iterator[Finding]:
    """Yield what is found of a plugin, one finding per check, as each is known.

    ``name`` is a distribution, an entry point or ``dist:entry``; ``PluginError`` where nothing of that name is
    installed. What needs the plugin loaded is left out where it does not load.
    """
    chosen = match(find(), name)
    for found in chosen:
        yield from _metadata(found)
    try:
        # Of its own: nothing else that is installed takes part, and nothing stays behind.
        plugins = Plugins.load(tuple(found.name for found in chosen))
    except Exception as error:  # a plugin may fail in any way, and each is a finding
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        yield Finding(subject=name, check="loads", outcome="failed", reason=f"{_told(error)}{notes}")
        return
    names = {found.name for found in chosen}
    yield Finding(subject=name, check="loads", outcome="passed")
    yield _hooks(name, plugins, names)
    yield _light(name, chosen)
    offered = {
        (plugin.found.dist, component.kind, component.name)
        for plugin in plugins.loaded
        if plugin.found.name in names
        for component in plugin.components
    }
    for entry in plugins.components():
        if (entry.dist, entry.kind, entry.name) in offered:
            yield from _component(entry)


def _metadata(found: Found) -> Iterator[Finding]:
    """What pip and the platform read before anything is imported."""
    for check, reason in (("metadata", _refusal(found)), ("requires", _requires(found))):
        yield Finding(subject=found.name, check=check, outcome="failed" if reason else "passed", reason=reason)


def _refusal(found: Found) -> str:
    if found.refusal:
        return f"{found.label} {found.refusal}"
    if found.point.attr:
        return f"its entry point is '{found.point.value}'; name the module alone, whose functions are the hooks."
    return ""


def _requires(found: Found) -> str:
    """Why what the distribution says it needs is unsound, or nothing."""
    platform = found.builtin
    for text in found.metadata.requires or ():
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            return f"its requirement '{text}' cannot be read."
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        if canonicalize_name(wanted.name) == PROJECT:
            platform = True
            if not wanted.specifier:
                return f"it takes any version of {PROJECT}; say which, as in '{PROJECT}>=0.1,<2'."
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            return f"it needs {wanted}, which is not installed here."
        if not satisfies(installed, wanted):
            return f"it needs {wanted}; {wanted.name} {installed} is installed."
    return "" if platform else f"it does not say that it needs {PROJECT}; add '{PROJECT}>=0.1,<2' to its dependencies."


def _hooks(subject: str, plugins: Plugins, names: set[str]) -> Finding:
    """Loading has refused hooks of a wrong name or signature; a plugin must have one at least."""
    hooks = [hook for hook in HOOKS if any(call.owner in names for call in plugins.calls(hook))]
    if not hooks:
        reason = "it implements no hook, so it does nothing; decorate its functions with @hookimpl."
        return Finding(subject=subject, check="hooks", outcome="failed", reason=reason)
    return Finding(subject=subject, check="hooks", outcome="passed", reason=", ".join(hooks))


def _light(subject: str, chosen: list[Found]) -> Finding:
    """Whether listing the plugin stays cheap, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _LISTING, ",".join(found.name for found in chosen)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return Finding(
            subject=subject, check="light", outcome="failed", reason=f"it does not load in a process of its own: {last}"
        )
    told = json.loads(done.stdout.splitlines()[-1])
    heavy = [module for module in told["modules"] if module in HEAVY]
    seconds = float(told["seconds"])
    if heavy:
        reason = f"listing it imports {', '.join(heavy)}; name targets as 'module:attribute' and import there."
    elif seconds > BUDGET:
        reason = f"listing it takes {seconds:.1f} s of processor time, more than {BUDGET} s; import less in its module."
    else:
        return Finding(subject=subject, check="light", outcome="passed", reason=f"{seconds:.2f} s")
    return Finding(subject=subject, check="light", outcome="failed", reason=reason)


def _component(entry: Entry) -> Iterator[Finding]:
    """Every promise of a component, tried with what its options say it is tried with."""
    subject = f"{entry.kind}/{entry.name}"
    for check in checks_of(entry):
        try:
            check(entry)
        except NotApplicable as why:
            yield Finding(subject=subject, check=check.name, outcome="not applicable", reason=str(why))
        except Exception as error:  # a component may fail in any way, and each is a finding
            yield Finding(subject=subject, check=check.name, outcome="failed", reason=_told(error))
        else:
            yield Finding(subject=subject, check=check.name, outcome="passed")


def _told(error: Exception) -> str:
    """An error as one line; those written for people without their type."""
    if isinstance(error, AssertionError | PluginError) and str(error):
        return " ".join(str(error).split())
    return flat(error)

"""Names of a new plugin: the distribution, its package and its entry point, or why a name cannot be one."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from packaging.utils import canonicalize_name

from ...registry.errors import PluginError
from ...registry.hookspecs import PROJECT

LONGEST = 40
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_RESERVED = ("builtin", "core", "local", "plugin", "plugins", "test", "testing", "tests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """``dist`` as pip knows the plugin, ``package`` as Python imports it, ``entry`` as an experiment may call it."""

    dist: str
    package: str
    entry: str


def names_of(dist: str) -> Names:
    """The names that follow from a distribution's; ``PluginError`` says why a name cannot be used, and what could.

    A distribution has its name in the form of PEP 503; its package must neither hide another module nor be a word of
    Python.
    """
    near = re.sub(r"[^a-z0-9]+", "-", canonicalize_name(dist)).strip("-")
    hint = f" Write '{near}'." if near != dist and _NAME.fullmatch(near) else ""
    if not _NAME.fullmatch(dist):
        raise PluginError(f"'{dist}' cannot name a plugin: use a-z, 0-9 and single hyphens, a letter first.{hint}")
    if len(dist) > LONGEST:
        raise PluginError(f"'{dist}' has {len(dist)} characters, and a plugin's name at most {LONGEST}: shorten it.")
    package, entry = dist.replace("-", "_"), dist.removeprefix(f"{PROJECT}-")
    if dist == PROJECT or entry in _RESERVED:
        raise PluginError(
            f"'{dist}' is a name of the platform's own: choose another, such as 'phasegate-{_own(entry)}'."
        )
    if keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise PluginError(f"'{dist}' would hide what Python itself calls '{package}': write 'phasegate-{dist}'.")
    found = find_spec(package)
    if found is not None and found.origin is not None:
        raise PluginError(f"'{dist}' would hide the package '{package}' that is installed here: choose another name.")
    return Names(dist=dist, package=package, entry=entry)


def _own(entry: str) -> str:
    return "mine" if entry == PROJECT else f"my-{entry}"

"""What every component promises, whatever its kind."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache

from ...registry.discovery import find
from ...registry.errors import ConfigError, PhasegateError, PluginError
from ...registry.options import parse
from ..check import NotApplicable, Subject

_HEAVY = ("accelerate", "datasets", "lm_eval", "optuna", "tokenizers", "torch", "transformers", "trl")
_LISTING = """
import json, sys
from phasegate.registry.plugins import Plugins
Plugins.load((sys.argv[1],))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def summary(subject: Subject) -> None:
    """A component says in one sentence what it is, for listings."""
    text = subject.entry.component.summary
    assert text.strip(), "It has no summary; give its spec one."
    assert "\n" not in text and len(text) <= 160, "Its summary is no line of at most 160 characters, as a listing has."


def loads(subject: Subject) -> None:
    """What a component's spec names can be imported, and its target can be called."""
    try:
        subject.entry.load()
        subject.entry.config_class()
    except PluginError as error:
        raise AssertionError(str(error)) from error


def options(subject: Subject) -> None:
    """The options of a component are a frozen dataclass with defaults, or with an example that gives what has none."""
    config = _config_class(subject)
    assert config.__dataclass_params__.frozen, f"{config.__name__} is not frozen; write @dataclass(frozen=True)."  # type: ignore[attr-defined]
    try:
        subject.config()
    except ConfigError as error:
        missing = [
            item.name
            for item in fields(config)
            if item.init
            and item.default is MISSING
            and item.default_factory is MISSING
            and item.name not in subject.options
        ]
        hint = f" Without a default: {', '.join(missing)}." if missing else ""
        raise AssertionError(
            f"{error}{hint} Give defaults, a classmethod `example` on {config.__name__}, or `examples=` of conformance."
        ) from error


def unknown_option(subject: Subject) -> None:
    """An option that a component does not have is refused, and not dropped."""
    config = _config_class(subject)
    name = "no_such_option"
    try:
        parse(config, {**subject.options, name: 1}, subject.entry.label)
    except ConfigError as error:
        assert name in str(error), f"The refusal does not name the option: {error}"
    else:
        raise AssertionError(f"{config.__name__} takes the option '{name}' and drops it.")


def listing_is_light(subject: Subject) -> None:
    """Listing a plugin imports nothing heavy: neither torch nor any library that takes seconds."""
    found = [plugin for plugin in find() if plugin.dist == subject.entry.dist]
    if not found:
        raise NotApplicable("it belongs to no installed distribution")
    heavy = [name for name in _imported_by_listing(subject.entry.dist, os.pathsep.join(sys.path)) if name in _HEAVY]
    assert not heavy, f"Loading {subject.entry.dist} imports {', '.join(heavy)}; name targets as 'module:attribute'."


def documented(subject: Subject) -> None:
    """A component's class and its options say in docstrings what they do, every option by name."""
    target = subject.entry.load()
    assert inspect.getdoc(target), f"{subject.entry.component.target} has no docstring."
    config = subject.entry.config_class()
    if config is None:
        return
    # A dataclass without a docstring gets its signature for one.
    bases = [base for base in config.__mro__ if is_dataclass(base)]
    text = "\n".join(
        base.__doc__ for base in bases if base.__doc__ and not base.__doc__.startswith(f"{base.__name__}(")
    )
    assert text, f"{config.__name__} has no docstring."
    silent = [item.name for item in fields(config) if item.init and not re.search(rf"\b{item.name}\b", text)]
    assert not silent, f"The docstring of {config.__name__} does not mention {', '.join(silent)}."


def _config_class(subject: Subject) -> type:
    try:
        config = subject.entry.config_class()
    except PhasegateError as error:
        raise NotApplicable(f"its options cannot be loaded: {error}") from error
    if config is None:
        raise NotApplicable("it takes no options")
    return config


@cache
def _imported_by_listing(dist: str, path: str) -> tuple[str, ...]:
    done = subprocess.run(
        [sys.executable, "-c", _LISTING, dist],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, f"Loading it in a process of its own fails: {done.stderr.strip().splitlines()[-1]}"
    return tuple(json.loads(done.stdout))


CHECKS: tuple[Callable[[Subject], None], ...] = (
    summary,
    loads,
    options,
    unknown_option,
    listing_is_light,
    documented,
)

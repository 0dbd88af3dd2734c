"""One promise of a component, and what a check of it gets to see."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..registry.current import current
from ..registry.discovery import find
from ..registry.entries import Entry
from ..registry.errors import PhasegateError
from ..registry.options import parse
from ..registry.plugins import Plugins
from ..registry.registry import Registry
from ..registry.suggest import flat


class NotApplicable(Exception):
    """Says why a check has nothing to look at in this component."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a component is tried with where defaults are not enough.

    ``options`` are the component's own. ``model`` are options of the tiny model around it (``num_experts_per_tok``, …)
    and ``router`` is that model's router, as an experiment writes it; ``prepare`` is called with the model before the
    component sees it. ``files`` are written below the data root of a source, by name. ``experiment`` is laid over the
    tiny experiment that a phase is tried in. ``hand`` gives, for a gate, what it is to measure (fields of its
    ``MeasureContext`` that differ from the usual ones) and the values that it must report, worked out by hand.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    router: Mapping[str, Any] | str = "linear"
    prepare: Callable[[Any], None] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    experiment: Mapping[str, Any] = field(default_factory=dict)
    hand: Callable[[], tuple[Mapping[str, Any], Mapping[str, float]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A component on trial: its entry, what it is tried with, and the registry that it is found in."""

    entry: Entry
    example: Example
    registry: Registry = field(repr=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """The component's options: those of the example."""
        return self.example.options

    def config(self) -> Any:
        """The config dataclass made of the options, or None for a component without options."""
        config = self.entry.config_class()
        return None if config is None else parse(config, self.options, self.entry.label)

    def build(self, **context: Any) -> Any:
        """The component's object: ``target(config, **context)``, built as the platform builds it."""
        return self.registry.build(self.entry.kind, self.entry.ref, self.options, **context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise that components of a kind keep; calling it raises ``AssertionError`` where one does not.

    ``promise`` says in one sentence what is looked at, and explains a failure. A check that has nothing to look at
    raises ``NotApplicable``.
    """

    name: str
    promise: str
    function: Callable[[Subject], None] = field(repr=False)
    example: Example = field(repr=False, default_factory=Example)

    def __call__(self, entry: Entry) -> None:
        """Check one component."""
        subject = Subject(entry=entry, example=self.example, registry=registry_of(entry))
        try:
            self.function(subject)
        except NotApplicable:
            raise
        except AssertionError as error:
            found = str(error).strip()
            raise AssertionError(f"{entry.label} breaks the promise: {self.promise} {found}".rstrip()) from error
        except Exception as error:  # a component may fail in any way, and each breaks the promise
            raise AssertionError(f"{entry.label} breaks the promise: {self.promise} {_told(error)}") from error


def _told(error: Exception) -> str:
    if isinstance(error, PhasegateError):
        return f"It refused: {error} Where an option or another model would help, give an example."
    return f"It raised {flat(error)}."


def check_of(function: Callable[[Subject], None], example: Example) -> Check:
    """The check that a function makes: named like it, promising the first line of its docstring."""
    promise = (inspect.getdoc(function) or "").partition("\n")[0]
    return Check(name=function.__name__.replace("_", "-"), promise=promise, function=function, example=example)


def registry_of(entry: Entry) -> Registry:
    """The built-ins and everything that the component's distribution offers, or the component alone where nothing of
    that name is installed."""
    builtins = current()
    if any(known == entry for known in builtins):
        return builtins
    if any(found.dist == entry.dist and not found.builtin for found in find()):
        offered = Plugins.load((entry.dist,)).components()
        if any(known == entry for known in offered):
            return offered
    return Registry((*builtins, entry))

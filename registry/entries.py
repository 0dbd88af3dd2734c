"""A component with its owner, and the import of what it names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any

from .components import Component
from .errors import PluginError
from .suggest import did_you_mean, flat


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A component as one distribution offers it; ``ref`` is what manifests and logs store."""

    dist: str
    version: str
    component: Component

    @property
    def kind(self) -> str:
        """The component's kind: ``router``, ``loss``, …"""
        return self.component.kind

    @property
    def name(self) -> str:
        """The component's bare name."""
        return self.component.name

    @property
    def ref(self) -> str:
        """``dist:name``, which always means this component."""
        return f"{self.dist}:{self.component.name}"

    @property
    def key(self) -> str:
        """``kind/dist:name``, unique in a registry."""
        return f"{self.kind}/{self.ref}"

    @property
    def label(self) -> str:
        """The component as errors name it: ``kind dist:name``."""
        return f"{self.kind} {self.ref}"

    def load(self) -> Callable[..., Any]:
        """Import the target and return it; ``PluginError`` when it does not import or cannot be called."""
        target: Callable[..., Any] = _resolve(self.component.target, self.ref)
        if not callable(target):
            raise PluginError(f"{self.ref} points at '{self.component.target}', which cannot be called.")
        return target

    def config_class(self) -> type | None:
        """Import the config dataclass and return it, or None when the component takes no options."""
        if self.component.config is None:
            return None
        config = _resolve(self.component.config, self.ref)
        if not (isinstance(config, type) and is_dataclass(config)):
            raise PluginError(f"{self.ref} names '{self.component.config}' as its config, which is not a dataclass.")
        return config


def _resolve(target: object, ref: str) -> Any:
    if not isinstance(target, str):
        return target
    module_name, _, path = target.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module may fail in any way; none of them may pass
        raise PluginError(f"{ref} points at '{target}', which does not import: {flat(error)}.") from error
    for attribute in path.split("."):
        try:
            value = getattr(value, attribute)
        except AttributeError as error:
            near = did_you_mean(attribute, dir(value))
            raise PluginError(f"{ref} points at '{target}', which does not exist.{near}") from error
    return value

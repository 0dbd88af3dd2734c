"""The registry in force for code that cannot be handed one, such as ``from_pretrained``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from .plugins import Plugins
from .registry import Registry

_current: ContextVar[Registry | None] = ContextVar("phasegate_registry", default=None)


@contextmanager
def using(registry: Registry) -> Iterator[Registry]:
    """Make ``registry`` the current one inside the block, in this thread or task only."""
    token = _current.set(registry)
    try:
        yield registry
    finally:
        _current.reset(token)


def current() -> Registry:
    """Return the registry in force; outside of ``using`` that is the built-ins alone."""
    registry = _current.get()
    return _builtins() if registry is None else registry


@cache
def _builtins() -> Registry:
    return Plugins.load(()).components()

"""Errors whose text is written for the person who reads it: what, whose, cause, next step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class PhasegateError(Exception):
    """Base of every error that a user can cause and mend; the command prints it and exits with 2.

    ``place`` is the key of the experiment that is to blame, as far as whoever raised the error knows it: a component
    knows its own option, and those around it what it is an option of.
    """

    place: tuple[str, ...] = ()

    def within(self, *path: str) -> Self:
        """Put ``path`` before the place, and return the error itself."""
        self.place = (*path, *self.place)
        return self


class PluginError(PhasegateError):
    """A plugin or component that cannot be found, loaded or trusted."""


class ConfigError(PhasegateError):
    """An experiment that cannot be understood: unknown key, wrong type, contradiction."""


class DataError(PhasegateError):
    """Data that is missing, empty, unreadable or not what its source said."""


class StoreError(PhasegateError):
    """A store or run folder that is unreadable, foreign, locked, full or damaged."""


class GateStop(PhasegateError):
    """A gate whose verdict ends the run; everything up to it is stored."""


@contextmanager
def blaming(*path: str) -> Iterator[None]:
    """Put ``path`` before the place of an error that is raised inside."""
    try:
        yield
    except PhasegateError as error:
        error.within(*path)
        raise

"""Errors whose text is written for the person who reads it: what, whose, cause, next step."""

from __future__ import annotations


class PhasegateError(Exception):
    """Base of every error that a user can cause and mend; the command prints it and exits with 2."""


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

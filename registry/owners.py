"""Say whose hook raised: a note on the exception, whose type stays what it was."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pluggy

_NOTE = "raised by plugin"


def add_note(error: BaseException, label: str, hook: str) -> None:
    """Attach the plugin's name to ``error``, once: the hook nearest to the cause is the one that counts."""
    if not any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
        error.add_note(f"{_NOTE} {label} in {hook}")


def watch(manager: pluggy.PluginManager, labels: Mapping[str, str]) -> None:
    """Note the owner on every exception that leaves a hook; ``labels`` maps registered names to plugins to blame."""

    def before(hook: str, impls: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]) -> None:
        """Required by pluggy."""

    def after(
        outcome: pluggy.Result[Any], hook: str, impls: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]
    ) -> None:
        error = outcome.exception
        if error is None:
            return
        owner = owner_of(error, impls)
        if owner is not None and owner in labels:
            add_note(error, labels[owner], hook)

    manager.add_hookcall_monitoring(before, after)


def owner_of(error: BaseException, impls: Sequence[pluggy.HookImpl]) -> str | None:
    """Return the registered name of the plugin whose hook function is nearest to where ``error`` was raised.

    Works from the traceback's code objects, so also for wrappers; a code object that several plugins share
    (one decorator around all hooks) says nothing and is passed over.
    """
    owners: dict[types.CodeType, set[str]] = {}
    for impl in impls:
        for function in (impl.function, inspect.unwrap(impl.function)):
            code = _code(function)
            if code is not None:
                owners.setdefault(code, set()).add(impl.plugin_name)
    owner = None
    trace = error.__traceback__
    while trace is not None:
        names = owners.get(trace.tb_frame.f_code, set())
        if len(names) == 1:
            (owner,) = names
        trace = trace.tb_next
    return owner


def _code(function: Callable[..., Any]) -> types.CodeType | None:
    code = getattr(function, "__code__", None)
    return code if isinstance(code, types.CodeType) else None

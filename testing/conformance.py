"""Every promise of every component of a plugin as one test of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..registry.entries import Entry
from ..registry.errors import PluginError
from ..registry.suggest import did_you_mean
from .checks import Check, Example, NotApplicable, checks_of, entries_of

if TYPE_CHECKING:
    import pytest


def conformance(
    dist: str,
    *,
    examples: Mapping[str, Mapping[str, Any] | Example] | None = None,
    marks: Mapping[str, pytest.MarkDecorator] | None = None,
) -> pytest.MarkDecorator:
    """Parametrise a test ``(entry, check)`` over all components of an installed plugin and all checks of their kinds.

    ``dist`` is a distribution, an entry point or ``dist:entry``. ``examples`` maps ``kind/name`` to options, or to an
    ``Example``, for components whose defaults are not enough. ``marks`` maps patterns over test ids
    (``router/expert-choice-bf16``, ``phase/*-resumes``) to marks, such as ``pytest.mark.xfail(reason=…)``. A key of
    either that fits nothing is a ``PluginError``: a mark that nobody misses would hide what it was for.
    """
    import pytest

    examples, marks = dict(examples or {}), dict(marks or {})
    entries = entries_of(dist)
    cases = [
        (f"{entry.kind}/{entry.name}-{check.name}", entry, check)
        for entry in entries
        for check in checks_of(entry, examples.get(f"{entry.kind}/{entry.name}"))
    ]
    names = [f"{entry.kind}/{entry.name}" for entry in entries]
    for key in examples:
        if key not in names:
            raise PluginError(
                f"There is an example for '{key}', but {dist} has no such component.{did_you_mean(key, names)}"
            )
    ids = [name for name, _, _ in cases]
    for pattern in marks:
        if not any(fnmatchcase(name, pattern) for name in ids):
            raise PluginError(
                f"There is a mark for '{pattern}', but no check of {dist} is called so.{did_you_mean(pattern, ids)}"
            )
    return pytest.mark.parametrize(
        ("entry", "check"),
        [
            pytest.param(
                entry,
                _skipping(check),
                id=name,
                marks=[mark for pattern, mark in marks.items() if fnmatchcase(name, pattern)],
            )
            for name, entry, check in cases
        ],
    )


def _skipping(check: Check) -> Callable[[Entry], None]:
    def run(entry: Entry) -> None:
        import pytest

        __tracebackhide__ = True
        try:
            check(entry)
        except NotApplicable as reason:
            pytest.skip(str(reason))

    return run

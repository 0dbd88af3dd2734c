"""Beginnings of orders that a gate ended, remembered for every order that begins like them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .parameters import point_key
from .space import Row

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FAILED = "failed_beginning"  # a trial's attribute: (the settings it holds for, the order up to the phase that failed)
EVERYWHERE = "{}"  # the settings of a trial that sets nothing


def scope_of(row: Row, settings: Mapping[str, Any]) -> str:
    """The settings under which a beginning is the same: those of the row and of the trial."""
    return point_key({**row.set, **settings})


def beginning(row: Row, phase: str) -> str:
    """The order up to and with this phase."""
    return ">".join(row.phases[: row.phases.index(phase) + 1])


def failures(trials: Iterable[FrozenTrial]) -> dict[tuple[str, str], int]:
    """Failed beginnings as (settings, order), with the number of the trial that found each."""
    found: dict[tuple[str, str], int] = {}
    for trial in trials:
        if FAILED in trial.user_attrs:
            scope, order = trial.user_attrs[FAILED]
            found.setdefault((scope, order), trial.number)
    return found


def failed_before(
    row: Row, settings: Mapping[str, Any], known: Mapping[tuple[str, str], int]
) -> tuple[str, int] | None:
    """The failed beginning that this row has, and the trial that found it."""
    scope = scope_of(row, settings)
    for end in range(1, len(row.phases) + 1):
        order = ">".join(row.phases[:end])
        if (scope, order) in known:
            return order, known[scope, order]
    return None

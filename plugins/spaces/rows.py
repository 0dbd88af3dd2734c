"""Listed curricula: rows that are all run, each with an order and what else it sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.study.space import Curriculum, Row, SearchSpace
from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean, listing


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRow:
    """One row: its order of phases ``a>b>c`` (the written one if not said), overrides as dotted keys, and a note."""

    order: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsConfig:
    """``rows`` by name, in the order in which they are run; the others are compared with the first."""

    rows: Mapping[str, ListedRow] = field(default_factory=dict)


class Rows:
    """The rows that the experiment lists; a row may have an order that the phases' requirements do not allow."""

    def __init__(self, config: RowsConfig | None = None) -> None:
        self.config = config or RowsConfig()

    def space(self, curriculum: Curriculum) -> SearchSpace:
        """The rows as they are listed; ConfigError for a phase that the experiment does not have, and for none."""
        if not self.config.rows:
            raise ConfigError("the search space 'rows' has no rows; give them in options: rows: {name: {order: a>b}}.")
        return SearchSpace(rows=listed(self.config.rows, curriculum), listed=True)


def listed(rows: Mapping[str, ListedRow], curriculum: Curriculum) -> tuple[Row, ...]:
    """The rows of a space's options; ConfigError for an order that the curriculum cannot have."""
    return tuple(
        Row(name=name, order=_order(name, row.order, curriculum), set=dict(row.set), note=row.note)
        for name, row in rows.items()
    )


def _order(name: str, order: str | None, curriculum: Curriculum) -> str:
    if order is None:
        return ">".join(curriculum.phases)
    phases = [phase.strip() for phase in order.split(">")]
    for number, phase in enumerate(phases):
        if phase not in curriculum.phases:
            raise ConfigError(
                f"row '{name}' of the search space names a phase '{phase}' that the experiment does not have."
                f"{did_you_mean(phase, curriculum.phases)} Phases: {listing(curriculum.phases)}."
            ).within("options", "rows", name, "order")
        if phase in phases[:number]:
            raise ConfigError(f"row '{name}' of the search space names '{phase}' twice; a phase runs once.").within(
                "options", "rows", name, "order"
            )
    return ">".join(phases)

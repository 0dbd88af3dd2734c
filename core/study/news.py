"""What a study says while it runs: one piece of news for every trial that begins or ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .space import Row

State = Literal["running", "complete", "pruned", "failed", "copied", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialNews:
    """What happens to a trial: taken (``running``), or ended as ``state``. ``done`` of at most ``total`` have ended."""

    number: int
    state: State
    row: Row | None
    parameters: Mapping[str, Any]
    done: int
    total: int
    values: tuple[float, ...] = ()
    seconds: float = 0.0
    reason: str = ""

    @property
    def words(self) -> str:
        """The news in one line."""
        what = [self.row.name] if self.row is not None else []
        what += [f"{key}={_short(value)}" for key, value in self.parameters.items()]
        said = f": {', '.join(map(_short, self.values))}" if self.values else ""
        why = f" ({self.reason})" if self.reason else ""
        count = "" if self.state == "running" else f"; {self.done} of {self.total}"
        return f"trial {self.number} [{', '.join(what)}] {self.state}{said}{why}{count}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

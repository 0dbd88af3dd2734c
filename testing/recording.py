"""What hooks were called with, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy

from ..registry.plugins import Plugins


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRecord:
    """One call of a hook: its name without ``phasegate_``, its context, and who implements it, in the order of calls.

    ``error`` is what it raised.
    """

    hook: str
    ctx: Any = field(repr=False)
    owners: tuple[str, ...]
    error: BaseException | None = None


def record(plugins: Plugins, into: list[HookRecord]) -> None:
    """Append every further call of a hook of ``plugins`` to ``into``, when the call is over.

    A call that nobody answers counts too; a hook within another comes before the one around it.
    """

    def before(hook: str, impls: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]) -> None:
        """Required by pluggy."""

    def after(
        outcome: pluggy.Result[Any], hook: str, impls: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]
    ) -> None:
        into.append(
            HookRecord(
                hook=hook.removeprefix("phasegate_"),
                ctx=arguments.get("ctx"),
                owners=tuple(impl.plugin_name for impl in reversed(impls)),
                error=outcome.exception,
            )
        )

    plugins.manager.add_hookcall_monitoring(before, after)

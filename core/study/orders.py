"""Orders of phases: which a curriculum allows, enumerated up to a limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean, listing
from .space import Curriculum

LIMIT = 10_000  # orders of one study; every trial writes the list of choices down, so it has to stay small


def is_valid(phases: Sequence[str], curriculum: Curriculum) -> bool:
    """Whether every phase comes after all that it requires has been provided."""
    provided: set[str] = set()
    for phase in phases:
        if not provided.issuperset(curriculum.requires.get(phase, ())):
            return False
        provided.update(curriculum.provides.get(phase, ()))
    return True


def orders_of(
    curriculum: Curriculum,
    *,
    subsets: bool = False,
    first: str | None = None,
    last: str | None = None,
    invalid: bool = False,
    limit: int = LIMIT,
) -> tuple[str, ...]:
    """The orders ``a>b>c`` of a curriculum's phases, the written one first where it is allowed.

    All permutations, or with ``subsets`` all orders of any one or more phases; ``first`` and ``last`` hold phases in
    their places; with ``invalid`` a phase may come before what it requires. They are listed depth first, so that
    neighbours share as many phases as can be. ConfigError for an unknown phase, where no order is allowed, and
    where there are more than ``limit``.
    """
    for key, phase in (("first", first), ("last", last)):
        if phase is not None and phase not in curriculum.phases:
            raise ConfigError(
                f"{key}: the experiment has no phase '{phase}'.{did_you_mean(phase, curriculum.phases)} "
                f"Phases: {listing(curriculum.phases)}."
            ).within("options", key)
    if first is not None and first == last and len(curriculum.phases) > 1:
        raise ConfigError(f"first and last both hold the phase '{first}'; it can only be in one place.").within(
            "options", "last"
        )
    found: list[str] = []
    for order in _orders(curriculum, subsets, first, last, invalid):
        if len(found) == limit:
            what = "ordered subsets" if subsets else "orders"
            raise ConfigError(
                f"{len(curriculum.phases)} phases have more than {limit:,} {what}, more than a study can list; fix a "
                "place with first or last, leave phases out of the experiment, or name the orders that matter "
                "in the space 'rows'."
            )
        found.append(">".join(order))
    if not found:
        text = f"no order of the phases {listing(curriculum.phases)} is allowed: {_why(curriculum, last)}"
        raise ConfigError(text).within(
            "options", *(("first",) if first is not None else ("last",) if last is not None else ())
        )
    return tuple(found)


def _orders(
    curriculum: Curriculum, subsets: bool, first: str | None, last: str | None, invalid: bool
) -> Iterator[tuple[str, ...]]:
    """Depth first in written order. No branch is a dead end: what is provided only grows, so an allowed beginning can
    always be completed if the whole set can, and that is looked at before."""
    inner = [phase for phase in curriculum.phases if phase != last]
    if not invalid:
        reachable = _reachable(inner, curriculum)
        if first is not None and not is_valid([first], curriculum):
            return
        if last is not None and not is_valid([*reachable, last], curriculum):
            return
        if not subsets and len(reachable) < len(inner):
            return

    def grown(chosen: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        whole = chosen if last is None else (*chosen, last)
        if whole and (subsets or len(chosen) == len(inner)) and (invalid or is_valid(whole, curriculum)):
            yield whole
        for phase in inner:
            step = (*chosen, phase)
            if phase not in chosen and (invalid or is_valid(step, curriculum)):
                yield from grown(step)

    yield from grown(() if first is None or first == last else (first,))


def _reachable(phases: Sequence[str], curriculum: Curriculum) -> list[str]:
    """The phases that some order of them allows, in such an order."""
    found: list[str] = []
    while True:
        more = [phase for phase in phases if phase not in found and is_valid([*found, phase], curriculum)]
        if not more:
            return found
        found.extend(more)


def _why(curriculum: Curriculum, last: str | None) -> str:
    inner = [phase for phase in curriculum.phases if phase != last]
    reachable = _reachable(inner, curriculum)
    provided = {thing for phase in reachable for thing in curriculum.provides.get(phase, ())}
    for phase in [*inner, *([last] if last else [])]:
        lacking = sorted(set(curriculum.requires.get(phase, ())) - provided)
        if lacking:
            return f"phase {phase} requires {listing(lacking)}, which no phase before it can provide."
    return "the phase that is held first requires what only others provide."

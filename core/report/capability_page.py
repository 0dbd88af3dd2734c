"""The matrix of every capability after every phase, as blocks of a page."""

from __future__ import annotations

from collections.abc import Iterable

from .blocks import Block, Cell, Prose, Table, Tone
from .facts import Capability, RunFacts, Value
from .numbers import NOT_MEASURED, NOTHING, decimals, interval, number, signed

_BETTER = {True: "higher is better", False: "lower is better", None: ""}


def matrix_blocks(run: RunFacts) -> Iterable[Block]:
    """Judged metrics first; all the others folded."""
    names = tuple(phase.name for phase in run.phases)
    yield Prose(
        paragraphs=(
            "Each cell has the value after a phase with one-sided 95 % bounds, and below it the change since the last "
            "phase after which the metric was measured: with bounds that cover 95 % on both sides where documents "
            "could be paired. ▲ got better and ▼ got worse beyond the noise; = is not resolved; a change without "
            "bounds was not paired.",
        ),
        quiet=True,
    )
    judged = [one for one in run.capabilities if one.judged]
    followed = [one for one in judged if _times(one) > 1]
    once = [one for one in judged if _times(one) <= 1]
    rest = [one for one in run.capabilities if not one.judged]
    if followed:
        yield _matrix(followed, names, "Judged metrics through the curriculum", False)
    if once:
        yield Table(
            caption="Judged metrics that were measured after one phase only; what others did to them was not measured",
            columns=("metric", "better", "after phase", "value and interval"),
            rows=tuple(_once(one, names) for one in once),
        )
    if rest:
        yield _matrix(rest, names, f"All other metrics ({len(rest)})", True)
    gaps = sum(value is None for one in judged for value in one.values)
    if gaps:
        yield Prose(
            paragraphs=(
                f"{gaps} of {len(judged) * len(names)} combinations of judged metrics and phases were not measured: no "
                "phase asked for them there.",
            ),
            quiet=True,
        )


def _times(one: Capability) -> int:
    return sum(value is not None for value in one.values)


def _matrix(rows: list[Capability], names: tuple[str, ...], caption: str, folded: bool) -> Table:
    return Table(
        caption=caption, columns=("metric", *names), rows=tuple(_row(one, names) for one in rows), folded=folded
    )


def _row(one: Capability, names: tuple[str, ...]) -> tuple[Cell, ...]:
    known = [value.value for value in one.values if value is not None and value.value is not None]
    digits = min((decimals(value) for value in known), default=3)
    values = (_cell(value, one.higher, digits, before) for value, before in zip(one.values, ("", *names), strict=False))
    return (Cell(text=one.name, note=_BETTER[one.higher]), *values)


def _once(one: Capability, names: tuple[str, ...]) -> tuple[Cell, ...]:
    place = next((place for place, value in enumerate(one.values) if value is not None), None)
    value = None if place is None else one.values[place]
    return (
        Cell(text=one.name),
        Cell(text=_BETTER[one.higher] or NOTHING, tone="quiet"),
        Cell(text=NOTHING if place is None else names[place]),
        _cell(value, one.higher, decimals((value.value if value else None) or 0.0), ""),
    )


def _cell(value: Value | None, higher: bool | None, digits: int, before: str) -> Cell:
    if value is None:
        return Cell(text=NOT_MEASURED, tone="quiet")
    if value.value is None:
        return Cell(text="not evaluated", note=value.missing or "", tone="quiet")
    text = f"{number(value.value, digits)} {interval(value.low, value.high, digits)}".strip()
    change = value.change
    if change is None:
        return Cell(text=text, number=True)
    since = "" if change.since == before else f" since {change.since}"
    if change.low is None:
        return Cell(text=text, note=f"{signed(change.value, digits)}{since}", number=True)
    bounds = interval(change.low, change.high, digits)
    tone: Tone = ""
    sign = "="
    if change.resolved:
        good = higher is not None and (change.value > 0) == higher
        sign = "≠" if higher is None else "▲" if good else "▼"
        tone = "" if higher is None else "better" if good else "worse"
    return Cell(text=text, note=f"{sign} {signed(change.value, digits)} {bounds}{since}", tone=tone, number=True)

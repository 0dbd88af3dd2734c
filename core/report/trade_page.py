"""The safety-helpfulness frontier, as blocks of a page."""

from __future__ import annotations

from collections.abc import Iterable

from .blocks import Axis, Block, Cell, Mark, Plot, Point, Prose, Series, Table, figure
from .facts import TradeFacts, TradePoint, Value
from .numbers import NOT_MEASURED, interval, number, percent, several


def trade_blocks(found: TradeFacts | None) -> Iterable[Block]:
    """Legitimate prompts refused against harmful prompts not refused."""
    if found is None:
        yield Prose(paragraphs=(f"Refusals were {NOT_MEASURED}: no phase of this run has a refusal gate.",))
        return
    own = [point for point in found.points if point.beta is None]
    swept = [point for point in found.points if point.beta is not None]
    front = sorted({(p.over_refusal.value or 0.0, p.compliance.value or 0.0) for p in swept if p.front})
    words = [f"after {point.phase} this run {_told(point)}" for point in own]
    if found.area is not None:
        words.append(
            f"{several(len(swept), 'training')} of the frontier dominate {number(found.area.value, 4)} "
            f"{interval(found.area.low, found.area.high, 4)} of the unit square"
        )
    groups: list[tuple[str, list[TradePoint], int, Mark]] = [
        ("frontier, best", [point for point in swept if point.front], 0, "circle"),
        ("frontier, dominated", [point for point in swept if not point.front], 6, "cross"),
        ("this run", own, 1, "diamond"),
    ]
    plot = Plot(
        title="What does safety cost helpfulness?",
        told=f"{_capital('; '.join(words))}. The lower left corner is best.",
        x=Axis(label="legitimate prompts refused, %", low=None),
        y=Axis(label="harmful prompts not refused, %", low=None),
        series=(
            *(
                Series(label=label, points=tuple(map(_point, points)), tone=tone, dash="none", mark=mark)
                for label, points, tone, mark in groups
                if points
            ),
            *(
                [Series(label="", points=tuple(Point(x=100 * x, y=100 * y) for x, y in front), stepped=True)]
                if len(front) > 1
                else []
            ),
        ),
        width=560,
        height=360,
    )
    if len(found.points) > 1:
        yield plot
    else:
        yield Prose(paragraphs=(plot.told,))
    yield Table(
        caption="The points, with one-sided 95 % bounds over prompts",
        columns=("weight of over-refusal", "legitimate refused", "harmful not refused", "best", "stage"),
        rows=tuple(
            (
                Cell(text=_label(point)),
                _share(point.over_refusal),
                _share(point.compliance),
                Cell(text="–" if point.beta is None else "yes" if point.front else "no"),
                Cell(text=point.stage),
            )
            for point in found.points
        ),
    )
    if found.source is None:
        yield Prose(
            paragraphs=("No frontier of this run's safety phase lies beside it; ‘platform frontier’ draws one.",),
            quiet=True,
        )
    else:
        yield Prose(paragraphs=(f"The frontier is that of {found.source}.",), quiet=True)


def _label(point: TradePoint) -> str:
    return f"this run, after {point.phase}" if point.beta is None else f"β {point.beta:g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _told(point: TradePoint) -> str:
    return (
        f"refuses {percent(point.over_refusal.value, 1)} of legitimate prompts and lets "
        f"{percent(point.compliance.value, 1)} of harmful ones through"
    )


def _share(value: Value) -> Cell:
    bounds = "" if value.low is None or value.high is None else interval(100 * value.low, 100 * value.high, 1)
    return figure(value.value, percent(value.value, 1), bounds)


def _point(point: TradePoint) -> Point:
    x, y = point.over_refusal, point.compliance
    return Point(
        x=100 * (x.value or 0.0),
        y=100 * (y.value or 0.0),
        x_low=_hundred(x.low),
        x_high=_hundred(x.high),
        y_low=_hundred(y.low),
        y_high=_hundred(y.high),
        label=_label(point),
    )


def _hundred(share: float | None) -> float | None:
    return None if share is None else 100 * share

"""Reliability and risk against coverage, as blocks of a page."""

from __future__ import annotations

from collections.abc import Iterable

from .blocks import Axis, Block, Cell, Dash, Mark, Panels, Plot, Point, Prose, Series, Table, cells, figure
from .confidence import LIKELIHOOD, PROBES, SOFTMAX
from .facts import ConfidenceFacts, Confident
from .numbers import NOT_MEASURED, count, interval, number, several

_STYLES: dict[str, tuple[int, Dash, Mark]] = {
    SOFTMAX: (1, "dashed", "ring"),
    PROBES: (0, "solid", "circle"),
    LIKELIHOOD: (2, "dotted", ""),
}


def confidence_blocks(found: tuple[ConfidenceFacts, ...]) -> Iterable[Block]:
    """Before (the largest softmax probability) and after (the probes), on the same answers."""
    if not found:
        yield Prose(paragraphs=(f"Confidence was {NOT_MEASURED}: no phase of this run has a calibration gate.",))
        return
    stale = [one.phase for one in found if one.stale]
    if stale:
        yield Prose(paragraphs=(f"The probes measured after {', '.join(stale)} were fitted to other weights.",))
    binned = [one for one in found if any(measure.bins for measure in one.measures)]
    if binned:
        yield Panels(
            title="Is the model right as often as it says?",
            told="On average "
            + "; ".join(_fit(one) for one in found)
            + ". On the diagonal confidence and truth agree; below it the model is too sure. Points are bins of equal "
            "width with their answers.",
            plots=tuple(_reliability(one) for one in binned),
        )
    else:
        yield Prose(paragraphs=(f"Reliability: {NOT_MEASURED} (no answers are on file beside the evidence).",))
    curved = [one for one in found if any(measure.curve for measure in one.measures)]
    if curved:
        yield Panels(
            title="How many errors remain when the least sure answers are withheld?",
            told="Area under the curve " + "; ".join(_risk(one) for one in curved) + ". Lower curves are better.",
            plots=tuple(_curve(one) for one in curved),
        )
    yield Table(
        caption="Calibration error (15 bins) and area under the risk-coverage curve; lower is better for both",
        columns=("after phase", "confidence", "answers", "calibration error", "area under the curve"),
        rows=tuple(
            (*cells(one.phase, measure.name), figure(one.questions, count(one.questions)), *_numbers(measure))
            for one in found
            for measure in one.measures
        ),
    )


def _numbers(measure: Confident) -> Iterable[Cell]:
    share = "no probability" if measure.name == LIKELIHOOD else NOT_MEASURED
    for value, nothing in ((measure.ece, share), (measure.aurc, NOT_MEASURED)):
        known = value is not None and value.value is not None
        yield figure(
            value.value if value else None,
            number(value.value) if known and value else nothing,
            interval(value.low, value.high) if value else "",
        )


def _named(one: ConfidenceFacts, name: str) -> Confident:
    return next(measure for measure in one.measures if measure.name == name)


def _fit(one: ConfidenceFacts) -> str:
    before, after = _named(one, SOFTMAX).ece, _named(one, PROBES).ece
    start = f"max softmax is off by {number(before.value)}, " if before is not None else ""
    return f"after {one.phase} {start}the probes by {number(after.value if after else None)}"


def _risk(one: ConfidenceFacts) -> str:
    told = ", ".join(
        f"{measure.name} {number(measure.aurc.value)}" for measure in one.measures if measure.aurc is not None
    )
    return f"after {one.phase}: {told}"


def _reliability(one: ConfidenceFacts) -> Plot:
    return Plot(
        title=f"after {one.phase}",
        told=_fit(one),
        x=Axis(label="confidence", low=0.0, high=1.0),
        y=Axis(label="share of right answers", low=0.0, high=1.0),
        series=tuple(
            Series(
                label={SOFTMAX: "before: max softmax", PROBES: "after: probes"}[measure.name],
                points=tuple(
                    Point(x=b.confidence, y=b.right, label=f"{measure.name}, {several(b.n, 'answer')}")
                    for b in measure.bins
                ),
                tone=_STYLES[measure.name][0],
                dash=_STYLES[measure.name][1],
                mark=_STYLES[measure.name][2],
            )
            for measure in one.measures
            if measure.bins
        ),
        diagonal=True,
        width=350,
        height=320,
    )


def _curve(one: ConfidenceFacts) -> Plot:
    return Plot(
        title=f"after {one.phase}",
        told=_risk(one),
        x=Axis(label="share of questions answered", low=0.0, high=1.0),
        y=Axis(label="share of answers that are wrong", low=0.0),
        series=tuple(
            Series(
                label=measure.name,
                points=tuple(Point(x=coverage, y=risk) for coverage, risk in measure.curve),
                tone=_STYLES[measure.name][0],
                dash=_STYLES[measure.name][1],
            )
            for measure in one.measures
            if measure.curve
        ),
        width=350,
        height=300,
    )

"""The trials of a parameter study: the best, the course, what mattered, what was broken or pruned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .blocks import Axis, Block, Cell, Mark, Plot, Point, Prose, Series, Table, cells, figure
from .numbers import NOTHING, duration, listed, number, percent, several
from .study_facts import Score, StudyFacts, TrialFacts

_SHOWN = 10  # of the best, and parameters in a sentence


def best_sentences(study: StudyFacts) -> Iterable[str]:
    """The best trials in words, and how many were broken or pruned."""
    if not study.trials or study.rows:
        return
    done = [trial for trial in study.trials if any(value is not None for value in trial.values)]
    best = [trial for trial in study.trials if trial.number in study.best]
    if not best:
        yield (
            f"No trial is best: {len(done)} of {several(len(study.trials), 'trial')} have scores, and none of them "
            "holds every gate."
        )
    elif len(best) == 1:
        yield f"The best of {several(len(study.trials), 'trial')} is trial {best[0].number}: {_told(study, best[0])}."
    else:
        yield (
            f"{len(best)} of {several(len(study.trials), 'trial')} are best in the sense that no other is at least "
            f"as good in every score: {listed([str(trial.number) for trial in best])}."
        )
    if study.importance:
        key, share = max(study.importance.items(), key=lambda pair: pair[1])
        yield f"{key} matters most for the score: it explains {percent(share)} of what parameters explain."
    broken = sum(bool(_broken(trial)) for trial in study.trials)
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    yield (
        f"{several(broken, 'trial')} broke a gate; {len(pruned)} {'was' if len(pruned) == 1 else 'were'} pruned"
        + (f", after {listed(sorted({str(t.stopped_after) for t in pruned if t.stopped_after}))}" if pruned else "")
        + "."
    )


def _told(study: StudyFacts, trial: TrialFacts) -> str:
    scores = [f"{score.name} {number(value)}" for score, value in zip(study.scores, trial.values, strict=False)]
    settings = [f"{key} = {_value(value)}" for key, value in list(trial.parameters.items())[:_SHOWN]]
    return f"{listed(scores)}{' with ' + listed(settings) if settings else ''}"


def trial_sections(study: StudyFacts) -> dict[str, tuple[str, Iterable[Block]]]:
    """The sections on trials; those on parameters only where the study has some."""
    found: dict[str, tuple[str, Iterable[Block]]] = {}
    if not study.rows:
        found["best"] = ("The best trials", _best(study))
    if not study.rows or study.parameters:
        found["course"] = ("The course of the search", _course(study))
    if len(study.scores) > 1 and not study.rows:
        found["pareto"] = ("What one score costs another", _pareto(study))
    if study.parameters or study.importance:
        found["parameters"] = ("Which parameters matter?", _importance(study))
    if not study.rows:
        found["constraints"] = ("Gates that were broken, and trials that were pruned", _constraints(study))
    found["trials"] = (
        "Every trial",
        (_table(study, study.trials, f"All {several(len(study.trials), 'trial')}", True),),
    )
    return found


def _best(study: StudyFacts) -> Iterable[Block]:
    best = [trial for trial in study.trials if trial.number in study.best]
    if not best and study.scores:
        score = study.scores[0]
        scored = [(value, trial) for trial in study.trials if trial.values and (value := trial.values[0]) is not None]
        scored.sort(key=lambda pair: -pair[0] if score.maximize else pair[0])
        if not scored:
            yield Prose(paragraphs=("No trial came to its end with a score.",))
            return
        yield Prose(paragraphs=("No trial holds every gate; these have the best first score.",))
        best = [trial for _, trial in scored]
    yield _table(study, tuple(best[:_SHOWN]), "The best trials", False)


def _table(study: StudyFacts, trials: tuple[TrialFacts, ...], caption: str, folded: bool) -> Table:
    keys = tuple(dict.fromkeys(key for trial in study.trials for key in trial.parameters))
    orders = len({trial.order for trial in study.trials}) > 1
    return Table(
        caption=caption,
        columns=(
            "trial",
            *(score.name for score in study.scores),
            *keys,
            *(("order",) if orders else ()),
            "state",
            "broken gates",
            "time",
        ),
        rows=tuple(
            (
                Cell(text=str(trial.number)),
                *(figure(value, number(value)) for value in _padded(trial, study.scores)),
                *(Cell(text=_value(trial.parameters.get(key)), number=True) for key in keys),
                *(cells(trial.order.replace(">", " > ") or NOTHING) if orders else ()),
                Cell(text=trial.state, note=f"after {trial.stopped_after}" if trial.stopped_after else ""),
                Cell(text=", ".join(_broken(trial)) or NOTHING),
                figure(trial.seconds, duration(trial.seconds)),
            )
            for trial in trials
        ),
        folded=folded,
    )


def _course(study: StudyFacts) -> Iterable[Block]:
    for place, score in enumerate(study.scores):
        points = [
            (trial, value) for trial in study.trials if (value := _padded(trial, study.scores)[place]) is not None
        ]
        if not points:
            continue
        best: list[Point] = []
        for trial, value in points:
            if not _broken(trial) and (not best or _beats(value, best[-1].y, score)):
                best.append(Point(x=trial.number, y=value))
        if best:
            best.append(Point(x=study.trials[-1].number, y=best[-1].y))
        groups: tuple[tuple[str, bool, int, Mark], ...] = (
            ("holds every gate", False, 0, "circle"),
            ("breaks a gate", True, 1, "cross"),
        )
        yield Plot(
            title=f"Did the search get better at {score.name}?",
            told=f"{several(len(points), 'trial')} have a value, from {number(min(v for _, v in points))} to "
            f"{number(max(v for _, v in points))}"
            + (f"; the best that holds every gate is {number(best[-1].y)}." if best else "; none holds every gate."),
            x=Axis(label="trial"),
            y=Axis(label=f"{score.name}, {'higher' if score.maximize else 'lower'} is better"),
            series=(
                Series(label="best so far", points=tuple(best), tone=2, stepped=True),
                *(
                    Series(
                        label=label,
                        points=tuple(
                            Point(x=trial.number, y=value, label=f"trial {trial.number}")
                            for trial, value in points
                            if bool(_broken(trial)) == broken
                        ),
                        tone=tone,
                        dash="none",
                        mark=mark,
                    )
                    for label, broken, tone, mark in groups
                ),
            ),
            height=300,
        )


def _pareto(study: StudyFacts) -> Iterable[Block]:
    one, other = study.scores[:2]
    points = [
        (trial, x, y)
        for trial in study.trials
        for x, y in [_padded(trial, study.scores)[:2]]
        if x is not None and y is not None
    ]
    if not points:
        yield Prose(paragraphs=("No trial has both scores.",))
        return
    best = [point for point in points if point[0].number in study.best]
    groups: tuple[tuple[str, list[tuple[TrialFacts, float, float]], int, Mark], ...] = (
        ("best: no other is at least as good in every score", best, 0, "circle"),
        ("others", [point for point in points if point not in best], 6, "cross"),
    )
    yield Plot(
        title=f"How much {other.name} does {one.name} cost?",
        told=f"{len(best)} of {several(len(points), 'trial')} are best: "
        + (", ".join(f"trial {trial.number} ({number(x)}, {number(y)})" for trial, x, y in best) or "none")
        + ".",
        x=Axis(label=f"{one.name}, {'higher' if one.maximize else 'lower'} is better"),
        y=Axis(label=f"{other.name}, {'higher' if other.maximize else 'lower'} is better"),
        series=tuple(
            Series(
                label=label,
                points=tuple(Point(x=x, y=y, label=f"trial {trial.number}") for trial, x, y in members),
                tone=tone,
                dash="none",
                mark=mark,
            )
            for label, members, tone, mark in groups
            if members
        ),
        width=560,
        height=380,
    )


def _importance(study: StudyFacts) -> Iterable[Block]:
    ranges = {parameter.key: parameter for parameter in study.parameters}
    keys = sorted({*ranges, *study.importance}, key=lambda key: -study.importance.get(key, 0.0))

    def space(key: str) -> str:
        found = ranges.get(key)
        if found is None:
            return NOTHING
        if found.choices:
            return ", ".join(map(_value, found.choices))
        return f"{_value(found.low)} … {_value(found.high)}{', on a log scale' if found.log else ''}"

    if not study.importance:
        yield Prose(paragraphs=("Too few trials have values to tell which parameter matters.",))
    yield Table(
        caption="Parameters, where they were searched, and their share in what parameters explain of the first score",
        columns=("parameter", "searched", "share", "bar"),
        rows=tuple(
            (
                *cells(key, space(key)),
                figure(study.importance.get(key), percent(study.importance.get(key))),
                Cell(text="█" * round(20 * study.importance.get(key, 0.0)) or NOTHING),
            )
            for key in keys
        ),
    )


def _constraints(study: StudyFacts) -> Iterable[Block]:
    names = sorted({name for trial in study.trials for name in trial.constraints})
    if names:
        yield Table(
            caption="How often each gate was broken",
            columns=("gate", "broken", "of trials", "in trials"),
            rows=tuple(
                cells(
                    name,
                    str(len(broken)),
                    str(sum(name in trial.constraints for trial in study.trials)),
                    ", ".join(map(str, broken)) or NOTHING,
                )
                for name in names
                for broken in [[trial.number for trial in study.trials if name in _broken(trial)]]
            ),
        )
    else:
        yield Prose(paragraphs=("No gate constrains this study.",))
    ended: dict[str, list[int]] = {}
    for trial in study.trials:
        if trial.state == "pruned":
            ended.setdefault(str(trial.stopped_after or "–"), []).append(trial.number)
    if ended:
        yield Table(
            caption="Trials that were pruned, by the phase after which they ended",
            columns=("after phase", "trials", "which"),
            rows=tuple(cells(name, str(len(which)), ", ".join(map(str, which))) for name, which in ended.items()),
        )


def _broken(trial: TrialFacts) -> list[str]:
    """Constraints above 0, and those without a value: what could not be evaluated never holds."""
    return [name for name, value in trial.constraints.items() if value is None or value > 0]


def _beats(value: float, other: float, score: Score) -> bool:
    return value > other if score.maximize else value < other


def _padded(trial: TrialFacts, scores: tuple[Score, ...]) -> tuple[float | None, ...]:
    return (*trial.values, *(None for _ in scores[len(trial.values) :]))


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)

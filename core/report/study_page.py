"""A study as a page: which orders or settings differ in a resolved way, and the evidence."""

from __future__ import annotations

from collections.abc import Iterable

from .blocks import Axis, Block, Cell, Document, Panels, Plot, Point, Prose, Section, Series, Table, Tone, cells, figure
from .numbers import NOT_MEASURED, NOTHING, count, interval, listed, number, several, signed
from .sharing_page import sharing_blocks
from .study_facts import Difference, EffectFacts, OrderFacts, Score, StudyFacts
from .trial_page import best_sentences, trial_sections

_SIGNS = {"pass": "✓", "fail": "✗", "undecided": "?"}


def study_page(study: StudyFacts) -> Document:
    """Return the page of a study."""
    parts: dict[str, tuple[str, Iterable[Block]]] = {}
    if study.rows:
        parts["orders"] = ("Every order and its scores", order_blocks(study))
        parts["differences"] = ("Differences from the first row", difference_blocks(study))
        if study.effects:
            parts["effects"] = ("Does it matter what comes before what?", effect_blocks(study.effects))
        parts["capabilities"] = ("Capabilities at the end of every order", capability_blocks(study))
    if study.sharing is not None or study.rows:
        parts["sharing"] = ("What sharing saved", sharing_blocks(study))
    if study.trials:
        parts |= trial_sections(study)
    scores = ", ".join(f"{s.name} ({'higher' if s.maximize else 'lower'} is better)" for s in study.scores)
    about = (
        ("experiment", study.experiment),
        ("study of", study.study_kind),
        ("scores", scores),
        ("seeds", ", ".join(map(str, study.seeds)) or NOTHING),
        *((f"{score.name} is", _made_of(score)) for score in study.scores if score.of),
    )
    return Document(
        title=study.study,
        kind="study",
        about=about,
        answer=study_answer(study),
        sections=tuple(Section(key=key, title=title, blocks=tuple(blocks)) for key, (title, blocks) in parts.items()),
    )


def study_answer(study: StudyFacts) -> tuple[str, ...]:
    """What a study says, in sentences: what is resolved, what is not, and what it cost."""
    return (*_orders_told(study), *best_sentences(study), *_shared(study))


def _made_of(score: Score) -> str:
    mean = listed(score.of) if len(score.of) == 1 else f"the mean of {listed(score.of)}"
    best = ", each divided by its best" if score.relative else ""
    return mean + best + (f", with the probes of {score.refit} fitted anew" if score.refit else "")


def _orders_told(study: StudyFacts) -> Iterable[str]:
    if len(study.rows) < 2:
        if study.rows:
            yield f"Only {study.rows[0].name} was carried out, so there is nothing to compare it with."
        return
    first, others = study.rows[0], study.rows[1:]
    pairs = [(row, name, one) for row in others for name, one in row.differences.items()]
    clear = [(row, name, one) for row, name, one in pairs if one.resolved]
    yield (
        f"{len(clear)} of {several(len(pairs), 'difference')} from {first.name} are resolved, over "
        f"{several(max((spread.n for spread in first.scores.values()), default=0), 'seed')}."
        if clear
        else f"Nothing is resolved: none of {several(len(pairs), 'difference')} from {first.name} stands out of its "
        "noise."
    )
    for row in others:
        own = [(name, one) for other, name, one in clear if other is row]
        if own:
            told = listed([f"{name} {_moved(study, name, one)}" for name, one in own])
            yield f"{row.name}: {told}."
    alone = [f"{row.name} in {name} ({signed(one.value)})" for row, name, one in pairs if _by_itself(one)]
    if alone:
        yield f"By their own interval only, which one in twenty does by chance: {listed(alone)}."
    quiet = [row.name for row in others if not any(one.resolved for one in row.differences.values())]
    if clear and quiet:
        yield f"Not resolved from {first.name} in any score: {listed(quiet)}."
    strong = [effect for effect in study.effects if effect.resolved]
    if study.effects:
        verb = "is" if len(strong) == 1 else "are"
        told = "; ".join(
            f"{one.before} before {one.after} moves {one.score} by {signed(one.value)} {interval(one.low, one.high)}"
            for one in strong
        )
        yield (
            f"Of {several(len(study.effects), 'precedence effect')}, {len(strong)} {verb} resolved: {told}."
            if strong
            else f"None of {several(len(study.effects), 'precedence effect')} is resolved."
        )
    broken = [row.name for row in study.rows if not row.valid]
    if broken:
        yield f"Run although a phase lacks what it requires: {listed(broken)}."


def _by_itself(one: Difference) -> bool:
    return not one.resolved and one.low is not None and one.high is not None and (one.low > 0 or one.high < 0)


def _moved(study: StudyFacts, name: str, one: Difference) -> str:
    score = next((score for score in study.scores if score.name == name), None)
    good = score is not None and one.value is not None and (one.value > 0) == score.maximize
    return f"{'better' if good else 'worse'} by {signed(one.value)} {interval(one.low, one.high)}"


def _shared(study: StudyFacts) -> Iterable[str]:
    found = study.sharing
    if found is None:
        return
    spent = f" in {number(found.minutes, 1)} minutes" if found.minutes is not None else ""
    saved = f", saving {number(found.minutes_saved, 1)} minutes" if found.minutes_saved else ""
    yield (
        f"Without sharing, {count(found.naive)} trainings of single phases; {count(found.shared)} of them are "
        f"different. {count(found.trained)} were trained here{spent}, {count(found.reused)} times a stage was taken "
        f"from the store{saved}."
    )


def order_blocks(study: StudyFacts) -> Iterable[Block]:
    """The table of orders, and every seed as a dot."""
    yield Table(
        caption=f"Mean over {several(len(study.seeds), 'seed')} with its standard deviation, and verdicts of all gates "
        "on the end state",
        columns=("row", "order", *(score.name for score in study.scores), "verdicts", "note"),
        rows=tuple(
            (
                Cell(text=row.name, note="" if row.valid else "an order that lacks what a phase requires"),
                Cell(text=row.order.replace(">", " > ")),
                *(_spread(row, score) for score in study.scores),
                _verdicts(row),
                Cell(text=row.note),
            )
            for row in study.rows
        ),
    )
    yield Panels(
        title="How far do seeds of one order lie apart?",
        told="Each dot is one seed, the diamond their mean; " + _farthest(study),
        plots=tuple(_dots(study, score) for score in study.scores),
    )


def _spread(row: OrderFacts, score: Score) -> Cell:
    found = row.scores.get(score.name)
    if found is None or found.mean is None:
        return Cell(text=NOT_MEASURED, tone="quiet")
    return figure(
        found.mean,
        number(found.mean),
        f"±\N{NO-BREAK SPACE}{number(found.sd)}, {several(found.n, 'seed')}" if found.sd is not None else "",
    )


def _verdicts(row: OrderFacts) -> Cell:
    totals = {name: sum(seed.verdicts.get(name, 0) for seed in row.seeds) for name in _SIGNS}
    return Cell(text=", ".join(f"{n} {_SIGNS[name]} {name}" for name, n in totals.items() if n) or NOTHING)


def _farthest(study: StudyFacts) -> str:
    told = []
    for score in study.scores:
        widths = {
            row.name: max(values) - min(values)
            for row in study.rows
            if (values := [v for s in row.seeds if (v := s.scores.get(score.name)) is not None])
        }
        if widths:
            name = max(widths, key=lambda row: widths[row])
            told.append(f"in {score.name} they differ most in {name} (by {number(widths[name])})")
    return "; ".join(told) + "."


def _dots(study: StudyFacts, score: Score) -> Plot:
    rows = study.rows
    means = [row.scores.get(score.name) for row in rows]
    return Plot(
        title=score.name,
        told=", ".join(f"{row.name} {number(one.mean if one else None)}" for row, one in zip(rows, means, strict=True)),
        x=Axis(label=f"{score.name}, {'higher' if score.maximize else 'lower'} is better"),
        y=Axis(label="", names=tuple(_cut(row.name) for row in rows)),
        series=(
            Series(
                label="one seed",
                points=tuple(
                    Point(x=value, y=place, label=f"{row.name}, seed {seed.seed}")
                    for place, row in enumerate(rows)
                    for seed in row.seeds
                    if (value := seed.scores.get(score.name)) is not None
                ),
                tone=0,
                dash="none",
                mark="ring",
            ),
            Series(
                label="mean",
                points=tuple(
                    Point(x=one.mean, y=place, label=rows[place].name)
                    for place, one in enumerate(means)
                    if one is not None and one.mean is not None
                ),
                tone=1,
                dash="none",
                mark="diamond",
            ),
        ),
        width=460,
        height=64 + 30 * len(rows),
    )


def difference_blocks(study: StudyFacts) -> Iterable[Block]:
    """Differences from the first row with their intervals, resolved ones marked."""
    others = study.rows[1:]
    if not any(row.differences for row in others):
        yield Prose(paragraphs=("There is nothing to compare: only one row, or no seed in common.",))
        return
    yield Panels(
        title=f"Which differences from {study.rows[0].name} stand out of their noise?",
        told="; ".join(
            f"{score.name}: {listed(found) if (found := _resolved(others, score.name)) else 'none'}"
            for score in study.scores
        )
        + ". Lines are 95 % intervals; one that crosses the dotted line at 0 says nothing, and one that does not is "
        "resolved where it holds together with all others of the table (Holm).",
        plots=tuple(
            _forest([(row.name, row.differences.get(score.name)) for row in others], score.name)
            for score in study.scores
        ),
    )
    yield Table(
        caption=f"Paired differences from {study.rows[0].name}",
        columns=("row", *(score.name for score in study.scores)),
        rows=tuple(
            (Cell(text=row.name), *(_difference(row.differences.get(score.name), score) for score in study.scores))
            for row in others
        ),
    )


def _resolved(rows: Iterable[OrderFacts], score: str) -> list[str]:
    return [row.name for row in rows if score in row.differences and row.differences[score].resolved]


def _difference(one: Difference | None, score: Score) -> Cell:
    if one is None or one.value is None:
        return Cell(text=NOT_MEASURED, tone="quiet")
    tone: Tone = ""
    words = one.words or ("resolved" if one.resolved else "not resolved")
    sign = "="
    if one.resolved:
        good = (one.value > 0) == score.maximize
        tone, sign = ("better", "▲") if good else ("worse", "▼")
    p = "" if one.p is None else f", p = {number(one.p)}"
    return figure(one.value, f"{signed(one.value)} {interval(one.low, one.high)}", f"{sign} {words}{p}", tone)


def _forest(rows: list[tuple[str, Difference | None]], score: str) -> Plot:
    def series(label: str, resolved: bool, tone: int) -> Series:
        return Series(
            label=label,
            points=tuple(
                Point(x=one.value, y=place, x_low=one.low, x_high=one.high, label=name)
                for place, (name, one) in enumerate(rows)
                if one is not None and one.value is not None and one.resolved == resolved
            ),
            tone=tone,
            dash="none",
            mark="circle" if resolved else "ring",
        )

    known = [one for _, one in rows if one is not None and one.value is not None]
    ends = [0.0, *(end for one in known for end in (one.low, one.high, one.value) if end is not None)]
    room = 0.05 * (max(ends) - min(ends)) or 1.0
    return Plot(
        title=score,
        told=", ".join(f"{name} {signed(one.value if one else None)}" for name, one in rows),
        x=Axis(label=f"change of {score}", low=min(ends) - room, high=max(ends) + room),
        y=Axis(label="", names=tuple(_cut(name) for name, _ in rows)),
        series=(series("resolved", True, 1), series("not resolved", False, 6)),
        zero=True,
        width=460,
        height=64 + 30 * len(rows),
    )


def effect_blocks(effects: tuple[EffectFacts, ...]) -> Iterable[Block]:
    """What it does to a score that one phase comes before another: resolved effects first."""
    yield Prose(
        paragraphs=(
            "Each effect is the mean over the study's orders in which the first phase comes before the second, less "
            "the mean over those in which it comes after, paired by seed. Orders differ in more than one pair, so an "
            "effect describes these orders and is no cause by itself.",
        ),
        quiet=True,
    )
    yield Table(
        caption="Precedence effects",
        columns=("first", "before", "score", "effect and interval", ""),
        rows=tuple(
            (
                *cells(one.before, one.after, one.score),
                figure(one.value, signed(one.value), interval(one.low, one.high)),
                Cell(text="resolved" if one.resolved else "not resolved", tone="" if one.resolved else "quiet"),
            )
            for one in sorted(effects, key=lambda one: (not one.resolved, one.score))
        ),
    )


def capability_blocks(study: StudyFacts) -> Iterable[Block]:
    """Means over seeds of every capability that was measured on the end states."""
    names = tuple(dict.fromkeys(name for row in study.rows for seed in row.seeds for name in seed.capabilities))
    if not names:
        yield Prose(paragraphs=(f"Capabilities of the end states were {NOT_MEASURED}.",))
        return
    yield Table(
        caption="Mean over seeds; the range of seeds below it",
        columns=("metric", *(row.name for row in study.rows)),
        rows=tuple((Cell(text=name), *(_mean(row, name) for row in study.rows)) for name in names),
        folded=len(names) > 12,
    )


def _mean(row: OrderFacts, name: str) -> Cell:
    values = [value for seed in row.seeds if (value := seed.capabilities.get(name)) is not None]
    if not values:
        return Cell(text=NOT_MEASURED, tone="quiet")
    spread = f"{number(min(values))} … {number(max(values))}" if len(values) > 1 else ""
    return figure(values[0], number(sum(values) / len(values)), spread)


def _cut(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"

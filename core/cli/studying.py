"""What a study shows in a terminal: what it would train, and its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .listing import print_table
from .numbers import duration
from .printing import echo

if TYPE_CHECKING:
    from rich.console import Console

    from ..run.plan import Plan
    from ..study.definition import Definition
    from ..study.outlook import Outlook

_NOTHING = "–"
_SHOWN = 40


def quiet_watch(plan: Plan) -> tuple[Callable[[str, Any], None], Callable[[str, float], tuple[Any, ...]]]:
    """Show one line for each phase of a point that ends, and say where it waits for another worker."""

    def show(what: str, fact: Any) -> None:
        if what == "waiting":
            echo(str(fact))
        elif what == "outcome":
            how = "from the store" if fact.reused else f"trained in {duration(fact.facts['seconds'])}"
            place = f"seed {plan.experiment.seed}, {_short(str(plan.experiment.order))}"
            echo(f"  {place}: {fact.name} {how}, gates: {fact.facts['outcome']}")

    return show, lambda step, tokens: ()


def show_outlook(definition: Definition, outlook: Outlook) -> None:
    """Print the rows and parameters of a study, and its trainings with and without sharing."""
    from .terminal import make_console

    space, seeds = definition.space, definition.section.seeds
    if space.rows:
        rows = [
            (row.name, row.order, ", ".join(f"{k}={v}" for k, v in row.set.items()), row.note) for row in space.rows
        ]
        print_table(("row", "order", "sets", "what for"), rows[:_SHOWN])
        if len(rows) > _SHOWN:
            echo(f"… and {len(rows) - _SHOWN:,} more")
    if space.parameters:
        print_table(
            ("parameter", "from", "to", "choices"),
            [(one.key, _said(one.low), _said(one.high), ", ".join(map(str, one.choices))) for one in space.parameters],
        )
    if space.rows and len(space.rows) <= _SHOWN:
        make_console().print(outlook.tree.draw("stages that rows share", lambda number: space.rows[number].name))
    echo(
        f"{definition.choice.trials:,} points, {len(seeds)} seed{'s' if len(seeds) != 1 else ''} each "
        f"({', '.join(map(str, seeds))}), chosen by: {definition.choice.sampler}"
    )
    if space.parameters:
        echo(f"one point trains {outlook.naive:,} stages; early stages that points share are trained once")
        return
    saved = 1 - outlook.shared / outlook.naive
    stored = "" if outlook.stored is None else f", {outlook.stored:,} of them are in the store"
    echo(
        f"{outlook.naive:,} trainings if every row is trained by itself, {outlook.shared:,} with shared stages "
        f"({saved:.1%} less){stored}"
    )
    if outlook.flops is not None:
        echo(f"{outlook.flops[0]:.3g} FLOPs by themselves, {outlook.flops[1]:.3g} shared")


def show_results(console: Console, results: Mapping[str, Any]) -> None:
    """Print the table of a study and what sharing saved."""
    if results["kind"] == "orders":
        _show_orders(console, results)
    else:
        _show_trials(console, results)
    counts = results["trainings"]
    console.print(
        f"{counts['naive']} trainings without sharing, {counts['shared']} with it; trained {counts['trained']}, taken "
        f"from the store {counts['reused']} times; {counts['minutes']:.1f} worker minutes spent, "
        f"{counts['minutes_saved']:.1f} minutes of training saved",
        markup=False,
        soft_wrap=True,
    )


def _show_orders(console: Console, results: Mapping[str, Any]) -> None:
    scores = list(results["scores"])
    print_table(
        ("row", "order", *scores, "gates held"),
        [
            (
                row["name"],
                _short(row["order"]),
                *(_spread(row["scores"][score]) for score in scores),
                _verdicts([seed["verdicts"] for seed in row["seeds"].values()]),
            )
            for row in results["rows"]
        ],
    )
    first, *others = results["rows"] or [None]
    if others:
        console.print(f"difference from {first['name']}, paired by seed, with two-sided 95 % bounds:", markup=False)
        rows = [
            (row["name"], score, _difference(found), found["words"])
            for row in others
            for score, found in row["differences"].items()
        ]
        print_table(("row", "score", "difference", ""), rows)
        console.print(
            "resolved: holds together with all other differences of the table at 95 % (Holm); by itself only: its own "
            "interval leaves 0 out, as one in twenty does by chance",
            markup=False,
        )


def _show_trials(console: Console, results: Mapping[str, Any]) -> None:
    best = set(results["best"])
    print_table(
        (
            "trial",
            "state",
            *(one["key"] for one in results["parameters"]),
            *results["objectives"],
            "gates",
            "stopped",
            "",
        ),
        [
            (
                trial["number"],
                trial["state"],
                *(_said(trial["parameters"].get(one["key"])) for one in results["parameters"]),
                *(_said(value) for value in trial["values"] or [None] * len(results["objectives"])),
                _broken(trial["constraints"]),
                trial["stopped_after"] or "",
                "best" if trial["number"] in best else "",
            )
            for trial in results["trials"]
        ],
    )
    for key, share in results["importance"].items():
        console.print(f"{key} explains {share:.0%}", markup=False)


def _short(order: str) -> str:
    return " > ".join(part[:5] for part in order.split(">"))


def _said(value: Any) -> str:
    if value is None:
        return _NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _spread(score: Mapping[str, Any]) -> str:
    if score["mean"] is None:
        return _NOTHING
    return f"{score['mean']:.3f}" + ("" if score["sd"] is None else f" ± {score['sd']:.3f}")


def _difference(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['value']:+.4f}"
    return f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"


def _verdicts(seeds: Sequence[Mapping[str, int]]) -> str:
    held = sum(seed["pass"] for seed in seeds)
    judged = sum(seed["pass"] + seed["fail"] + seed["undecided"] for seed in seeds)
    return f"{held} of {judged}"


def _broken(constraints: Mapping[str, float]) -> str:
    broken = [name for name, value in constraints.items() if value > 0]
    return (
        "all hold"
        if not broken
        else ", ".join(broken[:2]) + (f" and {len(broken) - 2} more" if len(broken) > 2 else "")
    )

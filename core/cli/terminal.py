"""What a run leaves in a terminal: the plan, gates, and where everything was written.

Everything shown is duck-typed: dataclasses with the named fields will do. rich is imported only when shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .numbers import NOTHING, count, hours, interval, money, number, size
from .printing import plain_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LOG_WIDTH = 160  # columns where the output is a file or a pipe
VERDICT_STYLES = {"pass": "green", "fail": "bold red", "undecided": "yellow"}


def make_console(stream: IO[str] | None = None) -> Console:
    """A console that is as wide as the terminal, and 160 columns where there is none."""
    console = plain_console(file=stream)
    return console if console.is_terminal else plain_console(file=stream, width=LOG_WIDTH)


def show_plan(console: Console, plan: Any) -> None:
    """Prints a plan: what the dial derived and why, the components, one row per step, the budget.

    Reads ``experiment``, ``derived`` (values, reasons), ``components`` (reference to entry), ``facts``, ``memory``,
    ``budget`` and ``stages`` (name, section, recipe, tokens, flops, cached) of ``plan``, and ``sizes`` if it has them.
    """
    from ..run.work import WITHOUT_STEPS

    facts = plan.facts
    _print(console, f"{plan.experiment.name}: {' > '.join(stage.name for stage in plan.stages)}", style="bold")
    dial = _table(f"derived from size {plan.experiment.size}", "value", "", "reason")
    for name, value in plan.derived.values.items():
        dial.add_row(*_cells(name, f"{value:g}", plan.derived.reasons.get(name, "")))
    console.print(dial)
    used = _table("components", "component", "version", "revision")
    for ref, entry in plan.components.items():
        used.add_row(*_cells(ref, entry.version, entry.component.revision))
    console.print(used)
    steps = _table("steps", "phase", "step", "objective", "steps", "rows", "rate", "loss terms", "")
    for stage in plan.stages:
        for name, step in stage.section.steps.items():
            state = "in the store" if stage.cached else "to train"
            losses = ", ".join(step.losses) or NOTHING
            fitted = step.objective in WITHOUT_STEPS
            many, rate = (NOTHING, NOTHING) if fitted else (step.steps, f"{step.learning_rate:g}")
            steps.add_row(*_cells(stage.name, name, step.objective, many, step.rows, rate, losses, state))
    console.print(steps)
    _show_sizes(console, getattr(plan, "sizes", {}))
    show_budget(console, plan.budget, {stage.name: stage.recipe.name for stage in plan.stages})
    tokens, flops = sum(stage.tokens for stage in plan.stages), sum(stage.flops for stage in plan.stages)
    _print(
        console,
        f"{count(facts.total)} parameters, {count(facts.active)} active; {count(tokens)} tokens, {_flops(flops)} "
        f"FLOPs; about {size(plan.memory)} of memory in one process",
    )


def show_budget(console: Console, budget: Any, stages: Mapping[str, str]) -> None:
    """Prints the token budget, with a paper's beside it where the phases are that paper's, then FLOPs, hours and cost;
    ``stages`` names each phase's stage in the store.

    Reads ``machine``, ``phases`` (name to tokens, share, driver, published, training, inference, hours, cost),
    ``missing``, ``uncounted``, ``tokens`` and ``flops`` of ``budget``, and ``claims`` if it has them.
    """
    from ..run.published import REMARKS

    published = any(phase.published is not None for phase in budget.phases.values())
    console.print(_token_table(budget, published))
    machine = budget.machine
    spent = _table("compute in FLOPs", "phase", "training", "inference", "hours", "US dollars", "stage")
    for phase in budget.phases.values():
        work = (_flops(phase.training), _flops(phase.inference) if phase.inference else NOTHING)
        spent.add_row(*_cells(phase.phase, *work, hours(phase.hours), money(phase.cost), stages[phase.phase]))
    training = sum(phase.training for phase in budget.phases.values())
    work = (_flops(training), _flops(budget.flops - training) if budget.flops > training else NOTHING)
    total = (hours(machine.hours(budget.flops)), money(machine.cost(budget.flops)))
    spent.add_row(*_cells("all", *work, *total, ""))
    console.print(spent)
    device = f"{machine.devices} x {machine.device.name} in {machine.precision}"
    rate = f"{machine.utilization:.0%} of {count(machine.peak)}FLOP/s"
    price = f"{machine.price:g} US dollars{' (assumed)' if machine.assumed else ''}"
    _print(console, f"hours and cost: {device}, each at {rate} and {price} an hour")
    _print(console, f"not counted: {'; '.join(budget.uncounted)}", style="dim")
    for line in REMARKS if published else ():
        _print(console, line, style="dim")
    if claims := getattr(budget, "claims", ()):
        _show_claims(console, claims)


def show_gates(
    console: Console, judgements: Iterable[Any], *, title: str = "gates", papers: Mapping[str, str | None] | None = None
) -> None:
    """Prints one row per judgement, and below the table the reason of every one that is not a pass.

    ``papers`` maps a criterion to the published bound where the judgements do not carry it as ``paper``.
    """
    from rich.text import Text

    judged = list(judgements)
    table = _table(title, "criterion", "metric", "value", "interval", "bound", "paper's bound", "n", "verdict")
    for item in judged:
        paper = getattr(item, "paper", None) or (papers or {}).get(item.criterion) or NOTHING
        cells = (item.criterion, item.metric, number(item.value), interval(item.low, item.high), item.bound, paper)
        table.add_row(*_cells(*cells, f"{item.n:,}"), Text(item.verdict, style=VERDICT_STYLES.get(item.verdict, "")))
    console.print(table)
    for item in judged:
        if item.verdict != "pass":
            _print(console, f"{item.criterion} ({item.metric}) {item.verdict}: {item.reason}", style="dim")


def show_written(console: Console, places: Mapping[str, Path]) -> None:
    """Prints where everything was written, one line each, never wrapped."""
    width = max((len(name) for name in places), default=0)
    for name, path in places.items():
        _print(console, f"{name.ljust(width)}  {path}")


def _show_sizes(console: Console, sizes: Mapping[str, Any]) -> None:
    """Prints what the model is at the end of each phase, if it does not stay as it is."""
    if len({(facts.total, facts.active) for facts in sizes.values()}) < 2:
        return
    table = _table("parameters by phase", "phase", "total", "experts", "shared", "routers", "norms", "active")
    for phase, facts in sizes.items():
        parts = [facts.by_role.get(role, 0) for role in ("experts", "router", "norm")]
        experts, routers, norms = (_finely(part) if part else NOTHING for part in parts)
        shared = _finely(facts.total - sum(parts))
        cells = (_finely(facts.total), experts, shared, routers, norms, _finely(facts.active))
        table.add_row(*_cells(phase, *cells))
    console.print(table)
    text = "shared: attention, recurrence, dense FFNs and embedding; active: what one token passes, as often as it does"
    _print(console, text, style="dim")


def _token_table(budget: Any, published: bool) -> Table:
    from ..run.published import PUBLISHED_SHARES, PUBLISHED_TOKENS

    columns = ("phase", "tokens", "share", "primary cost driver")
    beside = ("paper", "printed", "corrected") if published else ()
    table = _table("token budget, the paper's beside it" if published else "token budget", *columns, *beside)
    for phase in budget.phases.values():
        own = (phase.phase, count(phase.tokens), f"{phase.share:.2%}", phase.driver)
        table.add_row(*_cells(*own, *(_published(phase.published) if published else ())))
    for row in budget.missing:
        table.add_row(*_cells(f"({row.phase})", NOTHING, NOTHING, row.driver, *_published(row)))
    sums = (f"{PUBLISHED_TOKENS / 1e9:,.0f} G", f"{PUBLISHED_SHARES:.1f}%", "100.00%") if published else ()
    table.add_row(*_cells("all", count(budget.tokens), "100.00%" if budget.tokens else NOTHING, "", *sums))
    return table


def _show_claims(console: Console, claims: Sequence[Any]) -> None:
    """Prints the compute that the second paper claims, under each claim what it takes, and what else is wrong."""
    from ..run.published import A100, CLAIM_REMARKS, TIED

    reached = f"{A100.utilization:.0%} of {count(A100.peak)}FLOP/s"
    title = f"the paper's compute, claimed and corrected: an A100 reaches {reached}"
    table = _table(title, "stage", "", "N", "D", "FLOPs", "A100-hours", "FLOP/s (of peak)")

    def add(stage: str, basis: str, flops: float, spent: float, *of: str) -> None:
        rate = flops / spent / 3600
        cells = (*(of or ("", "")), _power(flops), f"{_rounded(spent):,.0f}", f"{count(rate)} ({rate / A100.peak:.0%})")
        table.add_row(*_cells(stage, basis, *cells))

    for claim in claims:
        add(claim.stage, "claimed", claim.claimed_flops, claim.claimed_hours)
        for row in (claim, TIED) if claim.phase == TIED.phase else (claim,):
            basis = f"{row.factor} N D{' + teacher' if row.teacher else ''}{', FFNs tied' if row is TIED else ''}"
            add("", basis, row.flops, row.hours, _finely(row.parameters), count(row.tokens))
    claimed = sum(claim.claimed_hours for claim in claims)
    add("all", "claimed", sum(claim.claimed_flops for claim in claims), claimed)
    add("", "corrected", sum(claim.flops for claim in claims), sum(claim.hours for claim in claims))
    console.print(table)
    costs = (claimed * A100.price, sum(claim.cost for claim in claims))
    text = "at {:g} US dollars an A100-hour: {:,.0f} claimed, {:,.0f} corrected"
    _print(console, text.format(A100.price, *map(_rounded, costs)))
    for line in CLAIM_REMARKS:
        _print(console, line, style="dim")


def _finely(value: float) -> str:
    """A count with five digits, for numbers that differ little."""
    suffix = count(value).partition(" ")[2]
    scaled = value / 1000 ** ("kMGTPE".index(suffix) + 1 if suffix else 0)
    return f"{scaled:.5g} {suffix}".rstrip()


def _flops(value: float) -> str:
    """A count, with a power of ten from 10^21 on, where few know the letters."""
    return count(value) if value < 1e21 else _power(value)


def _power(value: float) -> str:
    """Three digits and a power of ten."""
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits}e{int(power)}"


def _rounded(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")


def _published(row: Any) -> tuple[str, str, str]:
    if row is None:
        return (NOTHING, NOTHING, NOTHING)
    return (f"{row.tokens / 1e9:,.0f} G", f"{row.printed:.1f}%", f"{row.share:.2%}")


def _print(console: Console, text: str, style: str = "") -> None:
    # As Text and unwrapped: names and paths may hold brackets, and a wrapped path cannot be copied.
    from rich.text import Text

    console.print(Text(text, style=style), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cells(*values: Any) -> list[Any]:
    from rich.text import Text

    return [Text(str(value)) for value in values]

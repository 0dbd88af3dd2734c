"""What a run shows in a terminal: the plan, progress, gates, and where everything was written.

Everything shown is duck-typed: dataclasses with the named fields will do. rich is imported only when shown.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

LOG_WIDTH = 160  # columns where the output is a file or a pipe
VERDICT_STYLES = {"pass": "green", "fail": "bold red", "undecided": "yellow"}

_NOTHING = "–"


def make_console(stream: IO[str] | None = None) -> Console:
    """A console that is as wide as the terminal, and 160 columns where there is none."""
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    return console if console.is_terminal else Console(file=stream, highlight=False, width=LOG_WIDTH)


def show_plan(console: Console, plan: Any) -> None:
    """Prints a plan: what the dial derived and why, the components, one row per step, the budget.

    Reads ``experiment``, ``derived`` (values, reasons), ``components`` (reference to entry), ``facts``, ``memory``,
    ``budget`` and ``stages`` (name, section, recipe, tokens, flops, cached) of ``plan``.
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
            losses = ", ".join(step.losses) or _NOTHING
            fitted = step.objective in WITHOUT_STEPS
            many, rate = (_NOTHING, _NOTHING) if fitted else (step.steps, f"{step.learning_rate:g}")
            steps.add_row(*_cells(stage.name, name, step.objective, many, step.rows, rate, losses, state))
    console.print(steps)
    show_budget(console, plan.budget, {stage.name: stage.recipe.name for stage in plan.stages})
    tokens, flops = sum(stage.tokens for stage in plan.stages), sum(stage.flops for stage in plan.stages)
    _print(
        console,
        f"{count(facts.total)} parameters, {count(facts.active)} active; {count(tokens)} tokens, {count(flops)} FLOPs; "
        f"about {size(plan.memory)} of memory in one process",
    )


def show_budget(console: Console, budget: Any, stages: Mapping[str, str]) -> None:
    """Prints the token budget with the paper's beside it, then FLOPs, hours and cost; ``stages`` names each phase's
    stage in the store.

    Reads ``machine``, ``phases`` (name to tokens, share, driver, published, training, inference, hours, cost),
    ``missing``, ``uncounted``, ``tokens`` and ``flops`` of ``budget``.
    """
    from ..run.published import PUBLISHED_SHARES, PUBLISHED_TOKENS, REMARKS

    columns = ("phase", "tokens", "share", "primary cost driver", "paper", "printed", "corrected")
    tokens = _table("token budget, the paper's beside it", *columns)
    for phase in budget.phases.values():
        own = (phase.phase, count(phase.tokens), f"{phase.share:.2%}", phase.driver)
        tokens.add_row(*_cells(*own, *_published(phase.published)))
    for row in budget.missing:
        tokens.add_row(*_cells(f"({row.phase})", _NOTHING, _NOTHING, row.driver, *_published(row)))
    sums = (f"{PUBLISHED_TOKENS / 1e9:,.0f} G", f"{PUBLISHED_SHARES:.1f}%", "100.00%")
    tokens.add_row(*_cells("all", count(budget.tokens), "100.00%" if budget.tokens else _NOTHING, "", *sums))
    console.print(tokens)
    machine = budget.machine
    spent = _table("compute in FLOPs", "phase", "training", "inference", "hours", "US dollars", "stage")
    for phase in budget.phases.values():
        work = (count(phase.training), count(phase.inference) if phase.inference else _NOTHING)
        spent.add_row(*_cells(phase.phase, *work, hours(phase.hours), money(phase.cost), stages[phase.phase]))
    training = sum(phase.training for phase in budget.phases.values())
    work = (count(training), count(budget.flops - training) if budget.flops > training else _NOTHING)
    total = (hours(machine.hours(budget.flops)), money(machine.cost(budget.flops)))
    spent.add_row(*_cells("all", *work, *total, ""))
    console.print(spent)
    device = f"{machine.devices} x {machine.device.name} in {machine.precision}"
    rate = f"{machine.utilization:.0%} of {count(machine.peak)}FLOP/s"
    price = f"{machine.price:g} US dollars{' (assumed)' if machine.assumed else ''}"
    _print(console, f"hours and cost: {device}, each at {rate} and {price} an hour")
    _print(console, f"not counted: {'; '.join(budget.uncounted)}", style="dim")
    for line in REMARKS:
        _print(console, line, style="dim")


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
        paper = getattr(item, "paper", None) or (papers or {}).get(item.criterion) or _NOTHING
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


class PhaseProgress:
    """Progress of one step of a phase: steps done, tokens/s, time left, losses.

    A terminal gets a bar; anything else gets one line every ``every`` seconds and one at the end. Rates count
    only what was done since the start, not what an earlier attempt had done. Used as a context manager.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        total: int,
        *,
        done: int = 0,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._title = title
        self._total = total
        self._first = done
        self._every = every
        self._clock = clock
        self._start = self._told = clock()
        self._bar = _bar(console) if console.is_terminal else None
        self._task = self._bar.add_task(title, total=total, completed=done, facts="") if self._bar else None

    def update(self, step: int, tokens: int, losses: Mapping[str, float]) -> None:
        """Shows that ``step`` steps are done, the last of them with these losses.

        ``tokens`` counts since this object was made.
        """
        now = self._clock()
        facts = self._facts(step, tokens, losses, now - self._start)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, facts=facts)
        elif now - self._told >= self._every or step >= self._total:
            self._told = now
            share = step / self._total if self._total else 1.0
            _print(self._console, f"{self._title}  {step}/{self._total}  {share:.0%}  {facts}")

    def _facts(self, step: int, tokens: int, losses: Mapping[str, float], seconds: float) -> str:
        done = step - self._first
        rate = f"{tokens / seconds:,.0f}" if seconds > 0 else _NOTHING
        left = duration((self._total - step) * seconds / done) if done > 0 else _NOTHING
        parts = [f"{rate} tokens/s", f"{left} left", *(f"{name} {number(value)}" for name, value in losses.items())]
        return "  ".join(parts)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def number(value: float | None) -> str:
    """Four significant digits; a dash where there is no number."""
    return _NOTHING if value is None or math.isnan(value) else f"{value:.4g}"


def interval(low: float, high: float) -> str:
    """``[low, high]``; a dash where neither is a number."""
    return _NOTHING if math.isnan(low) and math.isnan(high) else f"[{number(low)}, {number(high)}]"


def count(value: float) -> str:
    """A count with three digits and k, M, G, T, P or E (powers of 1000)."""
    scaled, suffixes = float(value), ["", " k", " M", " G", " T", " P", " E"]
    while scaled >= 999.5 and len(suffixes) > 1:
        scaled /= 1000
        suffixes.pop(0)
    return f"{scaled:.3g}{suffixes[0]}"


def hours(value: float) -> str:
    """``h:mm:ss`` below a day, whole hours from there; less than a second is said so."""
    seconds = value * 3600
    if seconds < 1:
        return "< 1 s" if seconds > 0 else _NOTHING
    return duration(seconds) if value < 24 else f"{value:,.0f} h"


def money(value: float) -> str:
    """An amount in hundredths; less than one is said so."""
    if value < 0.01:
        return "< 0.01" if value > 0 else _NOTHING
    return f"{value:,.2f}"


def size(value: float) -> str:
    """Bytes with three digits and KiB, MiB, GiB or TiB (powers of 1024)."""
    scaled, suffixes = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while scaled >= 999.5 and len(suffixes) > 1:
        scaled /= 1024
        suffixes.pop(0)
    return f"{scaled:.3g} {suffixes[0]}"


def duration(seconds: float) -> str:
    """``h:mm:ss``."""
    return str(timedelta(seconds=round(seconds)))


def _published(row: Any) -> tuple[str, str, str]:
    if row is None:
        return (_NOTHING, _NOTHING, _NOTHING)
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


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    # Titles and facts are plain text; markup would swallow a name in brackets.
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        console=console,
    )

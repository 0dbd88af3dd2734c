"""A run as a page: the answer, then the evidence in the order in which one asks for it."""

from __future__ import annotations

from collections.abc import Iterable

from .answers import answer
from .blocks import Block, Cell, Code, Document, Prose, Section, Table, Tone, cells, facts_table, figure
from .capability_page import matrix_blocks
from .confidence_page import confidence_blocks
from .course_page import course_blocks
from .expert_page import ablation_blocks, expert_blocks
from .facts import BenchmarkFacts, Gate, PhaseFacts, RunFacts, Value
from .numbers import FIXED, NOT_MEASURED, NOTHING, count, duration, interval, number, several, size
from .trade_page import trade_blocks

SIGNS: dict[str, str] = {"pass": "✓ pass", "fail": "✗ fail", "undecided": "? undecided"}
_TONES: dict[str, Tone] = {"pass": "pass", "fail": "fail", "undecided": "undecided"}


def run_page(run: RunFacts) -> Document:
    """Return the page of a run."""
    sections = {
        "gates": ("Did each phase do its job?", gate_blocks(run.gates)),
        "matrix": ("What did each phase do to every capability?", matrix_blocks(run)),
        "course": ("Loss over the curriculum", course_blocks(run)),
        "experts": ("Expert biographies", expert_blocks(run)),
        "ablation": ("What is lost without each expert", ablation_blocks(run.ablation)),
        "confidence": ("Does the model know what it knows?", confidence_blocks(run.confidence)),
        "trade": ("Safety against helpfulness", trade_blocks(run.trade)),
        "benchmarks": ("Benchmarks", benchmark_blocks(run)),
        "effort": ("Time, tokens and memory", effort_blocks(run)),
        "provenance": ("Provenance", provenance_blocks(run)),
    }
    seeds = sorted({str(phase.seed) for phase in run.phases if phase.seed is not None})
    about = (
        ("run", run.run),
        ("phases", " > ".join(phase.name for phase in run.phases)),
        ("seed", ", ".join(seeds) or NOTHING),
        ("parameters", ", ".join(f"{count(n)} {what}" for what, n in run.parameters.items())),
    )
    return Document(
        title=run.experiment,
        kind="run",
        about=about,
        answer=answer(run),
        sections=tuple(
            Section(key=key, title=title, blocks=tuple(blocks)) for key, (title, blocks) in sections.items()
        ),
    )


def gate_blocks(gates: Iterable[Gate]) -> Iterable[Block]:
    """The judgements of every phase with their bounds; what did not pass comes with its reason."""
    every = list(gates)
    columns = ("criterion", "metric", "value and interval", "bound", "paper's bound", "documents", "verdict")
    if not every:
        yield Prose(paragraphs=("No criterion was judged.",))
        return
    yield Prose(
        paragraphs=(
            "Ends of intervals are one-sided bounds at the criterion's confidence (95 % unless it says otherwise); a "
            "criterion passes when the whole interval clears its bound, fails when none of it does, and is undecided "
            "in between.",
        ),
        quiet=True,
    )
    open_ones = [gate for gate in every if gate.judgement.verdict != "pass"]
    if open_ones:
        yield Table(
            caption="What did not pass, and why",
            columns=("phase", "at", "criterion", "verdict", "reason"),
            rows=tuple(
                (
                    *cells(gate.phase, gate.at, f"{gate.judgement.criterion} ({gate.judgement.metric})"),
                    _verdict(gate),
                    Cell(text=gate.judgement.reason),
                )
                for gate in open_ones
            ),
        )
    for at in ("completion", "entry"):
        for phase in dict.fromkeys(gate.phase for gate in every if gate.at == at):
            own = [gate for gate in every if gate.phase == phase and gate.at == at]
            yield Table(
                caption=f"{phase}: {at} criteria, {_tally(own)}",
                columns=columns,
                rows=tuple(_together(own)),
                folded=at == "entry",
            )
    yield Table(
        caption=f"Every judgement, metric by metric ({len(every)})",
        columns=("phase", "at", *columns),
        rows=tuple((*cells(gate.phase, gate.at), *_judged(gate)) for gate in every),
        folded=True,
    )


def _together(gates: list[Gate]) -> Iterable[tuple[Cell, ...]]:
    """A row for every judgement; those of one criterion over several metrics share one where all of them pass."""
    for name in dict.fromkeys(gate.judgement.criterion for gate in gates):
        own = [gate for gate in gates if gate.judgement.criterion == name]
        if len(own) < 3 or any(gate.judgement.verdict != "pass" for gate in own):
            yield from map(_judged, own)
            continue
        judgements = [gate.judgement for gate in own]
        low, high = (pick(judgements, key=lambda one: one.value) for pick in (min, max))
        row = _judged(own[0])
        counts = sorted({one.n for one in judgements})
        yield (
            row[0],
            Cell(text=f"{len(own)} metrics", note=f"{low.metric} … {high.metric}"),
            figure(
                low.value,
                f"{number(low.value)} … {number(high.value)}",
                " … ".join(interval(one.low, one.high) for one in (low, high)),
            ),
            *row[3:5],
            figure(counts[0], count(counts[0]) + (f" … {count(counts[-1])}" if len(counts) > 1 else "")),
            row[6],
        )


def _verdict(gate: Gate) -> Cell:
    verdict = gate.judgement.verdict
    return Cell(text=SIGNS.get(verdict, verdict), tone=_TONES.get(verdict, ""))


def _tally(gates: list[Gate]) -> str:
    counts = {sign: sum(gate.judgement.verdict == verdict for gate in gates) for verdict, sign in SIGNS.items()}
    return ", ".join(f"{n} {sign}" for sign, n in counts.items() if n)


def _judged(gate: Gate) -> tuple[Cell, ...]:
    one = gate.judgement
    what = {"difference": "change of ", "win_rate": "wins on "}.get(one.statistic, "")
    confidence = "" if one.confidence == 0.95 else f" at {100 * one.confidence:g} %"
    return (
        Cell(text=one.criterion),
        Cell(text=f"{what}{one.metric}"),
        figure(one.value, number(one.value), interval(one.low, one.high) + confidence),
        figure(0.0, one.bound.replace(" ", FIXED)),
        Cell(text=gate.paper or NOTHING),
        figure(one.n, count(one.n)),
        _verdict(gate),
    )


def benchmark_blocks(run: RunFacts) -> Iterable[Block]:
    """Benchmark results by task; what could not be evaluated has no value, and why."""
    if not run.benchmarks:
        yield Prose(
            paragraphs=(
                "No stage of this run was benchmarked; ‘platform eval RUN --tasks …’ does, and the next report "
                "shows it here.",
            )
        )
        return
    yield Table(
        caption="Benchmarks after every phase, with bounds (one-sided, 95 %); chance level below the metric",
        columns=("task", "metric", "documents", *(phase.name for phase in run.phases)),
        rows=tuple(_benchmark(row) for row in run.benchmarks),
    )
    missing = {f"{row.task}: {reason}" for row in run.benchmarks for reason in row.missing}
    if missing:
        yield Prose(paragraphs=tuple(sorted(missing)), quiet=True)


def _benchmark(row: BenchmarkFacts) -> tuple[Cell, ...]:
    chance = next((value.chance for value in row.values if value is not None and value.chance is not None), None)
    return (
        Cell(text=row.task),
        Cell(text=row.metric or NOTHING, note="" if chance is None else f"chance {number(chance)}"),
        Cell(text=row.documents or NOTHING, note=row.settings),
        *(value_cell(value, "not evaluated") for value in row.values),
    )


def value_cell(value: Value | None, nothing: str = NOT_MEASURED) -> Cell:
    """A value with its interval below it."""
    if value is None:
        return Cell(text=nothing, tone="quiet")
    if value.value is None:
        return Cell(text="not evaluated", tone="quiet", note=value.missing or "")
    return figure(value.value, number(value.value), interval(value.low, value.high))


def effort_blocks(run: RunFacts) -> Iterable[Block]:
    """What every phase took."""
    rows = [
        (
            Cell(text=phase.name, note="reused from the store" if phase.reused else ""),
            figure(phase.steps, count(phase.steps)),
            Cell(text=", ".join(kind for kind, _ in phase.attempts)),
            figure(phase.tokens, count(phase.tokens)),
            figure(phase.seconds, duration(phase.seconds)),
            figure(phase.seconds, count(phase.tokens / phase.seconds) if phase.tokens and phase.seconds else NOTHING),
            figure(phase.memory, size(phase.memory), _memory(phase)),
        )
        for phase in run.phases
    ]
    tokens, seconds = (sum(getattr(phase, name) or 0 for phase in run.phases) for name in ("tokens", "seconds"))
    steps, most = sum(phase.steps for phase in run.phases), max(phase.memory or 0 for phase in run.phases)
    total = (
        Cell(text="all"),
        figure(steps, count(steps)),
        Cell(text=several(sum(len(phase.attempts) for phase in run.phases), "attempt")),
        figure(tokens, count(tokens)),
        figure(seconds, duration(seconds)),
        figure(seconds, count(tokens / seconds) if seconds else NOTHING),
        figure(most or None, size(most or None)),
    )
    yield Table(
        caption="What every phase took to train, of all its attempts; a reused stage took it when it was made",
        columns=("phase", "optimiser steps", "attempts", "tokens", "time", "tokens per second", "peak memory"),
        rows=(*rows, total),
    )


def _memory(phase: PhaseFacts) -> str:
    """What the peak leaves out: the device's own, and that it may be older than the phase."""
    device = "" if phase.device_memory is None else f"{size(phase.device_memory)} on the device"
    since = "of the whole process" if phase.memory is not None and phase.memory_since == "process" else ""
    return ", ".join(part for part in (since, device) if part)


def provenance_blocks(run: RunFacts) -> Iterable[Block]:
    """Where everything comes from."""
    yield Table(
        caption="Stages",
        columns=("phase", "stage", "digest", "data", "seed", "made", "decision"),
        rows=tuple(
            (
                *cells(phase.name, phase.stage, phase.digest, phase.data or NOTHING),
                *cells(NOTHING if phase.seed is None else str(phase.seed), phase.created),
                Cell(text=phase.action, note=phase.reason),
            )
            for phase in run.phases
        ),
    )
    drift = "allowed: the run may mix code of different versions" if run.drift else "none allowed"
    gates = {"warn": "only warned", "stop": "could stop the run"}.get(run.mode, run.mode)
    yield facts_table("Run", {"gates": gates, "plugin drift": drift, **run.distributions})
    libraries = {name: text for phase in run.phases for name, text in phase.libraries.items()}
    components = {name: str(n) for phase in run.phases for name, n in phase.components.items()}
    yield facts_table("Libraries and their versions", libraries)
    yield Table(
        caption="Components and their revisions",
        columns=("component", "revision"),
        rows=tuple(cells(name, revision) for name, revision in sorted(components.items())),
        folded=True,
    )
    yield Code(title="The experiment", text=run.text)

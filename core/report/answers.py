"""The answer in sentences: did each phase do its job, what did it cost the others, and what was not asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .facts import BumpFacts, Capability, Change, Gate, RunFacts
from .numbers import FIXED, count, duration, interval, listed, number, percent, several, signed

_NAMED = 3  # of a kind; the tables have them all


def answer(run: RunFacts) -> tuple[str, ...]:
    """The answer to what a report on a run is opened for, each sentence from the numbers below it."""
    return (
        *_jobs(run),
        *_costs(run),
        *_transition(run.bumps),
        *_effort(run),
    )


def _jobs(run: RunFacts) -> Iterable[str]:
    completion = [gate for gate in run.gates if gate.at == "completion"]
    judged = list(dict.fromkeys(gate.phase for gate in completion))
    failed = [gate for gate in completion if gate.judgement.verdict == "fail"]
    open_ones = [*failed, *(gate for gate in completion if gate.judgement.verdict == "undecided")]
    short = list(dict.fromkeys(gate.phase for gate in open_ones))
    if not judged:
        yield "No phase was judged: the experiment has no completion criteria."
    elif not open_ones:
        yield (
            f"Every phase did its job: all {several(len(completion), 'judgement')} of the completion criteria of "
            f"{several(len(judged), 'phase')} pass."
        )
    else:
        done = [phase for phase in judged if phase not in short]
        missed = list(dict.fromkeys(gate.phase for gate in failed))
        unsure = [phase for phase in short if phase not in missed]
        told = [f"{len(done)} of {several(len(judged), 'phase')} did all of their job"]
        told += [f"{listed(missed)} did not"] if missed else []
        told += [f"of {listed(unsure)} it is undecided"] if unsure else []
        passed = sum(gate.judgement.verdict == "pass" for gate in completion)
        yield (
            f"{'; '.join(told)}: {passed} of {several(len(completion), 'judgement')} pass, "
            f"{_verdicts(completion, 'fail')} and {_verdicts(completion, 'undecided')}."
        )
        for gate in open_ones[:_NAMED]:
            yield _open(gate)
        if len(open_ones) > _NAMED:
            yield f"{len(open_ones) - _NAMED} more are marked in the table of gates."
    entry = [gate for gate in run.gates if gate.at == "entry" and gate.judgement.verdict != "pass"]
    if entry:
        phases = list(dict.fromkeys(gate.phase for gate in entry))
        yield f"At their entry, {several(len(entry), 'criterion', 'criteria')} of {listed(phases)} did not pass."
    stopped = [phase.name for phase in run.phases[:-1] if phase.action == "stop"]
    if stopped and run.mode == "warn":
        yield f"Gates only warned in this run: it went on after {listed(stopped)}, where the policy said stop."
    left = [name for name in run.planned if name not in {phase.name for phase in run.phases}]
    if left:
        yield f"The run is not finished: {listed(left)} {'has' if len(left) == 1 else 'have'} no stage yet."


def _verdicts(gates: Sequence[Gate], verdict: str) -> str:
    amount = sum(gate.judgement.verdict == verdict for gate in gates)
    verb = ("fails", "fail") if verdict == "fail" else ("stays undecided", "stay undecided")
    return f"{amount or 'none'} {verb[amount > 1]}"


def _open(gate: Gate) -> str:
    one = gate.judgement
    word = "fails" if one.verdict == "fail" else "is undecided"
    what = {"difference": "change of ", "win_rate": "wins on "}.get(one.statistic, "")
    where = f"{gate.phase}: {one.criterion} ({what}{one.metric}) {word}"
    if one.reason.startswith("not evaluated"):
        return f"{where}; {one.reason}."
    found = f"{number(one.value)} {interval(one.low, one.high)}".strip()
    return f"{where}: {found} where {one.bound.replace(' ', FIXED)} is asked for."


def changed(run: RunFacts, worse: bool) -> list[tuple[str, Capability, Change]]:
    """Judged metrics that a phase changed beyond their noise for the worse, or for the better: phase, metric, change;
    the most certain first."""
    found = [
        (phase.name, capability, value.change)
        for capability in run.capabilities
        if capability.judged and capability.higher is not None
        for phase, value in zip(run.phases, capability.values, strict=True)
        if value is not None and value.change is not None and value.change.resolved
        if worse == ((value.change.value > 0) != capability.higher)
    ]
    return sorted(found, key=lambda one: -_certainty(one[2]))


def _certainty(change: Change) -> float:
    half = ((change.high or 0.0) - (change.low or 0.0)) / 2
    return abs(change.value) / half if half > 0 else float("inf")


def _costs(run: RunFacts) -> Iterable[str]:
    asked = [one for one in run.capabilities if one.judged and one.higher is not None]
    pairs = [v for one in asked for v in one.values if v is not None and v.change is not None]
    paired = sum(value.change is not None and value.change.low is not None for value in pairs)
    if not paired:
        yield "What each phase cost the others was not measured: no metric was taken after two phases."
        return
    worse, better = changed(run, worse=True), changed(run, worse=False)
    if not worse:
        yield f"No phase cost the others anything that resolves, in {several(paired, 'paired comparison')}."
    else:
        told = "; ".join(_cost(run, *one) for one in worse[:_NAMED])
        more = f"; and {len(worse) - _NAMED} more" if len(worse) > _NAMED else ""
        yield f"What got worse beyond its noise, in {several(paired, 'paired comparison')}: {told}{more}."
    if better:
        told = "; ".join(_cost(run, *one) for one in better[:_NAMED])
        more = f"; and {len(better) - _NAMED} more" if len(better) > _NAMED else ""
        yield f"What got better beyond its noise: {told}{more}."


def _cost(run: RunFacts, phase: str, capability: Capability, change: Change) -> str:
    names = [one.name for one in run.phases]
    direct = names[names.index(phase) - 1] == change.since
    # What several phases did together is no single one's doing.
    who = phase if direct else f"what came after {change.since} up to {phase}"
    return f"{who} moved {capability.name} by {signed(change.value)} {interval(change.low, change.high)}"


def _transition(bumps: Sequence[BumpFacts]) -> Iterable[str]:
    known = [bump for bump in bumps if bump.height is not None]
    if not known:
        return
    top = max(known, key=lambda bump: bump.height or 0.0)
    height = top.height or 0.0
    never = [f"{bump.phase}/{bump.step}" for bump in bumps if bump.recovery is None]
    back = (
        "it did not come back within the step" if top.recovery is None else f"back after {percent(top.recovery)} of it"
    )
    yield (
        f"The highest transition bump is that of {top.phase}/{top.step}: {signed(height)} nats per token "
        f"({percent(height / top.before)}) on held-out text of the phase before, {back}."
    )
    others = [name for name in never if name != f"{top.phase}/{top.step}"]
    if others:
        yield f"The old loss {'also ' if top.recovery is None else ''}did not come back in {listed(others)}."


def _effort(run: RunFacts) -> Iterable[str]:
    seconds = [phase.seconds for phase in run.phases if phase.seconds is not None]
    tokens = [phase.tokens for phase in run.phases if phase.tokens is not None]
    if seconds and tokens:
        yield (
            f"Training took {duration(sum(seconds))} for {count(sum(tokens))} tokens in "
            f"{several(len(run.phases), 'phase')}."
        )

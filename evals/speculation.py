"""Speculative decoding measured: how many proposals are accepted, what that saves, and what the formula promises.

Measured directly and not through lm-eval, which neither hands an assistant model on nor takes times.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Assistant = Callable[[int], Any]  # the assistant model, set to propose so many tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What answering one prompt took; seconds are wall clock.

    ``plain`` is the target alone, ``first`` the target alone up to its first token, ``assisted`` with a draft, of
    which ``drafting`` was spent proposing. ``calls`` are forwards of the target in assisted generation. Of the
    ``proposed`` tokens, those up to the first rejected one of each round were ``judged``.
    """

    plain: float
    first: float
    assisted: float
    drafting: float
    tokens: int
    calls: int
    proposed: int
    judged: int
    accepted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One prompt, by number of proposed tokens: what it took, and whether the output was the target's own."""

    tallies: Mapping[int, Tally]
    identical: Mapping[int, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """A statistic over prompts, with bounds of 95 % each by bootstrap over prompts."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long an answer may get, and which tokens end it."""

    new_tokens: int
    ends: Sequence[int] = ()


def measure_speculation(
    model: Any,
    assistant: Assistant,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    *,
    proposals: int,
    curve: Sequence[int] = (),
    curve_prompts: int = 0,
    rounds: int = 3,
) -> list[Trial]:
    """Answer every prompt greedily, one at a time, by the target alone and with the draft, in the same process.

    The two take turns, and begin in turn; a prompt's seconds are the medians of ``rounds`` runs. The first
    ``curve_prompts`` prompts are also answered with the numbers of proposed tokens in ``curve``, once each. Proposals
    are counted in runs of their own. The model should be in eval mode.
    """
    trials = []
    for place, prompt in enumerate(prompts):
        _, alone = _answer(model, prompt, limits)
        counted: dict[int, dict[str, Any]] = {}
        identical: dict[int, bool] = {}
        for number in sorted({proposals, *(curve if place < curve_prompts else ())}):
            counted[number], tokens = _watched(model, prompt, limits, assistant(number))
            identical[number] = tokens == alone
        first, _ = _answer(model, prompt, Limits(new_tokens=1))
        plain: list[float] = []
        assisted: list[float] = []
        for turn in range(rounds):
            for with_draft in (False, True) if (turn + place) % 2 else (True, False):
                seconds, _ = _answer(model, prompt, limits, assistant(proposals) if with_draft else None)
                (assisted if with_draft else plain).append(seconds)
        tallies: dict[int, Tally] = {}
        for number, counts in counted.items():
            once = number != proposals
            seconds = _answer(model, prompt, limits, assistant(number))[0] if once else statistics.median(assisted)
            tallies[number] = Tally(plain=statistics.median(plain), first=first, assisted=seconds, **counts)
        trials.append(Trial(tallies=tallies, identical=identical))
    return trials


def statistics_of(
    tallies: Sequence[Tally], proposals: int, *, replicates: int = 1000, seed: int = 0
) -> dict[str, Statistic]:
    """Ratios of sums over prompts, with intervals from ``replicates`` draws of as many prompts; NaN where undefined.

    ``speedup``: seconds of the target alone by seconds with the draft. ``acceptance``: share of the proposed tokens
    that were accepted; what follows a rejected one was not. ``alpha``: share of the judged tokens that were accepted,
    which is the acceptance rate of Leviathan 2022, 2211.17192. ``tokens_per_step``: new tokens by target forwards.
    ``cost``: seconds of a draft step by seconds of a target step, each as ``generate`` runs it, prompts apart.
    ``predicted_speedup``: see ``predicted_speedup``, of alpha and cost.
    """
    names = [item.name for item in fields(Tally)]
    table = np.asarray([[getattr(tally, name) for name in names] for tally in tallies], dtype=np.float64)
    count = len(table)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)
    every = np.concatenate([table.sum(axis=0, keepdims=True), times @ table])  # shape: (1 + R, fields)
    values = _ratios(dict(zip(names, every.T, strict=True)), count, proposals)
    found = {}
    for name, value in values.items():
        replicas = value[1:][np.isfinite(value[1:])]
        low, high = np.quantile(replicas, (0.05, 0.95)) if len(replicas) else (math.nan, math.nan)
        found[name] = Statistic(value=float(value[0]), low=float(low), high=float(high))
    return found


def predicted_speedup(alpha: Array, cost: Array, proposals: int) -> Array:
    """(1 - a^(g+1)) / ((1 - a) (g c + 1)): the expected speed-up if judging g proposals costs one step of the target
    (Leviathan 2022, 2211.17192, theorem 3.8)."""
    # The geometric series itself, which has a value at a = 1.
    expected = np.sum([alpha**power for power in range(proposals + 1)], axis=0)
    return np.asarray(expected / (proposals * cost + 1), dtype=np.float64)


def _ratios(sums: Mapping[str, Array], count: int, proposals: int) -> dict[str, Array]:
    """Every statistic from sums over ``count`` prompts, each of shape (R,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = sums["accepted"] / sums["judged"]
        # What follows each prompt's first token is what the target generates step by step.
        target = (sums["plain"] - sums["first"]) / (sums["tokens"] - count)
        cost = sums["drafting"] / sums["proposed"] / target
        return {
            "acceptance": sums["accepted"] / sums["proposed"],
            "alpha": alpha,
            "cost": cost,
            "predicted_speedup": predicted_speedup(alpha, cost, proposals),
            "speedup": sums["plain"] / sums["assisted"],
            "tokens_per_step": sums["tokens"] / sums["calls"],
        }


def _answer(model: Any, prompt: Sequence[int], limits: Limits, assistant: Any | None = None) -> tuple[float, list[int]]:
    """Seconds that a greedy answer took, and its tokens."""
    import torch

    ids = torch.tensor([list(prompt)], device=model.device)
    mask, helper = torch.ones_like(ids), {} if assistant is None else {"assistant_model": assistant}
    started = time.perf_counter()
    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=limits.new_tokens,
        eos_token_id=list(limits.ends) or None,
        **helper,
    )
    tokens = found[0, len(prompt) :].tolist()  # waits for the device
    return time.perf_counter() - started, tokens


def _watched(model: Any, prompt: Sequence[int], limits: Limits, assistant: Any) -> tuple[dict[str, Any], list[int]]:
    """Everything of a tally that is counted, and the answer: forwards of the target by a hook, proposals by standing
    in front of the assistant's ``generate``."""
    generate, calls, drafting = assistant.generate, 0, 0.0
    rounds: list[tuple[int, list[int]]] = []

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    def propose(**kwargs: Any) -> Any:
        nonlocal drafting
        started = time.perf_counter()
        found = generate(**kwargs)
        known = kwargs["input_ids"].shape[1]
        rounds.append((known - len(prompt), found.sequences[0, known:].tolist()))
        drafting += time.perf_counter() - started
        return found

    handle = model.register_forward_pre_hook(count)
    assistant.generate = propose
    try:
        _, tokens = _answer(model, prompt, limits, assistant)
    finally:
        handle.remove()
        del assistant.generate
    accepted = judged = 0
    for begin, proposed in rounds:
        pairs = zip(proposed, tokens[begin:], strict=False)
        agreed = next((place for place, (own, said) in enumerate(pairs) if own != said), None)
        agreed = min(len(proposed), len(tokens) - begin) if agreed is None else agreed
        accepted += agreed
        judged += min(agreed + 1, len(proposed))
    counts = {
        "accepted": accepted,
        "calls": calls,
        "drafting": drafting,
        "judged": judged,
        "proposed": sum(len(proposed) for _, proposed in rounds),
        "tokens": len(tokens),
    }
    return counts, tokens

"""Speculative decoding: does the draft model speed its target up, and leave every answer as it was?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ...evals.chat import stop_tokens
from ...evals.context import MeasureContext
from ...evals.measurement import Measurement, missing
from ...evals.packs import choose
from ...registry.errors import ConfigError
from .measuring import NotMeasured, Row, check_finite, or_missing, view_rows

if TYPE_CHECKING:
    from ...evals.speculation import Statistic, Trial

PROMPTS = 100
_METRICS = ("acceptance", "alpha", "identical", "predicted_speedup", "speedup", "tokens_per_step")


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftConfig:
    """Which prompts, of ``view`` and ``split`` (of a text view: its first ``prompt_tokens`` tokens; ``kinds`` keeps
    only those), and how many tokens an answer may have (``answer_tokens``). ``bootstrap`` is the number of replicates.

    ``proposals`` is the number of proposed tokens (the draft's own if not given), ``rounds`` how often each prompt is
    timed. The curve goes from 1 to ``curve`` proposed tokens over ``curve_prompts`` of the prompts. ``experts`` is the
    experts implementation of the library in which both sides run, instead of the model's own.
    """

    view: str = "chat"
    split: str = "heldout"
    kinds: tuple[str, ...] = ()
    prompt_tokens: Annotated[int, Field(ge=1)] = 16
    answer_tokens: Annotated[int, Field(ge=2)] = 32
    proposals: Annotated[int, Field(ge=1)] | None = None
    rounds: Annotated[int, Field(ge=1)] = 3
    curve: Annotated[int, Field(ge=0)] = 8
    curve_prompts: Annotated[int, Field(ge=0)] = 32
    bootstrap: Annotated[int, Field(ge=2)] = 1000
    experts: str | None = None


class DraftGate:
    """Greedy answers to held-out prompts at batch 1, by the library's assisted generation and by the target alone.

    Metrics: ``speedup`` (wall clock of the target alone by wall clock with the draft, taking turns in the same run,
    threads as they are), ``predicted_speedup`` (the formula of Leviathan 2022, 2211.17192, of the measured ``alpha``
    and the measured cost of a draft step), ``acceptance`` (share of the proposed tokens that were accepted), ``alpha``
    (share of the judged ones, the rate in the formula), ``tokens_per_step`` (new tokens per forward of the target),
    ``identical`` (share of prompts whose answer is the target's own, token by token), ``speedup/<g>`` (the curve).
    100 prompts unless the criterion says how many.

    Measured directly: lm-eval neither hands an assistant model on nor takes times. A speed-up is a timing and differs
    from run to run; its interval speaks of prompts, not of machines.
    """

    def __init__(self, config: DraftConfig | None = None) -> None:
        self.config = config or DraftConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(_METRICS, lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        from ...evals.speculation import Limits, measure_speculation, statistics_of
        from ...evals.undisturbed import undisturbed

        check_finite(ctx)
        draft = _draft_of(ctx.model)
        prompts = self._prompts(ctx)
        number = self.config.proposals or draft.proposals
        curve = range(1, self.config.curve + 1)
        with undisturbed(ctx.model, ctx.tokenizer, ctx.seed), _experts(ctx.model, self.config.experts):
            trials = measure_speculation(
                ctx.model,
                lambda proposals: draft.assistant(ctx.model, proposals),
                list(prompts.values()),
                Limits(new_tokens=self.config.answer_tokens, ends=stop_tokens(ctx.tokenizer, ctx.model)),
                proposals=number,
                curve=curve,
                curve_prompts=self.config.curve_prompts,
                rounds=self.config.rounds,
            )
        found = {
            g: statistics_of(tallies, g, replicates=self.config.bootstrap, seed=ctx.seed)
            for g in sorted({number, *curve})
            if (tallies := [trial.tallies[g] for trial in trials if g in trial.tallies])
        }
        return _measurements(
            dict(zip(prompts, trials, strict=True)), found, number, _facts(ctx.model, draft, self.config)
        )

    def _prompts(self, ctx: MeasureContext) -> dict[str, list[int]]:
        """Token ids of the prompts by a hash of them."""
        rows = view_rows(ctx, self.config.view, self.config.split, self.config.kinds)
        rows = choose([_posed(row) for row in rows], ctx.documents or PROMPTS)
        if "text" in rows[0]:
            encoded = [ctx.tokenizer(row["text"])["input_ids"][: self.config.prompt_tokens] for row in rows]
        elif ctx.tokenizer.chat_template is None:
            raise NotMeasured("the tokenizer has no chat template")
        else:
            dialogues = [row["prompt"] for row in rows]
            rendered = ctx.tokenizer.apply_chat_template(dialogues, tokenize=False, add_generation_prompt=True)
            encoded = ctx.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return {hashlib.sha256(repr(ids).encode()).hexdigest()[:16]: list(ids) for ids in encoded if len(ids)}


def _posed(row: Row) -> Row:
    for name in ("prompt", "text"):
        if row.get(name):
            return {name: row[name]}
    raise NotMeasured("the view has neither prompts nor texts to go on with")


def _draft_of(model: Any) -> Any:
    from ...core.model.companions import companions_of

    draft = companions_of(model).get("draft")
    if draft is None:
        raise NotMeasured("the model has no draft model; distil one in a step with objective: draft")
    return draft


class _experts:
    """Runs a block in an experts implementation of the library, and goes back."""

    def __init__(self, model: Any, name: str | None) -> None:
        self.model, self.name = model, name
        self.before = getattr(model.config, "_experts_implementation", None)

    def __enter__(self) -> None:
        if self.name is not None:
            try:
                self.model.set_experts_implementation(self.name)
            except (KeyError, ValueError) as error:
                raise ConfigError(f"the draft gate cannot run experts as '{self.name}': {error}") from error

    def __exit__(self, *_: object) -> None:
        if self.name is not None:
            self.model.set_experts_implementation(self.before)


def _facts(model: Any, draft: Any, config: DraftConfig) -> dict[str, Any]:
    import torch

    return {
        "draft_parameters": draft.network.num_parameters(),
        "experts": config.experts or getattr(model.config, "_experts_implementation", None),
        "rounds": config.rounds,
        "stale": draft.stale(model),
        "threads": torch.get_num_threads(),
    }


def _measurements(
    trials: Mapping[str, Trial],
    found: Mapping[int, Mapping[str, Statistic]],
    proposals: int,
    facts: Mapping[str, Any],
) -> dict[str, Measurement]:
    n, own = len(trials), {key: trial.tallies[proposals] for key, trial in trials.items()}
    rows = {
        str(g): {name: [round(one.value, 4), round(one.low, 4), round(one.high, 4)] for name, one in table.items()}
        for g, table in found.items()
    }
    seconds = {
        "plain": math.fsum(tally.plain for tally in own.values()),
        "assisted": math.fsum(tally.assisted for tally in own.values()),
    }
    evidence = {
        "curve": rows,
        "differing": sorted({g for trial in trials.values() for g, same in trial.identical.items() if not same}),
        "proposals": proposals,
        "seconds": seconds,
        "tokens": sum(tally.tokens for tally in own.values()),
        **facts,
    }
    per_document = {
        "acceptance": {key: tally.accepted / tally.proposed for key, tally in own.items() if tally.proposed},
        "alpha": {key: tally.accepted / tally.judged for key, tally in own.items() if tally.judged},
        "predicted_speedup": {},
        "speedup": {key: tally.plain / tally.assisted for key, tally in own.items()},
        "tokens_per_step": {key: tally.tokens / tally.calls for key, tally in own.items()},
    }
    measured = [
        _measured(name, found[proposals][name], n, values, evidence if name == "speedup" else {})
        for name, values in per_document.items()
    ]
    for g, table in found.items():
        count = sum(g in trial.tallies for trial in trials.values())
        measured.append(_measured(f"speedup/{g}", table["speedup"], count, {}, {}))
    same = {key: float(trial.identical[proposals]) for key, trial in trials.items()}
    measured.append(
        Measurement(metric="identical", value=math.fsum(same.values()) / n, n=n, kind="proportion", per_document=same)
    )
    return {one.metric: one for one in sorted(measured, key=lambda one: one.metric)}


def _measured(
    name: str, found: Statistic, n: int, values: Mapping[str, float], evidence: Mapping[str, Any]
) -> Measurement:
    if not math.isfinite(found.value):
        return missing(name, f"no tokens were proposed in {n} answers, so that there is nothing to compare")
    return Measurement(
        metric=name,
        value=found.value,
        n=n,
        interval=(found.low, found.high),
        per_document=values,
        evidence=evidence,
    )

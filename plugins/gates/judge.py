"""Quality of sampled answers against ground truth: the judge that preference training cannot flatter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.context import MeasureContext
from ...evals.measurement import Measurement
from ...evals.summary import summarise
from .answers import answer
from .measuring import or_missing, view_rows

DOCUMENTS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """Which prompts, those of ``view`` and ``split`` (``kinds`` keeps only those), and how many tokens an answer may
    have (``answer_tokens``)."""

    view: str = "preference"
    split: str = "heldout"
    kinds: tuple[str, ...] = ()
    answer_tokens: int = 32


class JudgeGate:
    """Score of one answer per prompt, sampled at temperature 1 with the experiment's seed, in [0, 1].

    Metrics: ``score`` and ``score/<kind>``; with statistic ``win_rate`` against an earlier step they say how often
    the answer got better (ties half). 150 prompts unless the criterion says how many.
    """

    def __init__(self, config: JudgeConfig | None = None) -> None:
        self.config = config or JudgeConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(("score",), lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        rows = view_rows(ctx, self.config.view, self.config.split, self.config.kinds)
        samples, notes = answer(
            ctx,
            "judge",
            rows,
            truth="truth",
            documents=DOCUMENTS,
            answer_tokens=self.config.answer_tokens,
            sampled=True,
        )
        return summarise(samples, {"score": "mean"}, by=lambda sample: str(sample.doc["kind"]), evidence=notes)

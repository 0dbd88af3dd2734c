"""Instruction following: does the greedy answer keep the format that was asked for?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.context import MeasureContext
from ...evals.measurement import Measurement
from ...evals.summary import summarise
from .answers import answer
from .measuring import or_missing, view_rows

DOCUMENTS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatConfig:
    """Which instructions, those of ``view`` and ``split`` (``kinds`` keeps only those), and how many tokens an answer
    may have (``answer_tokens``)."""

    view: str = "chat"
    split: str = "heldout"
    kinds: tuple[str, ...] = ()
    answer_tokens: int = 32


class FormatGate:
    """Share of instructions whose verifiable format constraint holds, in the manner of IFEval (Zhou et al. 2023,
    2311.07911).

    Metrics: ``acc`` and ``acc/<kind>``. Rows without a check are left out; 240 of the rest unless the criterion
    says how many.
    """

    def __init__(self, config: FormatConfig | None = None) -> None:
        self.config = config or FormatConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(("acc",), lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        rows = view_rows(ctx, self.config.view, self.config.split, self.config.kinds)
        samples, notes = answer(
            ctx,
            "format",
            rows,
            truth="check",
            documents=DOCUMENTS,
            answer_tokens=self.config.answer_tokens,
            sampled=False,
        )
        return summarise(
            samples, {"acc": "proportion"}, by=lambda sample: str(sample.doc["kind"]), chance=None, evidence=notes
        )

"""Preferences by likelihood: by how much is the chosen answer more likely than the rejected one?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.chat import context_and_answer
from ...evals.context import MeasureContext
from ...evals.measurement import Measurement
from ...evals.packs import choose, write_pack
from ...evals.summary import summarise
from .measuring import NotMeasured, Row, fitting, or_missing, run_pack, view_rows

DOCUMENTS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceConfig:
    """Which pairs: those of ``view`` and ``split``; ``kinds`` keeps only those."""

    view: str = "preference"
    split: str = "heldout"
    kinds: tuple[str, ...] = ()


class PreferenceGate:
    """Log-likelihood margin of chosen over rejected answers in nats, on held-out pairs.

    Metrics: ``margin``, ``margin/<kind>``, ``acc`` and ``acc/<kind>`` (margin above zero). Statistic ``win_rate``
    of the margin against the reference step is the win rate of DPO's implicit reward (Rafailov et al. 2023,
    2305.18290). 300 pairs unless the criterion says how many.
    """

    def __init__(self, config: PreferenceConfig | None = None) -> None:
        self.config = config or PreferenceConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(("margin", "acc"), lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        rows = view_rows(ctx, self.config.view, self.config.split, self.config.kinds)
        if ctx.tokenizer.chat_template is None:
            raise NotMeasured("the tokenizer has no chat template")
        pairs = [pair for row in choose(rows, ctx.documents or DOCUMENTS) if (pair := _pair(ctx, row)) is not None]
        if not pairs:
            raise NotMeasured("the chat template rewrites prompts once an answer follows, so pairs share no context")
        fit, notes = fitting(ctx, pairs, lambda pair: (pair["context"], pair["choices"]))
        pack = write_pack(ctx.folder, "preference", fit)
        samples = run_pack(ctx, pack)
        return summarise(
            samples,
            {"margin": "mean", "acc": "proportion"},
            by=lambda sample: str(sample.doc["kind"]),
            chance=None,
            evidence=notes | {"pack": pack.task, "data": pack.digest},
        )


def _pair(ctx: MeasureContext, row: Row) -> Row | None:
    chosen = context_and_answer(ctx.tokenizer, row["prompt"], row["chosen"])
    rejected = context_and_answer(ctx.tokenizer, row["prompt"], row["rejected"])
    if chosen is None or rejected is None:
        return None
    return {
        "context": chosen[0],
        "choices": [chosen[1], rejected[1]],
        "domain": str(row.get("domain", "")),
        "kind": str(row.get("kind", "")),
    }

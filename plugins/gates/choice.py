"""Knowledge by multiple choice: which answer does the model find most likely?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.context import MeasureContext
from ...evals.measurement import Measurement
from ...evals.packs import choose, write_pack
from ...evals.summary import summarise
from .measuring import NotMeasured, fitting, or_missing, run_pack, view_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceConfig:
    """Which questions of ``view`` and ``split``: ``kinds`` keeps only those, ``seen`` only those whose phrasing was
    (not) trained on."""

    view: str = "choice"
    split: str = "heldout"
    kinds: tuple[str, ...] = ()
    seen: bool | None = None


class ChoiceGate:
    """Accuracy over multiple-choice questions by summed log-likelihood.

    Metrics: ``acc``, ``acc/<domain>``, ``acc_norm`` (per character) and ``brier``, each with its chance level where
    it has one. All documents unless the criterion says how many.
    """

    def __init__(self, config: ChoiceConfig | None = None) -> None:
        self.config = config or ChoiceConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(("acc", "acc_norm", "brier"), lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        rows = view_rows(ctx, self.config.view, self.config.split, self.config.kinds)
        if self.config.seen is not None:
            if "seen" not in rows[0]:
                raise NotMeasured(f"view '{self.config.view}' does not say which questions were seen")
            rows = [row for row in rows if bool(row["seen"]) == self.config.seen]
            if not rows:
                raise NotMeasured(f"view '{self.config.view}' has no question with seen={self.config.seen}")
        chosen, notes = fitting(
            ctx, choose(rows, ctx.documents), lambda row: (row["question"], [" " + text for text in row["choices"]])
        )
        pack = write_pack(ctx.folder, "choice", chosen)
        samples = run_pack(ctx, pack)
        notes |= {"pack": pack.task, "data": pack.digest}
        by_domain = summarise(
            samples,
            {"acc": "proportion"},
            by=lambda sample: str(sample.doc["domain"]),
            chance=lambda sample: 1 / len(sample.doc["choices"]),
            evidence=notes,
        )
        return by_domain | summarise(samples, {"acc_norm": "proportion", "brier": "mean"})

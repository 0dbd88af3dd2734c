"""How well a model predicts held-out text, per domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.context import MeasureContext
from ...evals.intervals import mean_interval
from ...evals.measurement import Measurement
from ...evals.packs import choose_evenly, write_pack
from ...evals.summary import summarise
from .measuring import NotMeasured, Row, or_missing, run_pack, view_rows

DOCUMENTS_PER_DOMAIN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityConfig:
    """Which text: the first ``tokens`` tokens of each document; ``domains`` keeps only those."""

    view: str = "text"
    split: str = "heldout"
    domains: tuple[str, ...] = ()
    tokens: int = 256


class PerplexityGate:
    """Negative log-likelihood per token in nats, averaged over documents, by lm-eval's rolling windows.

    Metrics: ``nll``, ``nll/<domain>``, ``bits_per_byte``, and ``perplexity``, ``perplexity/<domain>`` = exp(nll),
    which cannot be paired. *Perplexity within 2 % of a stage* is the paired difference of ``nll``
    ``at_most: 0.0198`` = ln 1.02. 64 documents per domain unless the criterion says how many in all.
    """

    def __init__(self, config: PerplexityConfig | None = None) -> None:
        self.config = config or PerplexityConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(("nll", "bits_per_byte", "perplexity"), lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        rows = view_rows(ctx, self.config.view, self.config.split)
        if self.config.domains:
            rows = [row for row in rows if row["domain"] in self.config.domains]
        domains = {row["domain"] for row in rows}
        if not domains:
            raise NotMeasured(f"there is no held-out text of the domains {', '.join(self.config.domains)}")
        documents = ctx.documents or DOCUMENTS_PER_DOMAIN * len(domains)
        chosen = choose_evenly(rows, documents, lambda row: str(row["domain"]))
        texts = [text for row in chosen if (text := _cut(ctx, row, self.config.tokens)) is not None]
        if not texts:
            raise NotMeasured("the held-out documents hold no text")
        pack = write_pack(ctx.folder, "perplexity", texts)
        samples = run_pack(ctx, pack)
        found = summarise(
            samples,
            {"nll": "mean"},
            by=lambda sample: str(sample.doc["domain"]),
            evidence={"pack": pack.task, "data": pack.digest},
        )
        perplexities = {part.metric: part for part in map(_perplexity, found.values())}
        return found | perplexities | summarise(samples, {"bits_per_byte": "mean"})


def _cut(ctx: MeasureContext, row: Row, tokens: int) -> Row | None:
    """The first ``tokens`` tokens of a text as text, with its token count."""
    encoded = ctx.tokenizer(row["text"], return_offsets_mapping=True, truncation=True, max_length=tokens)
    if not encoded["input_ids"]:
        return None
    text = row["text"][: encoded["offset_mapping"][-1][1]]
    count = len(ctx.tokenizer(text)["input_ids"])
    return {"text": text, "tokens": count, "domain": str(row["domain"])} if count else None


def _perplexity(nll: Measurement) -> Measurement:
    """exp of a mean and of its bounds; each bound keeps its confidence because exp is monotonic."""
    low, high = mean_interval(list(nll.per_document.values()))
    bounded = math.isfinite(high) and math.isfinite(nll.value)
    return Measurement(
        metric="perplexity" + nll.metric.removeprefix("nll"),
        value=math.exp(nll.value),
        n=nll.n,
        kind="mean",
        interval=(math.exp(low), math.exp(high)) if bounded else None,
        missing=nll.missing,
    )

"""How well a model predicts held-out text, per domain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ...evals.context import MeasureContext
from ...evals.intervals import mean_interval
from ...evals.measurement import Measurement
from ...evals.packs import choose_evenly, write_pack
from ...evals.summary import summarise
from .measuring import NotMeasured, Row, context_length, or_missing, run_pack, view_rows

DOCUMENTS_PER_DOMAIN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityConfig:
    """Which text: the first ``tokens`` tokens of each document of ``view`` and ``split``; ``domains`` and ``kinds``
    keep only those.

    ``borders`` are token positions, rising, between which longer documents are also scored part by part.
    """

    view: str = "text"
    split: str = "heldout"
    domains: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tokens: int = 256
    borders: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        rising = all(first < second for first, second in pairwise((-1, *self.borders)))
        if len(self.borders) == 1 or not rising:
            raise ValueError("borders are two or more positions from 0 on, each above the one before")


class PerplexityGate:
    """Negative log-likelihood per token in nats, averaged over documents, by lm-eval's rolling windows.

    Metrics: ``nll``, ``nll/<domain>``, ``bits_per_byte``, and ``perplexity``, ``perplexity/<domain>`` = exp(nll),
    which cannot be paired. *Perplexity within 2 % of a stage* is the paired difference of ``nll``
    ``at_most: 0.0198`` = ln 1.02. 64 documents per domain unless the criterion says how many in all.

    With ``borders`` a, b, c also ``nll/at-a`` and ``nll/at-b``: the tokens from position a to b, and from b to c, given
    all text before them (and nothing else), of the documents that reach so far. Where a model uses a longer context,
    they fall.
    """

    def __init__(self, config: PerplexityConfig | None = None) -> None:
        self.config = config or PerplexityConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        whole = or_missing(("nll", "bits_per_byte", "perplexity"), lambda: self._measure(ctx))
        if not self.config.borders:
            return whole
        parts = [f"nll/at-{border}" for border in self.config.borders[:-1]]
        return {**whole, **or_missing(parts, lambda: self._by_position(ctx))}

    def _by_position(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        positions = int(getattr(ctx.model.config, "max_position_embeddings", 0)) or context_length(ctx)
        last = self.config.borders[-1]
        if last > positions:
            raise NotMeasured(f"the last border is {last}, but the model has {positions} positions")
        parts = [part for row in self._rows(ctx) for part in _parts(ctx, row, self.config.borders)]
        if not parts:
            raise NotMeasured(f"no document has {self.config.borders[1]} tokens")
        pack = write_pack(ctx.folder, "position", parts)
        samples = run_pack(ctx, pack, max_length=last + 1)
        evidence = {"pack": pack.task, "data": pack.digest}
        found = summarise(samples, {"nll": "mean"}, by=lambda sample: f"at-{sample.doc['from']}")
        return {name: replace(part, evidence=evidence) for name, part in found.items() if name != "nll"}

    def _rows(self, ctx: MeasureContext) -> list[Row]:
        rows = view_rows(ctx, self.config.view, self.config.split, self.config.kinds)
        if self.config.domains:
            rows = [row for row in rows if row["domain"] in self.config.domains]
        domains = {row["domain"] for row in rows}
        if not domains:
            raise NotMeasured(f"there is no held-out text of the domains {', '.join(self.config.domains)}")
        documents = ctx.documents or DOCUMENTS_PER_DOMAIN * len(domains)
        return choose_evenly(rows, documents, lambda row: str(row["domain"]))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        texts = [text for row in self._rows(ctx) if (text := _cut(ctx, row, self.config.tokens)) is not None]
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


def _parts(ctx: MeasureContext, row: Row, borders: Sequence[int]) -> list[Row]:
    """The parts of a text between borders that it fills, each with the text before it."""
    encoded = ctx.tokenizer(row["text"], return_offsets_mapping=True, truncation=True, max_length=borders[-1])
    ends = [0, *(end for _, end in encoded["offset_mapping"])]
    return [
        {
            "context": row["text"][: ends[first]],
            "target": row["text"][ends[first] : ends[last]],
            "tokens": last - first,
            "from": first,
            "domain": str(row["domain"]),
        }
        for first, last in pairwise(borders)
        if last < len(ends)
    ]


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

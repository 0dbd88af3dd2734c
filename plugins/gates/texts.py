"""Held-out text as token documents with their domains, for the gates that look at every token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...evals.context import MeasureContext
from ...evals.packs import choose_evenly
from .measuring import context_length, view_rows

DOCUMENTS_PER_DOMAIN = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Documents as token ids, each with the separator behind it; ``owners`` holds each document's domain as a place in
    ``domains``; ``prefix`` is what a model reads before each."""

    ids: list[list[int]]
    owners: NDArray[np.int64]  # shape: (documents,)
    domains: tuple[str, ...]
    prefix: int


def heldout_texts(ctx: MeasureContext, view: str, split: str, tokens: int) -> Texts:
    """The first ``tokens`` tokens (the trained length at most) of equally many documents of every domain:
    ``ctx.documents`` in all, or 64 per domain. Domains keep the corpus's order."""
    rows = view_rows(ctx, view, split)
    found = {str(row["domain"]) for row in rows}
    domains = [name for name in ctx.domains if name in found] + sorted(found - set(ctx.domains))
    chosen = choose_evenly(rows, ctx.documents or DOCUMENTS_PER_DOMAIN * len(domains), lambda row: str(row["domain"]))
    length = min(tokens, context_length(ctx))
    separator = ctx.tokenizer.eos_token_id
    texts, owners = [], []
    for row in chosen:
        ids = ctx.tokenizer(row["text"], add_special_tokens=False, truncation=True, max_length=length)["input_ids"]
        if ids:
            texts.append([*ids[: length - 1], separator])
            owners.append(domains.index(str(row["domain"])))
    prefix = ctx.tokenizer.bos_token_id
    return Texts(
        ids=texts,
        owners=np.asarray(owners, dtype=np.int64),
        domains=tuple(domains),
        prefix=separator if prefix is None else prefix,
    )


def resamples(owners: NDArray[np.int64], replicates: int, seed: int) -> NDArray[np.int64]:
    """How often each document is drawn when documents are drawn anew within each domain (stratified bootstrap: Efron
    1979). shape: (documents,) -> (R, documents)"""
    random = np.random.default_rng(seed)
    times = np.zeros((replicates, len(owners)), dtype=np.int64)
    for domain in np.unique(owners):
        own = owners == domain
        times[:, own] = random.multinomial(own.sum(), np.full(own.sum(), 1 / own.sum()), size=replicates)
    return times

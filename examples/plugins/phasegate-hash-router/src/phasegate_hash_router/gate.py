"""What a router does with one token in many contexts, and how evenly it loads the experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from phasegate import ConfigError, DataError
from phasegate.evals.context import MeasureContext
from phasegate.evals.intervals import z_quantile
from phasegate.evals.measurement import Measurement, missing
from phasegate.evals.packs import choose_evenly

from .agreement import agreements, evenness
from .options import StabilityConfig

DOCUMENTS_PER_DOMAIN = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Documents as token ids, with the text and the domain of each."""

    ids: list[list[int]]
    texts: list[str]
    domains: list[str]


class StabilityGate:
    """Where held-out text goes, token by token; for any router.

    Metrics: ``same_token``, the share of tokens that go, first of all, where the same token goes most often in the
    *other* documents, averaged over layers; one value for each document, so that two models are compared document by
    document. Its chance is the load of the busiest expert, which is what a router reaches that does not look at tokens.
    ``same_token/<domain>`` are the documents of one domain. ``evenness`` is exp(H) / E, H the entropy of the load in
    nats, averaged over layers: 1 is uniform, 1/E is everything to one expert; its interval is normal with the
    bootstrap's standard error over documents (Efron 1979), drawn anew within each domain. 64 documents per domain
    unless the criterion says how many in all.
    """

    def __init__(self, config: StabilityConfig | None = None) -> None:
        self.config = config or StabilityConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        try:
            texts = self._texts(ctx)
            choices, experts = _choices(ctx, texts)
        except (ConfigError, DataError) as reason:
            return {metric: missing(metric, str(reason)) for metric in ("evenness", "same_token")}
        return {**self._evenness(texts, choices, experts, ctx.seed), **self._same_token(texts, choices, experts)}

    def _texts(self, ctx: MeasureContext) -> Texts:
        rows = [dict(row) for row in ctx.view(self.config.view, self.config.split)]
        domains = sorted({str(row["domain"]) for row in rows})
        documents = ctx.documents or DOCUMENTS_PER_DOMAIN * len(domains)
        chosen = choose_evenly(rows, documents, lambda row: str(row["domain"]))
        length = min(self.config.tokens, ctx.length or self.config.tokens)
        read = [(row, ctx.tokenizer(row["text"], add_special_tokens=False)["input_ids"][:length]) for row in chosen]
        read = [(row, ids) for row, ids in read if ids]
        if not read:
            raise DataError(f"the data has no {self.config.split} text in the view '{self.config.view}'")
        return Texts(
            ids=[ids for _, ids in read],
            texts=[str(row["text"]) for row, _ in read],
            domains=[str(row["domain"]) for row, _ in read],
        )

    def _evenness(
        self, texts: Texts, choices: list[NDArray[np.int64]], experts: int, seed: int
    ) -> dict[str, Measurement]:
        # shape: (documents, L, E)
        counts = np.stack([np.stack([np.bincount(row, minlength=experts) for row in chosen]) for chosen in choices])
        random, domains = np.random.default_rng(seed), np.asarray(texts.domains)
        times = np.zeros((self.config.bootstrap, len(counts)), dtype=np.int64)
        for domain in sorted(set(texts.domains)):
            own = domains == domain
            times[:, own] = random.multinomial(own.sum(), np.full(own.sum(), 1 / own.sum()), size=len(times))
        value = float(evenness(counts.sum(axis=0)))
        half = z_quantile(0.95) * float(np.std(evenness(np.tensordot(times, counts, 1)), ddof=1))
        found = Measurement(metric="evenness", value=value, n=len(counts), interval=(value - half, value + half))
        return {"evenness": found}

    def _same_token(self, texts: Texts, choices: list[NDArray[np.int64]], experts: int) -> dict[str, Measurement]:
        shares = agreements(texts.ids, choices, experts, self.config.least)  # NaN where no token counts
        load = np.stack([np.bincount(row, minlength=experts) for row in np.concatenate(choices, axis=1)])
        chance = float((load.max(axis=-1) / load.sum(axis=-1)).mean())

        def measured(metric: str, keep: Callable[[str], bool]) -> Measurement:
            kept = {
                _key(text): float(share)
                for text, domain, share in zip(texts.texts, texts.domains, shares, strict=True)
                if keep(domain) and not np.isnan(share)
            }
            if not kept:
                return missing(metric, f"no token occurs in {self.config.least} other places; measure more documents")
            mean = sum(kept.values()) / len(kept)
            return Measurement(metric=metric, value=mean, n=len(kept), per_document=kept, chance=chance)

        found = [measured("same_token", lambda domain: True)]
        for name in sorted(set(texts.domains)):
            found.append(measured(f"same_token/{name}", lambda domain, name=name: domain == name))  # type: ignore[misc]
        return {one.metric: one for one in found}


def _key(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def _choices(ctx: MeasureContext, texts: Texts) -> tuple[list[NDArray[np.int64]], int]:
    """The experts that the routers send each token to first, (L, T) for every document, and how many there are."""
    import torch
    from phasegate.evals.undisturbed import undisturbed

    routers = [module for _, _, module in ctx.routers(ctx.model)]
    counts = {int(module.num_experts) for module in routers}
    if len(counts) != 1:
        raise DataError(f"routing needs layers of one number of experts, and this model has {sorted(counts) or 'none'}")
    if not all(bool(parameter.isfinite().all()) for parameter in ctx.model.parameters()):
        raise DataError("the model has weights that are not finite numbers")
    found: list[NDArray[np.int64]] = []
    with undisturbed(ctx.model), torch.inference_mode(), _recording(routers) as chosen:
        for start in range(0, len(texts.ids), ctx.batch_size):
            batch = texts.ids[start : start + ctx.batch_size]
            # A document begins behind the end of another, as in training; padding is behind all that counts.
            rows = [torch.tensor([ctx.tokenizer.eos_token_id, *ids]) for ids in batch]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(ctx.model.device)
            ctx.model.base_model(input_ids=ids, use_cache=False)
            first = torch.stack([chosen[place].view(ids.shape) for place in range(len(routers))], dim=1)
            found += [row[:, 1 : 1 + len(own)].numpy() for row, own in zip(first.cpu(), batch, strict=True)]
    return found, counts.pop()


@contextmanager
def _recording(routers: list[Any]) -> Iterator[dict[int, Any]]:
    """The first choices of each router's last call, by place."""
    chosen: dict[int, Any] = {}

    def keep(place: int) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            chosen[place] = output[2][:, 0]

        return hook

    handles = [router.register_forward_hook(keep(place)) for place, router in enumerate(routers)]
    try:
        yield chosen
    finally:
        for handle in handles:
            handle.remove()

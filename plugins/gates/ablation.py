"""What the model loses without each of its experts, by domain, and whether that is what the experts specialise in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evals.ablation import (
    PAPER,
    TABLES,
    Effect,
    agreement,
    busiest,
    effect_of,
    least_harm,
    owners_of,
    rank_correlation,
)
from ...evals.context import MeasureContext
from ...evals.intervals import wilson
from ...evals.measurement import Measurement, missing
from ...evals.routing import Array, domain_shares
from ...registry.errors import ConfigError
from .choice_without import choice_rows
from .measuring import NotMeasured, check_finite, or_missing
from .texts import Texts, heldout_texts

if TYPE_CHECKING:
    from ...core.model.ablating import Mode

_METRICS = ("match", "match_experts", "least_harm", "least_harm_single")

Experts = Mapping[int, Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationConfig:
    """Which text (the first ``tokens`` tokens of each document of ``view`` and ``split``), and which tables: experts of
    single layers and of all layers are always masked; ``zero`` also zeroes their outputs, ``pairs`` masks every pair
    over all layers (E(E-1)/2 measurements) and each domain's two busiest experts. ``questions`` is the number of
    multiple-choice questions, of ``question_view``, asked without each expert; 0 asks none.
    """

    view: str = "text"
    split: str = "heldout"
    tokens: int = 256
    zero: bool = True
    pairs: bool = True
    questions: int = 0
    question_view: str = "choice"


class AblationGate:
    """dQ of every expert: the mean log-likelihood per token of held-out text without it, minus the full model's, paired
    by document (SPEC 2B.8; Lu 2024, 2402.14800). lm-eval would score each text in a request of its own, a hundred
    times over, so the texts are scored directly; questions go through lm-eval.

    Metrics: ``harm/<expert>`` is the mean loss over domains without the expert in any layer, masked, in nats per token;
    ``least_harm`` the smallest of them (above 0: no expert is free to prune), ``least_harm_single`` the
    smallest over single (layer, expert). ``match`` is the share of (layer, expert) that hurt the domain most whose
    tokens they mostly get, ``match_experts`` the same over all layers at once. All tables lie in ``ablation.json`` in
    the gate's folder. 64 documents per domain unless the criterion says how many in all.
    """

    def __init__(self, config: AblationConfig | None = None) -> None:
        self.config = config or AblationConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(_METRICS, lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        check_finite(ctx)
        config = self.config
        texts = heldout_texts(ctx, config.view, config.split, config.tokens)
        try:
            trial = _Trial(ctx, texts)
            modes: tuple[Mode, ...] = ("mask", "zero") if config.zero else ("mask",)
            tables = trial.tables(modes, config.pairs)
            if config.questions:
                tables["choice"] = choice_rows(
                    ctx, config.question_view, config.questions, trial.layers, range(trial.experts)
                )
        except ConfigError as error:
            raise NotMeasured(str(error)) from error
        (ctx.folder / TABLES).write_text(json.dumps(tables, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        return _measurements(tables, trial, len(texts.ids))


class _Trial:
    """A model, its texts scored once, and what taking experts away changes of that."""

    def __init__(self, ctx: MeasureContext, texts: Texts) -> None:
        from ...evals.likelihood import batches_of, mean_log_likelihoods
        from ...evals.recording import count_routes

        self.model, self.texts = ctx.model, texts
        routers = ctx.routers(ctx.model)
        counts = count_routes(ctx.model, routers, texts.ids, prefix=texts.prefix, batch_size=ctx.batch_size)
        self.layers = [layer for _, layer, _ in routers]
        self.experts = counts.shape[-1]
        per_domain = [counts[texts.owners == place].sum(axis=0) for place in range(len(texts.domains))]
        self.shares = domain_shares(np.stack(per_domain, axis=1))  # shape: (L, D, E)
        self.batches = batches_of(
            texts.ids, prefix=texts.prefix, batch_size=ctx.batch_size, vocab_size=ctx.model.config.vocab_size
        )
        self.full = mean_log_likelihoods(ctx.model, self.batches)
        self.single: dict[Mode, list[tuple[int, int, Effect]]] = {}
        self.everywhere: dict[Mode, list[Effect]] = {}

    def differences(self, experts: Experts, mode: Mode) -> Array:
        """Per-document change of the score. shape: (documents,)"""
        from ...core.model.ablating import without_experts
        from ...evals.likelihood import mean_log_likelihoods

        with without_experts(self.model, experts, mode):
            return mean_log_likelihoods(self.model, self.batches) - self.full

    def effect(self, differences: Array) -> Effect:
        return effect_of(differences, self.texts.owners, self.texts.domains)

    def in_all_layers(self, *experts: int) -> Experts:
        return dict.fromkeys(self.layers, experts)

    def owners(self, shares: Array) -> list[str | None]:
        """Owners of experts by name. shape: (D, E) -> (E,)"""
        return [None if place < 0 else self.texts.domains[place] for place in owners_of(shares).tolist()]

    def tables(self, modes: Sequence[Mode], pairs: bool) -> dict[str, Any]:
        """Every table as JSON-able data; rows as ``Effect.row`` makes them."""
        texts, owners = self.texts, [self.owners(shares) for shares in self.shares]
        owners_all = self.owners(np.nan_to_num(self.shares).sum(axis=0))
        everywhere = {e: self.differences(self.in_all_layers(e), "mask") for e in range(self.experts)}
        for mode in modes:
            self.single[mode] = [
                (place, expert, self.effect(self.differences({layer: [expert]}, mode)))
                for place, layer in enumerate(self.layers)
                for expert in range(self.experts)
            ]
            self.everywhere[mode] = [
                self.effect(everywhere[e] if mode == "mask" else self.differences(self.in_all_layers(e), mode))
                for e in range(self.experts)
            ]
        found: dict[str, Any] = {
            "unit": "nats per token",
            "domains": list(texts.domains),
            "documents": {name: int((texts.owners == place).sum()) for place, name in enumerate(texts.domains)},
            "tokens": sum(map(len, texts.ids)),
            "full": {
                name: round(float(self.full[texts.owners == place].mean()), 6)
                for place, name in enumerate(texts.domains)
            },
            "layers": self.layers,
            "shares": np.round(np.nan_to_num(self.shares), 6).tolist(),
            "owners": owners,
            "owners_all_layers": owners_all,
            "single": [
                effect.row(layer=self.layers[place], expert=expert, mode=mode, owner=owners[place][expert])
                for mode in modes
                for place, expert, effect in self.single[mode]
            ],
            "experts": [
                effect.row(expert=expert, mode=mode, owner=owners_all[expert])
                for mode in modes
                for expert, effect in enumerate(self.everywhere[mode])
            ],
            "agreement": {mode: self._agreement(mode, owners, owners_all) for mode in modes},
            "paper": [dict(row) for row in PAPER],
        }
        if pairs:
            found["pairs"] = self._pairs(everywhere)
            found["domain_pairs"] = self._domain_pairs()
        return found

    def _agreement(
        self, mode: Mode, owners: Sequence[Sequence[str | None]], owners_all: Sequence[str | None]
    ) -> dict[str, Any]:
        single, everywhere = self.single[mode], self.everywhere[mode]
        flat = np.nan_to_num(self.shares).transpose(0, 2, 1).reshape(-1, len(self.texts.domains))  # shape: (L*E, D)
        correlation = rank_correlation(flat, [effect for _, _, effect in single])
        return {
            "single": agreement([owners[place][expert] for place, expert, _ in single], [row[2] for row in single]),
            "experts": agreement(owners_all, everywhere),
            "rank_correlation": round(correlation, 4) if np.isfinite(correlation) else None,
        }

    def _pairs(self, single: Mapping[int, Array]) -> list[dict[str, Any]]:
        """Every pair of experts, in all layers, with what it costs beyond the sum of both alone."""
        rows = []
        for one, other in combinations(range(self.experts), 2):
            both = self.differences(self.in_all_layers(one, other), "mask")
            beyond = self.effect(both - single[one] - single[other])
            rows.append(self.effect(both).row(experts=[one, other], interaction=beyond.mean.as_dict()))
        return rows

    def _domain_pairs(self) -> list[dict[str, Any]]:
        """The two busiest experts of each domain in every layer, together and apart, as that domain feels it."""
        rows = []
        chosen = busiest(self.shares)  # shape: (L, D, 2)
        for place, domain in enumerate(self.texts.domains):
            sets = [
                {layer: chosen[row, place, which].tolist() for row, layer in enumerate(self.layers)}
                for which in ([0], [1], [0, 1])
            ]
            first, second, both = (self.differences(experts, "mask") for experts in sets)
            felt = [self.effect(part).domains[domain] for part in (first, second, both, both - first - second)]
            names = ("first", "second", "both", "interaction")
            rows.append(
                {"domain": domain, "experts": chosen[:, place].tolist()}
                | {name: change.as_dict() for name, change in zip(names, felt, strict=True)}
            )
        return rows


def _measurements(tables: Mapping[str, Any], trial: _Trial, documents: int) -> dict[str, Measurement]:
    found = {}
    for metric, table in (("match", "single"), ("match_experts", "experts")):
        counted = tables["agreement"]["mask"][table]
        if not counted["n"]:
            found[metric] = missing(metric, "no expert gets a token of this text")
            continue
        found[metric] = Measurement(
            metric=metric,
            value=counted["hits"] / counted["n"],
            n=counted["n"],
            kind="proportion",
            interval=wilson(counted["hits"], counted["n"]),
            chance=1 / len(tables["domains"]),
            evidence={"tables": TABLES, "agreement": tables["agreement"]} if metric == "match" else {},
        )
    single = [effect for _, _, effect in trial.single["mask"]]
    for metric, effects in (("least_harm", trial.everywhere["mask"]), ("least_harm_single", single)):
        value, interval = least_harm(effects)
        found[metric] = Measurement(metric=metric, value=value, n=documents, interval=interval)
    for expert, effect in enumerate(trial.everywhere["mask"]):
        low, high = effect.mean.bounds()
        name = f"harm/{expert}"
        found[name] = Measurement(metric=name, value=-effect.mean.value, n=documents, interval=(-high, -low))
    return found

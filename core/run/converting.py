"""Steps that make another model of the one before: experts for a dense seed, more experts, another router."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ...registry.current import using
from ...registry.options import parse
from ..config.conversions import CONVERSIONS, STRENGTH, GrowOptions, RerouteOptions, UpcycleOptions
from .seeds import derive
from .step import StepOrder, StepResult, Workshop

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..model.breaking import Drift

Batches = Sequence[Mapping[str, torch.Tensor]]
Converted = tuple["PreTrainedModel", StepResult]


def upcycle_model(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> Converted:
    """Clone the dense model's FFNs into experts, remember what they came from, and break their symmetry within a bound.

    Logs the largest difference of logits right after cloning, the share of equal predictions, and the perplexities.
    Raises ``ConfigError`` for a dense model of a form that cannot be upcycled.
    """
    from ..model.companions import attach
    from ..model.origin import Origin
    from ..model.upcycling import learns, upcycle, upcycle_own

    started = time.perf_counter()
    options: UpcycleOptions = _options(order)
    seed = derive(order.identity, order.name, "experts")
    batches = _batches(shop, order, options.rows, "heldout")
    own = model.config.model_type == "phasegate_moe"
    experts, top_k = options.experts, options.top_k
    with using(shop.registry):
        if own:
            moe = upcycle_own(model, experts or model.config.num_experts, seed=seed, top_k=top_k)
        else:
            moe = upcycle(
                model, experts or _given(shop, "num_experts"), top_k or _given(shop, "num_experts_per_tok"), seed
            )
    row = _compared(model, moe, batches, "upcycle")
    origin = Origin.of(moe)
    drift = _break(moe, options, batches, seed, before=_nats(model, batches))
    facts = {"experts": _experts_of(moe), "breaker": options.breaker, "strength": drift.used if drift else 0.0}
    attach(moe, "origin", replace(origin, facts=facts))
    row |= _told(drift, "upcycle")
    notes = _notes(drift)
    if not learns(moe):
        notes += (
            "a token's one expert counts 1 whatever the router thinks, so that it learns nothing from the task; choose "
            "top_k 2 or, for the platform's own model, gate straight-through",
        )
    return moe, _result(row, started, notes)


def grow_experts(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> Converted:
    """Make copies of every expert and tell them apart within a bound; the router is extended."""
    from ..model.growing import grow

    started = time.perf_counter()
    options: GrowOptions = _options(order)
    seed = derive(order.identity, order.name, "experts")
    batches = _batches(shop, order, options.rows, "heldout")
    with using(shop.registry):
        grown = grow(model, options.copies, seed=seed, top_k=options.top_k, strength=0.0)
    row = _compared(model, grown, batches, "grow")
    drift = _break(grown, options, batches, seed, before=_nats(model, batches), spare=options.copies)
    row |= _told(drift, "grow")
    return grown, _result({**row, "grow/experts": float(_experts_of(grown))}, started, _notes(drift))


def change_router(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> Converted:
    """Put the step's router in place of the model's; it is fitted to hidden states of training text."""
    from ..model.rerouting import reroute

    started = time.perf_counter()
    options: RerouteOptions = _options(order)
    ref = order.section.router
    assert ref is not None
    batches = _batches(shop, order, options.rows, "train")
    use = shop.registry.get("router", ref.use).ref
    seed = derive(order.identity, order.name, "router")
    rerouted, reports = reroute(model, use, ref.options, batches, seed, shop.registry)
    before, after = _nats(model, batches), _nats(rerouted, batches)
    row = {f"reroute/{name}": value for name, value in reports.items()}
    return rerouted, _result({**row, "reroute/nll_before": before, "reroute/nll_after": after}, started)


def _options(order: StepOrder) -> Any:
    label = f"phases.{order.phase}.steps.{order.name}"
    return parse(CONVERSIONS[order.section.objective], order.section.options, f"{label} ({order.section.objective})")


def _given(shop: Workshop, name: str) -> int:
    from ..config.filling import explain

    return int(explain(shop.experiment).values[name])


def _experts_of(model: PreTrainedModel) -> int:
    return int(model.config.num_experts if hasattr(model.config, "num_experts") else model.config.num_local_experts)


def _batches(shop: Workshop, order: StepOrder, rows: int, split: Any) -> Batches:
    from ..data.heldout import text_rows
    from ..training.bump import batches_of

    length = order.section.sequence_length or shop.length
    return batches_of(text_rows(shop.corpus, shop.tokenizer, length, rows, split))


def _nats(model: PreTrainedModel, batches: Batches) -> float:
    from ..training.bump import language_loss

    return language_loss(model, batches)


@torch.no_grad()
def _compared(old: PreTrainedModel, new: PreTrainedModel, batches: Batches, name: str) -> dict[str, float]:
    """The largest difference of logits between two models, and the share of tokens for which both predict the same."""
    largest, same, tokens = 0.0, 0, 0
    old.eval()
    new.eval()
    for batch in batches:
        inputs = {key: batch[key] for key in ("input_ids", "position_ids")}
        one, other = (model(**inputs, use_cache=False).logits.float() for model in (old, new))
        largest = max(largest, float((one - other).abs().max()))
        same += int((one.argmax(-1) == other.argmax(-1)).sum())
        tokens += batch["input_ids"].numel()
    return {f"{name}/difference": largest, f"{name}/same": same / max(1, tokens)}


def _break(
    model: PreTrainedModel,
    options: UpcycleOptions | GrowOptions,
    batches: Batches,
    seed: int,
    *,
    before: float,
    spare: int | None = None,
) -> Drift | None:
    """Tell the experts apart; every ``spare``-th stays as it is."""
    from ..model.breaking import bounded_break, break_experts

    kind = options.breaker
    if kind == "none":
        return None
    return bounded_break(
        model,
        options.strength or STRENGTH[kind],
        options.drift,
        lambda one: _nats(one, batches),
        lambda one, strength: break_experts(one, kind, strength, seed=seed, spare=spare),
        before=before,
    )


def _told(drift: Drift | None, name: str) -> dict[str, float]:
    if drift is None:
        return {}
    return {
        f"{name}/perplexity_before": drift.before,
        f"{name}/perplexity_cloned": drift.cloned,
        f"{name}/perplexity_broken": drift.broken,
        f"{name}/strength": drift.used,
    }


def _notes(drift: Drift | None) -> tuple[str, ...]:
    if drift is None:
        return ("the experts are identical, and nothing but chance in training will tell them apart",)
    if not drift.within:
        return (f"perplexity rose by {drift.increase:.1%} even at strength {drift.used:g}, above {drift.bound:.0%}",)
    if drift.used < drift.asked:
        return (f"strength {drift.asked:g} raised perplexity by more than {drift.bound:.0%}; {drift.used:g} was used",)
    return ()


def _result(row: Mapping[str, float], started: float, notes: tuple[str, ...] = ()) -> StepResult:
    history = ({"step": 0.0, **row},)
    return StepResult(history=history, tokens=0, seconds=time.perf_counter() - started, bump=None, notes=notes)

"""Which objective is carried out by what: a trainer, fitting what travels with the model, or making another model."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .step import StepOrder, StepResult, Workshop, train_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: ``module:function``, called as ``function(shop, order, model) -> StepResult``; each attaches a companion.
FITTED: Mapping[str, str] = {
    "anchor": ".anchoring:capture_anchor",
    "draft": ".drafting:train_draft",
    "probes": ".probing:fit_probes",
}

#: The same, but returning ``(model, StepResult)``.
CONVERTED: Mapping[str, str] = {
    "grow": ".converting:grow_experts",
    "reroute": ".converting:change_router",
    "upcycle": ".converting:upcycle_model",
}


def carry_out(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> tuple[PreTrainedModel, StepResult]:
    """Carry out one step and return the model that comes out of it, companions attached, with the step's result."""
    if order.section.objective in FITTED:
        fitted: StepResult = _function(FITTED[order.section.objective])(shop, order, model)
        return model, fitted
    if order.section.objective in CONVERTED:
        converted: tuple[PreTrainedModel, StepResult] = _function(CONVERTED[order.section.objective])(
            shop, order, model
        )
        return converted
    model = starting_model(shop, order, model)
    return model, train_step(shop, order, model)


def starting_model(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> PreTrainedModel:
    """The model that a training step begins with: the one it is given, with longer positions where it asks for them,
    or a new one."""
    if order.section.fresh is not None:
        from .fresh import fresh_model

        model = fresh_model(shop, order.section.fresh)
    if order.section.context.rope != "keep":
        from ..model.rope import extend_context

        model = extend_context(model, order.section.context, order.section.sequence_length or shop.length)
    return model


def _function(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module, __package__), name)

"""Which objective is carried out by what: training by a trainer, or fitting what travels with the model."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .step import StepOrder, StepResult, Workshop, train_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: ``module:function``, called as ``function(shop, order, model) -> StepResult``; each attaches a companion.
FITTED: Mapping[str, str] = {
    "anchor": ".anchoring:capture_anchor",
    "draft": ".drafting:train_draft",
    "probes": ".probing:fit_probes",
}


def carry_out(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> tuple[PreTrainedModel, StepResult]:
    """Carry out one step and return the model that comes out of it, companions attached, with the step's result."""
    if order.section.objective in FITTED:
        module, _, name = FITTED[order.section.objective].partition(":")
        fitted: StepResult = getattr(importlib.import_module(module, __package__), name)(shop, order, model)
        return model, fitted
    if order.section.context.rope != "keep":
        from ..model.rope import extend_context

        model = extend_context(model, order.section.context, order.section.sequence_length or shop.length)
    return model, train_step(shop, order, model)

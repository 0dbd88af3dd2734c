"""A new model inside a run: a twin to compare with, or the first one after it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..config.conversions import refreshed
from ..config.filling import explain
from ..config.schema import FreshSection
from .plan import model_builder
from .seeds import derive
from .step import Workshop

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def fresh_model(shop: Workshop, section: FreshSection) -> PreTrainedModel:
    """The model that the experiment begins with, but for what the section says; its weights are drawn from the same
    seed, so that without changes it is the very same."""
    from ..model.loading import align_generation

    experiment = shop.experiment
    changed = replace(experiment, model=refreshed(experiment.model, section))
    built: PreTrainedModel = model_builder(changed, shop.registry, explain(changed)).build(
        derive(experiment.seed, "model")
    )
    align_generation(built, shop.tokenizer)
    return built

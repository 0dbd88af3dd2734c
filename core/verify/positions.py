"""Proofs of longer contexts: stretched positions change what the model says, and are still there after saving."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..run.objectives import starting_model
from .predictions import logits_of
from .proof import Proofs, proved
from .rehearsal import Place, Rehearsal


def positions(rehearsal: Rehearsal, place: Place) -> Proofs:
    """Rotary scaling changes the frequencies and the model's predictions, and the saved model has them too."""
    from ..model.loading import load_model

    context = place.section.context
    if context.rope != "keep":
        shop = rehearsal.shop(place.stage)
        length = place.section.sequence_length or shop.length
        kept = replace(place.section, context=replace(context, rope="keep"))
        order = rehearsal.order(place, place.section, rehearsal.folder / "positions")
        plain = starting_model(shop, replace(order, section=kept), rehearsal.beginning(place))
        stretched = starting_model(shop, order, rehearsal.beginning(place))
        saved = load_model(rehearsal.model_of(place.stage, place.name), rehearsal.plan.registry)
        before, after, later = (_frequencies(model) for model in (plain, stretched, saved))
        unchanged = plain.config.to_dict() == stretched.config.to_dict()
        difference = float((logits_of(plain, length) - logits_of(stretched, length)).abs().max())
        wrong = None
        if not unchanged and (_equal(before, after) or difference == 0.0):
            wrong = f"context.rope {context.rope} changes the configuration, but the model computes as before"
        elif unchanged and context.factor > 1.0 and _reach(plain) < length:
            wrong = f"context.rope {context.rope} changes nothing, though the step trains on {length} positions"
        elif not _equal(after, later):
            wrong = "the saved model has other rotary frequencies than the one that was trained"
        told = "it asks for what the model already has" if unchanged else f"logits change by up to {difference:.3f}"
        yield proved("rotary scaling acts", f"{place.label}: {context.rope}", wrong, told)


def _frequencies(model: torch.nn.Module) -> list[torch.Tensor]:
    return [buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")]


def _equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(left, right, strict=True))


def _reach(model: torch.nn.Module) -> int:
    return int(getattr(model.config, "max_position_embeddings", 0))

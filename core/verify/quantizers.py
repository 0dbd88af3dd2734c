"""Proofs of quantizers: the forward pass computes with the quantized values of every stacked expert weight."""

from __future__ import annotations

import torch

from ..model.parameters import expert_parameters
from .predictions import logits_of
from .proof import Proofs, proved, some
from .rehearsal import Place, Rehearsal


def quantizers(rehearsal: Rehearsal, place: Place) -> Proofs:
    """Putting a weight's quantized value in its place changes nothing, for each stacked weight; taking the quantizer
    off changes what the model says."""
    from ..model.loading import load_model
    from ..model.quantization import quantization_of, unquantize

    plan = rehearsal.plan
    wanted = place.section.quantizer or plan.experiment.model.quantizer
    if wanted is None:
        return
    model = load_model(rehearsal.model_of(place.stage, place.name), plan.registry)
    names = expert_parameters(model)
    if names:  # it may still be dense
        subject = f"{place.label}: {wanted.use}"
        if quantization_of(model) is None:
            yield proved("quantizer acts", subject, "the model that the step left has no quantizer on its experts", "")
            return
        quantizer = plan.registry.build("quantizer", wanted.use, wanted.options)
        said = logits_of(model)
        unreached = []
        for name in names:
            weight = model.get_parameter(name)
            latent = weight.detach().clone()
            with torch.no_grad():
                weight.copy_(quantizer.quantize(latent))
            if not torch.allclose(logits_of(model), said, atol=1e-4):
                unreached.append(name)
            with torch.no_grad():
                weight.copy_(latent)
        unquantize(model)
        acts = not torch.equal(logits_of(model), said)
        wrong = None
        if unreached:
            wrong = f"the forward pass uses {some(unreached)} as it is, and not its quantized value"
        elif not acts:
            wrong = "the model says the same with the quantizer and without it"
        yield proved("quantizer acts", subject, wrong, f"{len(names)} stacked weights are used quantized")

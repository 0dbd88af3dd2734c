"""Proofs of saving: every expert, other weight and companion is in the stage as it was, and in an export."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from ..model.parameters import expert_parameters
from .predictions import logits_of
from .proof import Proofs, proved, some
from .rehearsal import Place, Rehearsal


def saved(rehearsal: Rehearsal, place: Place) -> Proofs:
    """The stage of every step holds the weights that training ended with, expert by expert."""
    from ..model.loading import load_model

    observed = rehearsal.observed.get(place.label)
    if observed is not None and place.section.objective != "draft":  # which trains a companion
        model = load_model(rehearsal.model_of(place.stage, place.name), rehearsal.plan.registry)
        held = model.state_dict()
        stacked = expert_parameters(model)
        lost = [name for name in observed.after if name not in held]
        changed = [
            f"{name}[{number}]" if number is not None else name
            for name in observed.after
            if name in held
            for number in _differing(observed.after[name], held[name].cpu(), name in stacked)
        ]
        wrong = None
        if lost:
            wrong = f"{some(lost)} is not in the saved model"
        elif changed:
            wrong = f"{some(changed)} is not in the saved model as it was trained"
        experts = sum(int(held[name].shape[0]) for name in stacked)
        yield proved("saved as it was trained", place.label, wrong, f"{len(held)} tensors, {experts} stacked experts")


def exported(rehearsal: Rehearsal) -> Proofs:
    """The export of the last stage, read by transformers alone, says what the stage says."""
    from transformers import AutoModelForCausalLM

    from ...registry.current import using
    from ..model.exporting import export_model
    from ..model.loading import load_model

    plan, stage = rehearsal.plan, rehearsal.outcomes[-1].stage
    folder = rehearsal.folder / "export"
    model = load_model(stage.checkpoint, plan.registry)
    expected = logits_of(model)
    experts = _by_checksum(model, baked=True)
    report = export_model(stage.checkpoint, folder, plan.registry, drop_anchor=True)
    with using(plan.registry):
        read, info = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    lost = sorted({*info["missing_keys"], *info["unexpected_keys"]})
    found = _by_checksum(read, baked=False)
    missing = sorted(name for name, checksum in experts.items() if checksum not in set(found.values()))
    wrong = None
    if lost:
        wrong = f"{some([str(key) for key in lost])} is in one of the stage and the export only"
    elif missing:
        wrong = f"the export lacks {some(missing)}, or has it with other values"
    elif not torch.allclose(logits_of(read), expected, atol=1e-3):
        wrong = "the exported model says something else than the stage"
    told = f"{len(experts)} experts by checksum, as {report.model_type}"
    yield proved("export keeps every expert", stage.name, wrong, told)


def companions(rehearsal: Rehearsal, place: Place) -> Proofs:
    """What a step fits to the model is with it in the stage."""
    from ..model.companions import companions_of
    from ..model.loading import load_model

    name = place.section.objective
    if name in {"anchor", "draft", "probes"}:
        model = load_model(rehearsal.model_of(place.stage, place.name), rehearsal.plan.registry)
        wrong = None if name in companions_of(model) else f"the step ended, but the model has no {name}"
        yield proved("fitted part is with the model", place.label, wrong, f"the stage has its {name}")


def _differing(left: torch.Tensor, right: torch.Tensor, stacked: bool) -> list[int | None]:
    if left.shape != right.shape:
        return [None]
    if not stacked:
        return [] if torch.equal(left, right) else [None]
    return [number for number in range(len(left)) if not torch.equal(left[number], right[number])]


def _by_checksum(model: Any, *, baked: bool) -> Mapping[str, str]:
    """The SHA-256 of every expert's part of every stacked weight; ``baked``: of what the forward pass makes of it."""
    from ..model.quantization import encode_experts, quantization_of

    codes = encode_experts(model) if baked and quantization_of(model) is not None else {}
    return {
        f"{name}[{number}]": hashlib.sha256(part.contiguous().numpy().tobytes()).hexdigest()
        for name in expert_parameters(model)
        for number, part in enumerate(
            (codes[name].decode() if name in codes else model.get_parameter(name)).detach().cpu().float()
        )
    }

"""What a safety anchor promises: nothing to pay as captured, something once it would see less, and no silent pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...core.model.anchors import Guard, Material
from ...core.model.states import final_states
from ...registry.errors import PhasegateError, StoreError
from ..check import Subject
from ..tiny import prepared, tiny_model, tokens, weights_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FALSE_POSITIVES = 0.1
_HARMFUL, _BENIGN = 7, 8  # what prompts of a side end with, so that the two can be told apart
_SIDE = 30  # prompts of each
_BATCH = 16


def model_of(subject: Subject) -> PreTrainedModel:
    return prepared(tiny_model(subject), subject.example).eval()


def material_of(model: PreTrainedModel) -> Material:
    """Sixty prompts of two sides that differ in their last token, a third of them for calibration."""
    ids = tokens(2 * _SIDE, 8)
    harmful = torch.arange(2 * _SIDE) % 2 == 0
    ids[:, -1] = torch.where(harmful, _HARMFUL, _BENIGN)
    prompts = ids.tolist()
    with torch.no_grad():
        hidden = final_states(model, prompts, _BATCH).float()
    return Material(
        prompts=prompts,
        hidden=hidden,
        harmful=harmful,
        calibration=torch.arange(2 * _SIDE) % 6 < 2,
        kinds=["harmful" if bad else "benign" for bad in harmful.tolist()],
        false_positives=FALSE_POSITIVES,
        seed=0,
        batch=_BATCH,
    )


def captured(subject: Subject) -> tuple[Any, PreTrainedModel, Material]:
    """The anchor as captured, with the model and the material that it was captured from."""
    model = model_of(subject)
    material, anchor = material_of(model), subject.build()
    anchor.capture(model, material)
    return anchor, model, material


def guard_of(subject: Subject, anchor: Any) -> Guard:
    """The guard that would travel with a model."""
    return Guard(
        reference=subject.entry.ref,
        revision=subject.entry.component.revision,
        options=dict(subject.options),
        anchor=anchor,
        digest="",
        refusal="No.",
    )


def capture(subject: Subject) -> None:
    """Capturing changes no weight of the model, and equal material gives an equal anchor."""
    model = model_of(subject)
    material, before = material_of(model), weights_digest(model)
    first, second = subject.build(), subject.build()
    for anchor in (first, second):
        anchor.capture(model, material)
    assert weights_digest(model) == before, "The model has other weights afterwards."
    (facts, tensors), (others, more) = first.save(), second.save()
    assert dict(facts) == dict(others) and tensors.keys() == more.keys(), "Captured again, it says other things."
    assert all(torch.equal(tensors[name], more[name]) for name in tensors), "Captured again, it holds other tensors."


def score(subject: Subject) -> None:
    """States (..., d) get finite scores (...), the same one by one as together."""
    anchor, _, material = captured(subject)
    hidden = material.hidden[:12]
    flat = anchor.score(hidden)
    assert flat.shape == (12,), f"Twelve states got scores of shape {tuple(flat.shape)}."
    assert bool(flat.isfinite().all()), "A finite state got a score that is not."
    torch.testing.assert_close(anchor.score(hidden.view(3, 4, -1)).flatten(), flat, rtol=1e-4, atol=1e-5)
    assert anchor.score(hidden[0]).shape == (), "One state did not get one score."


def false_positives(subject: Subject) -> None:
    """Of the benign prompts that its threshold is set on no more than the promised share is vetoed."""
    anchor, _, material = captured(subject)
    benign = material.calibration & ~material.harmful
    vetoed = float((anchor.score(material.hidden[benign]) > 0).double().mean())
    assert vetoed <= FALSE_POSITIVES + 1e-9, f"{vetoed:.0%} are vetoed, and {FALSE_POSITIVES:.0%} were promised."


def zero_at_capture(subject: Subject) -> None:
    """For the model as captured the penalty is exactly 0, over everything and for every turn."""
    anchor, model, _ = captured(subject)
    for turn in (None, 0, 1, 2, 7):
        value = anchor.penalty(model, turn)
        assert value.shape == (), f"The penalty has shape {tuple(value.shape)}."
        assert float(value.detach()) == 0.0, f"At turn {turn} the penalty is {float(value.detach()):.3g}."


def positive_after_perturbation(subject: Subject) -> None:
    """Where final states have turned round, the penalty is positive and pulls at the model with a finite gradient."""
    anchor, model, _ = captured(subject)
    norm: Any = model.get_submodule("model.norm")
    with torch.no_grad():
        norm.weight.neg_()
    value = anchor.penalty(model)
    assert float(value.detach()) > 0.0, (
        f"The penalty is {float(value.detach()):.3g} for a model that says the opposite."
    )
    assert value.requires_grad, "The penalty has no gradient."
    value.backward()
    reached = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(bool(gradient.any()) for gradient in reached), "Its gradient reaches no weight."
    assert all(bool(gradient.isfinite().all()) for gradient in reached), "Its gradient is not finite."


def saved(subject: Subject) -> None:
    """What it saves, as JSON and tensors, makes the same anchor bit for bit, whatever the model was."""
    anchor, model, material = captured(subject)
    facts, tensors = anchor.save()
    again = subject.build()
    again.restore(json.loads(json.dumps(dict(facts), allow_nan=False)), {k: v.clone() for k, v in tensors.items()})
    assert torch.equal(again.score(material.hidden), anchor.score(material.hidden)), "It gives other scores."
    with torch.no_grad():
        model.get_submodule("model.norm").weight.mul_(-0.5)
        assert torch.equal(again.penalty(model), anchor.penalty(model)), "It has another penalty."


def fails_closed(subject: Subject) -> None:
    """Without its capture, or with a part of it missing or broken, nothing passes: it raises, or its guard vetoes."""
    anchor, model, material = captured(subject)
    hidden = material.hidden[~material.harmful]
    try:
        vetoed = guard_of(subject, subject.build()).vetoes(hidden)
    except (AttributeError, IndexError, KeyError, PhasegateError, RuntimeError, TypeError, ValueError):
        vetoed = torch.ones(len(hidden), dtype=torch.bool)
    assert bool(vetoed.all()), f"Never captured, it lets {int((~vetoed).sum())} of {len(hidden)} prompts pass."
    saved_facts, tensors = guard_of(subject, anchor).save()
    facts: dict[str, Any] = json.loads(json.dumps(saved_facts))
    broken: list[tuple[str, dict[str, Any], Mapping[str, torch.Tensor]]] = [
        ("nothing of what it saved", {**facts, "captured": {}}, {})
    ]
    broken += [(f"no '{name}'", facts, {k: v for k, v in tensors.items() if k != name}) for name in tensors]
    broken += [
        (f"NaN in '{name}'", facts, {**tensors, name: torch.full_like(tensor, torch.nan)})
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.numel()
    ]
    for what, given, parts in broken:
        try:
            restored = Guard.restore(given, parts, model, subject.registry)
            passing = ~restored.vetoes(hidden)
        except StoreError:
            continue
        assert not bool(passing.any()), f"Restored with {what}, it lets {int(passing.sum())} prompts pass."


CHECKS: tuple[Callable[[Subject], None], ...] = (
    capture,
    score,
    false_positives,
    zero_at_capture,
    positive_after_perturbation,
    saved,
    fails_closed,
)

"""What a loss term promises: a scalar over valid tokens that does not depend on how a step is split."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import torch

from ..check import NotApplicable, Subject
from ..routed import Trial, context_of, train, try_out
from ..tiny import weights_digest


def _step(trial: Trial, *, seed: int = 0, step: int = 0) -> torch.Tensor:
    """One optimiser step's call: the term's value, and what follows the step."""
    value: torch.Tensor = trial.loss(context_of(trial, seed=seed, step=step))
    trial.loss.after_step()
    return value.detach()


def scalar(subject: Subject) -> None:
    """The value is one finite number in fp32, shape ()."""
    trial = try_out(subject)
    value = trial.loss(context_of(trial))
    assert isinstance(value, torch.Tensor), f"It gave a {type(value).__name__}."
    assert value.shape == (), f"It gave shape {tuple(value.shape)}."
    assert value.dtype == torch.float32, f"It gave {value.dtype}."
    assert bool(value.isfinite()), f"It gave {float(value.detach())}."


def takes_effect(subject: Subject) -> None:
    """The term trains something: its gradient, which is finite, is not zero everywhere, or it moves buffers itself."""
    trial = try_out(subject)
    before = weights_digest(trial.model)
    value = trial.loss(context_of(trial))
    reached = []
    if value.requires_grad:
        value.backward()
        for name, parameter in trial.model.named_parameters():
            if parameter.grad is not None:
                assert bool(parameter.grad.isfinite().all()), f"The gradient of {name} is not finite."
                reached += [name] if bool(parameter.grad.any()) else []
    trial.loss.after_step()
    moved = weights_digest(trial.model) != before
    assert reached or moved, "No parameter gets a gradient from it, and after a step nothing has moved."


def masked(subject: Subject) -> None:
    """What stands at padding changes neither the value nor any gradient."""
    values, gradients = [], []
    for filling in (0, 41):
        trial = try_out(subject)
        value = trial.loss(context_of(trial, filling=filling))
        if value.requires_grad:
            value.backward()
        values.append(float(value.detach()))
        named = trial.model.named_parameters()
        gradients.append({name: p.grad for name, p in named if p.grad is not None and "embed" not in name})
    assert math.isclose(*values, rel_tol=1e-5, abs_tol=1e-6), (
        f"Other padding gave {values[1]:.6g}, not {values[0]:.6g}."
    )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6)


def accumulation(subject: Subject) -> None:
    """A step of 4 rows has the same value and gradient in one micro-batch (1x4) and in four (4x1)."""
    name = subject.entry.name
    whole = train(try_out(subject), name, accumulate=1)
    split = train(try_out(subject), name, accumulate=4)
    logged = [key for key in whole.log[0] if key.startswith("loss/")]
    assert f"loss/{name}" in logged, f"The trainer logged {', '.join(logged)}, and not loss/{name}."
    for key in logged:
        one, other = whole.log[0][key], split.log[0][key]
        assert math.isclose(one, other, rel_tol=2e-4, abs_tol=1e-5), f"{key} is {other:.6g} split, and {one:.6g} whole."
    for parameter, gradient in whole.gradients.items():
        torch.testing.assert_close(split.gradients[parameter], gradient, rtol=1e-3, atol=2e-5)


def determinism(subject: Subject) -> None:
    """Equal batches give equal bits, and no global random state is used or changed."""
    states = torch.get_rng_state(), repr(np.random.get_state(legacy=False)), random.getstate()
    first, second = (_step(try_out(subject)) for _ in range(2))
    assert torch.equal(first, second), f"The same batch gave {float(second)} after {float(first)}."
    assert torch.equal(torch.get_rng_state(), states[0]), "It changes torch's global random state."
    assert repr(np.random.get_state(legacy=False)) == states[1], "It changes numpy's global random state."
    assert random.getstate() == states[2], "It changes Python's global random state."


def leaves_the_model(subject: Subject) -> None:
    """A call leaves weights, mode and ``requires_grad`` of the model as they were; ``after_step`` moves things."""
    trial = try_out(subject)
    context = context_of(trial)
    mode, digest = trial.model.training, weights_digest(trial.model)
    trainable = [name for name, p in trial.model.named_parameters() if p.requires_grad]
    trial.loss(context)
    assert trial.model.training == mode, "It left the model in another mode."
    assert weights_digest(trial.model) == digest, "It changed weights or buffers."
    assert [name for name, p in trial.model.named_parameters() if p.requires_grad] == trainable, "It froze something."


def state_dict(subject: Subject) -> None:
    """State that is saved and loaded into a fresh term makes it go on as the first would have: resume is exact."""
    trial = try_out(subject)
    for number in range(3):
        _step(trial, seed=number, step=number)
    state = dict(trial.loss.state_dict())
    for name, tensor in state.items():
        assert isinstance(tensor, torch.Tensor), f"'{name}' in its state is a {type(tensor).__name__}, not a tensor."
    state = {name: tensor.clone() for name, tensor in state.items()}
    fresh = try_out(subject)
    fresh.model.load_state_dict(trial.model.state_dict())
    fresh.loss.load_state_dict(state)
    again = dict(fresh.loss.state_dict())
    assert again.keys() == state.keys(), f"It was given {sorted(state)} and has {sorted(again)}."
    assert all(torch.equal(again[name], state[name]) for name in state), "Its state is another after it was loaded."
    one, other = (_step(each, seed=9, step=3) for each in (trial, fresh))
    assert torch.equal(one, other), f"After loading it gives {float(other)}; it would have given {float(one)}."


def told(subject: Subject) -> None:
    """For every name in ``facts`` a call leaves one finite number without gradient in ``told``."""
    trial = try_out(subject)
    names = tuple(getattr(trial.loss, "facts", ()))
    if not names:
        raise NotApplicable("it names no facts")
    trial.loss(context_of(trial))
    found = list(getattr(trial.loss, "told", ()))
    assert len(found) == len(names), f"It names {len(names)} facts and tells {len(found)}."
    for name, fact in zip(names, found, strict=True):
        assert isinstance(fact, torch.Tensor) and fact.shape == (), f"'{name}' is no scalar tensor."
        assert not fact.requires_grad, f"'{name}' still has a gradient; detach it."
        assert bool(fact.isfinite()), f"'{name}' is {float(fact)}."


CHECKS: tuple[Callable[[Subject], None], ...] = (
    scalar,
    takes_effect,
    masked,
    accumulation,
    determinism,
    leaves_the_model,
    state_dict,
    told,
)

"""What a token mixer promises: causality, a cache that changes nothing, documents that stay apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from ...core.model.loading import load_model, save_model
from ...core.model.seeding import seeded
from ..check import NotApplicable, Subject
from ..tiny import LENGTH, logits_of, own_ref, tiny_model, tiny_tokenizer, tokens, weights_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal but for the order of fp32 additions."""
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def model_of(subject: Subject, *, seed: int = 0) -> PreTrainedModel:
    """A model whose first layer, or every layer, has the mixer."""
    return tiny_model(subject, seed=seed, mixer=own_ref(subject))


def shapes(subject: Subject) -> None:
    """Hidden states (B, T, H) come out of the mixer in the same shape, beside None."""
    model, found = model_of(subject), []
    mixer: Any = model.get_submodule("model.layers.0.self_attn")
    mixer.register_forward_hook(lambda module, arguments, output: found.append(output))
    logits = logits_of(model, tokens(2, 12))
    mixed = found[0]
    assert isinstance(mixed, tuple) and len(mixed) == 2, f"It gives a {type(mixed).__name__} and not two things."
    assert tuple(mixed[0].shape) == (2, 12, 16), f"It gives shape {tuple(mixed[0].shape)} for (2, 12, 16)."
    assert bool(logits.isfinite().all()), "The logits are not finite."


def causality(subject: Subject) -> None:
    """Later tokens do not change what earlier ones give."""
    model, ids = model_of(subject), tokens(2, LENGTH)
    changed = ids.clone()
    changed[:, 20:] = tokens(2, LENGTH - 20, seed=7)
    before, after = logits_of(model, ids), logits_of(model, changed)
    assert_near(after[:, :20], before[:, :20])
    assert not torch.allclose(after[:, 20:], before[:, 20:]), "No token changes anything."


def memory(subject: Subject) -> None:
    """What stands earlier in a text changes what comes later: tokens are mixed."""
    model, ids = model_of(subject), tokens(2, LENGTH)
    found: list[torch.Tensor] = []
    mixer: Any = model.get_submodule("model.layers.0.self_attn")
    mixer.register_forward_hook(lambda module, arguments, output: found.append(output[0]))
    logits_of(model, ids)
    changed = ids.clone()
    changed[:, 0] = (ids[:, 0] - 5) % 58 + 6
    logits_of(model, changed)
    assert not torch.equal(found[0][:, 1:], found[1][:, 1:]), "The first token changes nothing behind it."


def cache(subject: Subject) -> None:
    """Reading token by token with the cache gives the logits of one pass over the whole text."""
    model, ids = model_of(subject).eval(), tokens(2, 16)
    whole, parts, past = logits_of(model, ids), [], None
    with torch.no_grad():
        for place in range(ids.shape[1]):
            out = model(input_ids=ids[:, place : place + 1], past_key_values=past, use_cache=True)
            parts.append(out.logits)
            past = out.past_key_values
    assert_near(torch.cat(parts, dim=1), whole)


def generation(subject: Subject) -> None:
    """Greedy answers are the same with the cache and without, and behind padding on the left."""
    model, ids = model_of(subject).eval(), tokens(2, 10)
    greedy: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    ones = torch.ones_like(ids)
    cached = model.generate(ids, attention_mask=ones, **greedy)
    assert torch.equal(cached, model.generate(ids, attention_mask=ones, use_cache=False, **greedy)), (
        "With the cache it generates other tokens."
    )
    padded, mask = torch.nn.functional.pad(ids, (5, 0)), torch.nn.functional.pad(ones, (5, 0))
    behind = model.generate(padded, attention_mask=mask, **greedy)
    assert torch.equal(behind[:, 5:], cached), "Behind padding it generates other tokens."


def documents(subject: Subject) -> None:
    """Documents packed into one row do not see each other: ``position_ids`` begin anew with each."""
    model, ids = model_of(subject), tokens(1, LENGTH)
    half = LENGTH // 2
    positions = torch.arange(half).repeat(2)[None]
    packed = logits_of(model, ids, position_ids=positions)
    assert_near(packed[:, half:], logits_of(model, ids[:, half:]))


def gradient(subject: Subject) -> None:
    """A finite gradient reaches every parameter of the mixer."""
    model, ids = model_of(subject).train(), tokens(2, LENGTH)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for name, parameter in model.get_submodule("model.layers.0.self_attn").named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), f"No gradient reaches {name}."
        assert bool(parameter.grad.isfinite().all()), f"The gradient of {name} is not finite."


def determinism(subject: Subject) -> None:
    """Equal tokens get equal bits, and no global random state is used or changed."""
    model, ids, state = model_of(subject), tokens(2, 12), torch.get_rng_state()
    assert torch.equal(logits_of(model, ids), logits_of(model, ids)), "The same call gave other numbers."
    assert torch.equal(torch.get_rng_state(), state), "It draws from the global random state."


def seed(subject: Subject) -> None:
    """Two models of one seed have mixers that are equal in every bit."""
    path = "model.layers.0.self_attn"
    first = weights_digest(model_of(subject, seed=3).get_submodule(path))
    with seeded(11):
        torch.rand(3)
        second = weights_digest(model_of(subject, seed=3).get_submodule(path))
    assert first == second, "The same seed gave another mixer; draw with transformers.initialization in init_weights."


def bf16(subject: Subject) -> None:
    """In bfloat16 the logits are finite and near those of fp32."""
    model, ids = model_of(subject), tokens(2, 12)
    exact = logits_of(model, ids)
    found = logits_of(model.to(torch.bfloat16), ids).float()
    assert bool(found.isfinite().all()), "The logits are not finite."
    error = float((found - exact).norm() / exact.norm())
    assert error < 0.2, f"The logits differ by {error:.0%} of their size."


def saved(subject: Subject) -> None:
    """A saved model has the same logits when it is loaded."""
    model, ids = model_of(subject), tokens(2, 12)
    with TemporaryDirectory() as folder:
        save_model(model, tiny_tokenizer(), folder)
        again = load_model(Path(folder), subject.registry)
        assert torch.equal(logits_of(again, ids), logits_of(model, ids)), "The loaded model has other logits."


def counted(subject: Subject) -> None:
    """Options that tell how many parameters a mixer has tell the truth."""
    config = subject.config()
    if config is None or not hasattr(config, "parameters"):
        raise NotApplicable("its options do not tell how many parameters it has")
    told = sum(config.parameters(16).values())
    mixer = model_of(subject).get_submodule("model.layers.0.self_attn")
    found = sum(parameter.numel() for parameter in mixer.parameters())
    assert told == found, f"The options tell {told} parameters, and it has {found}."


CHECKS: tuple[Callable[[Subject], None], ...] = (
    shapes,
    causality,
    memory,
    cache,
    generation,
    documents,
    gradient,
    determinism,
    seed,
    bf16,
    saved,
    counted,
)

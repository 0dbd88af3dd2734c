"""What a model builder promises: the model it counts, from a seed alone, the same after it was saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from ...core.model.builder import ModelContext
from ...core.model.loading import load_model, save_model
from ...core.model.parameters import roles_of
from ..check import NotApplicable, Subject
from ..tiny import LENGTH, SIZES, logits_of, ref_of, tiny_tokenizer, tokens, weights_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def builder_of(subject: Subject) -> Any:
    """The builder for a model of tiny sizes with the example's router."""
    context = ModelContext(
        registry=subject.registry,
        router=ref_of(subject.example.router),
        derived=SIZES,
        vocab_size=len(tiny_tokenizer()),
        sequence_length=LENGTH,
    )
    return subject.build(context=context)


def model_of(subject: Subject, *, seed: int = 0) -> PreTrainedModel:
    model: PreTrainedModel = builder_of(subject).build(seed)
    return model


def _ids() -> torch.Tensor:
    return tokens(2, 12, vocabulary=len(tiny_tokenizer()))


def builds(subject: Subject) -> None:
    """It builds a causal language model in fp32 on the CPU: logits (B, T, V), later tokens unseen by earlier ones."""
    model, ids = model_of(subject), _ids()
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.device.type == "cpu", f"{name} is {parameter.dtype}."
    logits = logits_of(model, ids)
    assert logits.shape[:2] == (2, 12) and logits.shape[2] >= len(tiny_tokenizer()), f"Logits: {tuple(logits.shape)}."
    assert bool(logits.isfinite().all()), "The logits are not finite."
    changed = ids.clone()
    changed[:, 8:] = ids[:, :4]
    torch.testing.assert_close(logits_of(model, changed)[:, :8], logits[:, :8], rtol=1e-3, atol=1e-4)


def seed(subject: Subject) -> None:
    """Equal seeds give equal bits whatever ran before, another seed another model, and global random state stays."""
    one = weights_digest(model_of(subject, seed=3))
    torch.rand(5)
    state = torch.get_rng_state()
    assert weights_digest(model_of(subject, seed=3)) == one, "The same seed gave another model."
    assert torch.equal(torch.get_rng_state(), state), "It changed the global random state."
    assert weights_digest(model_of(subject, seed=4)) != one, "Another seed gave the same model."


def counts(subject: Subject) -> None:
    """``facts`` counts what ``build`` allocates: in all and by role; of it no more is active than there is."""
    facts, model = builder_of(subject).facts(), model_of(subject)
    found: dict[str, int] = {}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for name, role in roles_of(model).items():
        found[role] = found.get(role, 0) + sizes[name]
    assert facts.total == sum(sizes.values()), (
        f"It counts {facts.total:,} parameters and builds {sum(sizes.values()):,}."
    )
    told = {role: count for role, count in facts.by_role.items() if count}
    assert told == found, f"By role it counts {told}, and builds {found}."
    assert 0 < facts.active <= facts.total, f"It counts {facts.active:,} active parameters of {facts.total:,}."
    assert facts.flops_per_token >= 6 * (facts.active - facts.by_role.get("embedding", 0)) * 0.5, (
        f"{facts.flops_per_token:.3g} FLOPs per token are too few for {facts.active:,} active parameters."
    )


def saved(subject: Subject) -> None:
    """A saved model has the same logits when it is loaded, bit for bit."""
    model, ids = model_of(subject), _ids()
    with TemporaryDirectory() as folder:
        save_model(model, tiny_tokenizer(), folder)
        again = load_model(Path(folder), subject.registry)
        assert torch.equal(logits_of(again, ids), logits_of(model, ids)), "The loaded model has other logits."


def config(subject: Subject) -> None:
    """The model's configuration comes back from JSON as it was."""
    before: Any = model_of(subject).config
    again = type(before).from_dict(json.loads(before.to_json_string(use_diff=False)))
    one, other = json.loads(before.to_json_string()), json.loads(again.to_json_string())
    differing = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    assert not differing, f"{', '.join(differing)} came back otherwise."


def positions(subject: Subject) -> None:
    """A builder that tells its positions tells those of the configuration that it builds with."""
    builder = builder_of(subject)
    if not hasattr(builder, "positions"):
        raise NotApplicable("it does not tell its positions")
    told, built = builder.positions(), model_of(subject).config
    assert told.length == built.max_position_embeddings, (
        f"It tells {told.length} positions, and the model has {built.max_position_embeddings}."
    )
    assert told.base > 1.0 and told.dim > 0 and told.dim % 2 == 0, f"It tells {told}."


CHECKS: tuple[Callable[[Subject], None], ...] = (builds, seed, counts, saved, config, positions)

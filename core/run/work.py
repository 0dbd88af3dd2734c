"""What a step of a phase costs to compute, by arithmetic: training tokens, FLOPs of training and of inference.

A training token costs three forward passes, ``6 N`` FLOPs and the attention of its row, of which a forward pass alone
is a third (Kaplan 2020, 2001.08361; Chowdhery 2022, 2204.02311, appendix B). Where all that multiplies is frozen but
the routers, gradients pass through weights without one of their own: two forward passes, ``4 N``. Freezing less saves
nothing here, and all rows count as full: the figures are upper bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...registry.options import parse
from ..config.conversions import CONVERSIONS
from ..config.dial import derive
from ..config.objectives import DraftOptions, ProbeOptions
from ..config.schema import Experiment, StepSection

#: Objectives that fit something to a model without training a network: they have neither steps nor a rate.
WITHOUT_STEPS = ("anchor", "probes", *CONVERSIONS)

#: What of a conversion is not counted.
UNCOUNTED: Mapping[str, str] = {
    "grow": "held-out rows that growth is checked on",
    "reroute": "fitting of a new router",
    "upcycle": "held-out rows that an upcycling is checked on",
}

#: Roles of matrix products besides the router's. The head is taken to be frozen where all of these are.
_MULTIPLIED = frozenset({"attention", "experts", "ffn"})

#: FLOPs of one training token in a row of so many tokens.
PerToken = Callable[[int], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a step does: training tokens, FLOPs of training and of the inference that it needs, and what of it is not
    counted, in words."""

    tokens: int
    training: float
    inference: float = 0.0
    uncounted: str = ""


def work_of(step: StepSection, experiment: Experiment, per_token: PerToken) -> Work:
    """Return the work of a step at full rows, replayed rows included; a pair counts twice, and a step that trains no
    weights has no tokens.

    DPO adds a forward pass of its pairs through the reference, distillation one of its rows through the teacher, taken
    to be as large as the model; activation checkpointing adds one of everything. A draft learns from the target's
    forward pass. Answers that a model gives itself are one forward pass per new token.
    """
    if step.objective in CONVERSIONS:
        return Work(tokens=0, training=0.0, uncounted=UNCOUNTED[step.objective])
    length, replayed_length = _lengths(step, experiment)
    forward = per_token(length) / 3
    if step.objective == "anchor":
        return Work(tokens=0, training=0.0, uncounted="prompts of an anchor")
    if step.objective == "probes":
        options = parse(ProbeOptions, step.options, "probes")
        if options.questions is None:
            return Work(tokens=0, training=0.0, uncounted="own answers to all questions")
        answers = options.questions * (1 + options.sampled)
        return Work(tokens=0, training=0.0, inference=answers * options.answer_tokens * forward)
    own, replayed = (step.steps * tokens for tokens in _batch(step, experiment))
    if step.objective == "draft":
        draft = parse(DraftOptions, step.options, "draft")
        training = own * (forward + _draft_flops(draft, experiment))
        return Work(tokens=own, training=training, inference=draft.samples * draft.sample_tokens * forward)
    passes = 2 if set(step.freeze) >= _MULTIPLIED else 3
    training = own * passes * forward + replayed * per_token(replayed_length) * (passes / 3)
    if step.objective in {"distill", "dpo"}:
        training += own * forward
    if step.activation_checkpointing:
        training += own * forward + replayed * per_token(replayed_length) / 3
    return Work(tokens=own + replayed, training=training)


def _lengths(step: StepSection, experiment: Experiment) -> tuple[int, int]:
    """Return the tokens of a row, and of a replayed row."""
    length = step.sequence_length or experiment.data.sequence_length or 0
    return length, step.replay.sequence_length or length


def _batch(step: StepSection, experiment: Experiment) -> tuple[int, int]:
    """Return the tokens of one optimiser step: its own, and those replayed beside them."""
    length, replayed_length = _lengths(step, experiment)
    own = step.rows * (2 if step.objective in {"contrast", "dpo"} else 1) * length
    return own, step.replay.rows * replayed_length


def _draft_flops(draft: DraftOptions, experiment: Experiment) -> float:
    """Estimate the training FLOPs of a token in a dense draft without its attention over the row: four square matrices
    and a gated FFN a layer, the projection to the target's width and back, and the target's embedding as its head."""
    width = int({**derive(experiment.size).values, **experiment.model.options}["hidden_size"])
    hidden = draft.hidden_size or width
    inner = draft.intermediate_size or 4 * hidden
    layer = 4 * hidden**2 + 3 * hidden * inner
    return 6.0 * (draft.layers * layer + 2 * hidden * width + (experiment.tokenizer.vocab_size or 0) * width)

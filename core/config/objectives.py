"""Options of the steps that add to a model what travels with it: probes, a safety anchor, a draft model; and the check
of what every objective takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from ...registry.errors import PhasegateError
from ...registry.options import parse
from .contrast import check_contrast
from .conversions import CONVERSIONS, DistillOptions
from .converting import check_conversions
from .problems import Problems
from .schema import Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """Linear confidence probes: where they read, how an answer is labelled, and what a wrong one costs.

    ``layers`` are depths as shares of the model's layers. ``penalties`` gives every domain its weight w- of a wrong
    answer (w+ is 1). ``label`` says when an answer is right: it ``contains`` the truth, is ``exact``ly the truth after
    normalisation, reaches ``f1`` in token F1, or ``entailment`` (a local text-classification model) holds in both
    directions. ``position`` is what is read: the end of the prompt, the states that predict the answer's tokens, or
    both; ``pool`` is what stands for the answer's tokens: their mean, or the last. ``sampled`` adds that many answers
    drawn at temperature 1 to the greedy one; each has at most ``answer_tokens`` tokens. ``folds`` is the number of
    parts that the questions are split into: the scale is set on each part's scores from probes that learnt from the
    others. ``strength`` is the inverse of the L2 penalty on standardised states. ``questions`` caps the questions,
    equally many of every domain (None: all).
    """

    layers: Annotated[tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...], Field(min_length=1)] = (1 / 3, 2 / 3, 1.0)
    penalties: Mapping[str, Annotated[float, Field(gt=0.0)]] = field(default_factory=dict)
    label: Literal["contains", "exact", "f1", "entailment"] = "contains"
    f1: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    entailment: str | None = None
    position: Literal["prompt", "answer", "both"] = "both"
    pool: Literal["mean", "last"] = "mean"
    sampled: Annotated[int, Field(ge=0)] = 0
    answer_tokens: Annotated[int, Field(ge=1)] = 32
    folds: Annotated[int, Field(ge=2)] = 5
    strength: Annotated[float, Field(gt=0.0)] = 0.05
    questions: Annotated[int, Field(ge=2)] | None = None

    def __post_init__(self) -> None:
        if self.label == "entailment" and self.entailment is None:
            raise ValueError("label entailment needs a model; give the folder of one under entailment")
        if self.label != "entailment" and self.entailment is not None:
            raise ValueError(f"entailment has no effect with label {self.label}; set label: entailment or remove it")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorOptions:
    """Capturing a safety anchor: which kinds of the view are ``harmful``, and which ``benign`` (all others if not
    given).

    ``false_positives`` is the share of benign prompts that may be vetoed, at the prompt and in the answer together.
    ``calibration`` is the share of prompts on which thresholds are set, ``measured`` the share on which nothing is set
    and the rates are measured; the anchor learns from the rest. ``prompts`` caps each side, evenly by kind. Answers
    are looked at at every ``every``-th token and at their end (0: only prompts are). ``refusal`` is what is answered
    instead of what was vetoed (if not given, the completion that most harmful rows have).
    """

    harmful: tuple[str, ...] = ("harmful",)
    benign: tuple[str, ...] = ()
    false_positives: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.02
    calibration: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    measured: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    prompts: Annotated[int, Field(ge=1)] | None = 4000
    every: Annotated[int, Field(ge=0)] = 8
    refusal: str | None = None

    def __post_init__(self) -> None:
        if self.calibration + self.measured >= 1.0:
            raise ValueError(
                f"calibration {self.calibration} and measured {self.measured} leave no prompts for the anchor to "
                "learn from; make their sum less than 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftOptions:
    """A draft model for speculative decoding: its size, and what it is distilled from.

    ``layers`` is its depth; ``hidden_size``, ``heads`` and ``intermediate_size`` are the target's if not given (the FFN
    four times the width). ``proposals`` is how many tokens it proposes at a time. It learns from ``samples``
    continuations by the target, of at most ``sample_tokens`` tokens drawn at ``temperature`` (0: greedy): answers to
    training prompts of the step's view, and for the share ``text`` of them continuations of training text. Beside them
    it learns what the target would say in ``dialogues`` of the view's own dialogues, which cost no sampling.
    ``softening`` is the temperature of both distributions in the loss. ``path`` starts from the draft model of a stage
    checkpoint or export, which must have the target's vocabulary; without it, a draft that the model already has in
    this size is trained on.
    """

    hidden_size: Annotated[int, Field(ge=1)] | None = None
    layers: Annotated[int, Field(ge=1)] = 1
    heads: Annotated[int, Field(ge=1)] | None = None
    intermediate_size: Annotated[int, Field(ge=1)] | None = None
    proposals: Annotated[int, Field(ge=1)] = 4
    samples: Annotated[int, Field(ge=1)] = 2048
    sample_tokens: Annotated[int, Field(ge=1)] = 32
    temperature: Annotated[float, Field(ge=0.0)] = 1.0
    softening: Annotated[float, Field(gt=0.0)] = 1.0
    text: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    dialogues: Annotated[int, Field(ge=0)] = 0
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoOptions:
    """``beta``: strength of the reference (Rafailov 2023, 2305.18290); ``nll``: weight of the chosen answer's
    cross-entropy (RPO, Pang 2024, 2404.19733)."""

    beta: Annotated[float, Field(ge=0.0)] = 0.1
    nll: Annotated[float, Field(ge=0.0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """An objective that takes none."""


#: Options of the objectives that train no weights of the model.
OPTIONS: Mapping[str, type] = {
    "anchor": AnchorOptions,
    "draft": DraftOptions,
    "probes": ProbeOptions,
    **CONVERSIONS,
}

#: Options of those that do; a contrast step has a check of its own.
TRAINING: Mapping[str, type] = {"causal": NoOptions, "distill": DistillOptions, "dpo": DpoOptions, "sft": NoOptions}


def check_objectives(experiment: Experiment, problems: Problems) -> None:
    """Note options that a step's objective does not take, an anchor where none belongs or one is missing, and a loss
    that needs an anchor before any was captured."""
    check_contrast(experiment, problems)
    check_conversions(experiment, problems)
    captured = False
    for name, phase in experiment.phases.items():
        for step, section in phase.steps.items():
            path = ("phases", name, "steps", step)
            label = ".".join(path)
            config = {**OPTIONS, **TRAINING}.get(section.objective)
            if config is not None:
                try:
                    parse(config, section.options, f"{label} ({section.objective})")
                except PhasegateError as error:
                    problems.add((*path, "options", *error.place), str(error))
            for loss, term in section.losses.items():
                if term.use.rpartition(":")[2] == "anchor" and not captured:
                    text = (
                        f"{label}.losses.{loss} holds a safety anchor in place, but no earlier step captures one; put "
                        "a step with objective: anchor before it, or remove the loss."
                    )
                    problems.add((*path, "losses", loss), text)
            captured = captured or section.objective == "anchor"
            if section.objective == "anchor" and section.anchor is None:
                problems.add(path, f"{label} captures an anchor but names none; set anchor, such as half-space.")
            if section.objective != "anchor" and section.anchor is not None:
                text = (
                    f"{label}.anchor has no effect in a {section.objective} step; remove it or set objective: anchor."
                )
                problems.add((*path, "anchor"), text)
            if section.context.rope == "abf" and section.context.theta is None:
                problems.add((*path, "context"), f"{label}.context: abf sets the rotary base; give theta.")

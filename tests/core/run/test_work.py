"""What a step costs, counted by hand: a training token is 30 FLOPs in rows of 10, 60 in rows of 20."""

from __future__ import annotations

from typing import Any

import pytest
from phasegate.core.config.schema import DataSection, Experiment, ReplaySection, StepSection, TokenizerSection
from phasegate.core.run.work import Work, work_of

EXPERIMENT = Experiment(
    name="x", size="64", data=DataSection(sequence_length=10), tokenizer=TokenizerSection(vocab_size=500)
)


def work(**step: Any) -> Work:
    return work_of(StepSection(**{"steps": 5, "rows": 2, **step}), EXPERIMENT, lambda length: 3.0 * length)


def test_a_causal_step_trains_on_its_rows() -> None:
    assert work() == Work(tokens=100, training=3000.0)


def test_longer_rows_cost_more_for_every_token() -> None:
    assert work(sequence_length=20) == Work(tokens=200, training=200 * 60.0)


def test_replayed_rows_count_at_their_own_length() -> None:
    replay = ReplaySection(rows=3, weight=1.0, sequence_length=20)
    # 5 steps of 2 rows of 10 and 3 rows of 20 tokens
    assert work(objective="sft", replay=replay) == Work(tokens=400, training=100 * 30.0 + 300 * 60.0)


def test_a_pair_counts_twice_and_its_reference_adds_a_forward_pass() -> None:
    assert work(objective="dpo") == Work(tokens=200, training=200 * 30.0 + 200 * 10.0)
    assert work(objective="contrast") == Work(tokens=200, training=200 * 30.0)


def test_recomputed_activations_add_a_forward_pass() -> None:
    assert work(activation_checkpointing=True) == Work(tokens=100, training=100 * 40.0)


def test_a_distillation_adds_a_forward_pass_of_its_teacher() -> None:
    assert work(objective="distill") == Work(tokens=100, training=100 * 30.0 + 100 * 10.0)
    assert work(objective="distill", activation_checkpointing=True) == Work(tokens=100, training=100 * 50.0)


@pytest.mark.parametrize(("objective", "said"), [("upcycle", "upcycling"), ("grow", "growth"), ("reroute", "router")])
def test_a_conversion_trains_nothing_and_says_what_is_uncounted(objective: str, said: str) -> None:
    found = work(objective=objective)
    assert (found.tokens, found.training, found.inference) == (0, 0.0, 0.0)
    assert said in found.uncounted


def test_behind_frozen_weights_a_token_costs_four_flops_a_parameter_instead_of_six() -> None:
    frozen = ("attention", "experts", "ffn")
    assert work(freeze=("embedding", *frozen, "norm")) == Work(tokens=100, training=100 * 20.0)
    replay = ReplaySection(rows=3, weight=1.0, sequence_length=20)
    # 5 steps of 3 replayed rows of 20 tokens, at two thirds of 60 FLOPs each
    found = work(objective="sft", freeze=frozen, replay=replay)
    assert (found.tokens, found.training) == (400, pytest.approx(100 * 20.0 + 300 * 40.0))
    # the frozen forward pass is repeated all the same
    assert work(freeze=frozen, activation_checkpointing=True) == Work(tokens=100, training=100 * 30.0)


@pytest.mark.parametrize("freeze", [("experts", "ffn"), ("attention", "experts"), ("router",), ("experts[0-2]",)])
def test_freezing_less_than_that_saves_nothing(freeze: tuple[str, ...]) -> None:
    assert work(freeze=freeze) == Work(tokens=100, training=3000.0)


def test_probes_train_no_weights_and_cost_the_answers_that_they_learn_from() -> None:
    options = {"questions": 7, "sampled": 1, "answer_tokens": 4}
    # 7 questions, answered greedily and once more, 4 tokens each, a forward pass of 10 FLOPs for every token
    assert work(objective="probes", options=options) == Work(tokens=0, training=0.0, inference=560.0)


def test_answers_to_all_questions_are_said_to_be_uncounted() -> None:
    found = work(objective="probes")
    assert (found.tokens, found.training, found.inference) == (0, 0.0, 0.0)
    assert "all questions" in found.uncounted


def test_an_anchor_trains_nothing_and_says_what_is_uncounted() -> None:
    found = work(objective="anchor")
    assert (found.tokens, found.training) == (0, 0.0)
    assert "anchor" in found.uncounted


def test_a_draft_pays_for_itself_and_for_its_target() -> None:
    options = {"hidden_size": 8, "intermediate_size": 10, "layers": 2, "samples": 6, "sample_tokens": 5}
    # the draft: 2 layers of 4 * 8^2 + 3 * 8 * 10, projections of 8 * 64, a head of 500 * 64; the target: forward passes
    draft = 6 * (2 * (256 + 240) + 2 * 512 + 500 * 64)
    assert work(objective="draft", options=options) == Work(
        tokens=100, training=pytest.approx(100 * (draft + 10.0)), inference=6 * 5 * 10.0
    )

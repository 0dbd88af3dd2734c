"""Distillation: forward KL by hand, where it is taken, who learns and who does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from datasets import Dataset
from phasegate.core.model.companions import trunk_digest
from phasegate.core.model.draft_start import DraftShape, build_draft
from phasegate.core.training.distillation import forward_kl, logits_where, reverse_kl
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from phasegate.registry.errors import ConfigError
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]
Jobs = Callable[..., StepJob]


class Watch(TrainerCallback):
    """Keeps the gradients of every optimiser step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


@pytest.fixture
def teacher(make_model: Models) -> PreTrainedModel:
    return make_model(initializer_range=0.5).eval()


@pytest.fixture
def half_learnt(causal_rows: Rows) -> Callable[..., Dataset]:
    """Rows of 12 tokens of which the last five are learnt."""

    def make(count: int, seed: int = 0) -> Dataset:
        rows = causal_rows(count, seed)
        labels = [[-100] * 7 + list(row)[7:] for row in rows["input_ids"][:]]
        return rows.remove_columns("labels").add_column("labels", labels)

    return make


def run(job: StepJob) -> Any:
    trainer = build_trainer(job)
    trainer.train()
    release(trainer)
    return trainer


def test_the_divergence_is_that_of_the_student_from_the_teacher() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2)."""
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert forward_kl(student, teacher).item() == pytest.approx(wanted)
    assert forward_kl(teacher, student).item() != pytest.approx(wanted)
    assert forward_kl(teacher.repeat(3, 1), teacher.repeat(3, 1)).item() == pytest.approx(0, abs=1e-6)


def test_a_temperature_softens_both_and_keeps_the_size_of_gradients() -> None:
    """At temperature 2, (9/10, 1/10) becomes (3/4, 1/4); the sum is multiplied by 4."""
    teacher, student = torch.tensor([[9.0, 1.0]]).log(), torch.zeros(1, 2)
    wanted = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert forward_kl(student, teacher, 2.0).item() == pytest.approx(wanted)


def test_the_reverse_divergence_is_that_of_the_teacher_from_the_student() -> None:
    """Student (1/2, 1/2), teacher (3/4, 1/4): 1/2 ln(2/3) + 1/2 ln 2."""
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    assert reverse_kl(student, teacher).item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert reverse_kl(student, teacher).item() == pytest.approx(forward_kl(teacher, student).item())


def test_only_marked_positions_go_through_the_head(make_model: Models) -> None:
    model = make_model().eval()
    ids = torch.randint(6, 48, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[0, 2] = mask[2, 6] = True
    with torch.no_grad():
        whole = model(ids).logits
        with logits_where(model, mask):
            assert torch.allclose(model(ids).logits, whole[mask], atol=1e-6)
        assert model(ids).logits.shape == whole.shape


def test_the_loss_is_the_mean_over_supervised_tokens(
    make_model: Models, teacher: Any, half_learnt: Rows, make_job: Jobs
) -> None:
    student, rows = build_draft(teacher, DraftShape(), 1), half_learnt(4)
    with torch.no_grad():
        parts = []
        for row in rows:
            given = {name: torch.tensor([row[name]]) for name in ("input_ids", "position_ids")}
            own, wanted = (model(**given, use_cache=False).logits.log_softmax(-1) for model in (student, teacher))
            # Positions 6 to 10 predict the tokens 7 to 11, which are learnt.
            parts.append((wanted.exp() * (wanted - own)).sum(-1)[0, 6:11])
        expected = torch.cat(parts).mean().item()
    job = make_job(student, rows, {"steps": 1, "rows": 4, "objective": "draft"}, objective="draft", reference=teacher)
    trainer = run(job)
    assert trainer.state.log_history[0]["loss/task"] == pytest.approx(expected, rel=1e-4)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_accumulation_does_not_change_what_is_learnt(teacher: Any, half_learnt: Rows, make_job: Jobs) -> None:
    found = []
    for accumulate in (1, 4):
        student, watch = build_draft(teacher, DraftShape(hidden_size=8), 1), Watch()
        section = {"steps": 2, "rows": 8, "accumulate": accumulate, "objective": "draft"}
        job = make_job(student, half_learnt(16), section, objective="draft", reference=teacher, callbacks=[watch])
        run(job)
        found.append(watch.gradients)
    for one, other in zip(*found, strict=True):
        for name, gradient in one.items():
            assert torch.allclose(gradient, other[name], atol=1e-6, rtol=1e-4), name


def test_the_student_learns_and_the_teacher_stays(teacher: Any, half_learnt: Rows, make_job: Jobs) -> None:
    before = trunk_digest(teacher)
    student = build_draft(teacher, DraftShape(), 1)
    section = {"steps": 40, "rows": 8, "learning_rate": 1e-2, "weight_decay": 0.0, "objective": "draft"}
    history = run(make_job(student, half_learnt(320), section, objective="draft", reference=teacher)).state.log_history
    losses = [row["loss/task"] for row in history if "loss/task" in row]
    assert losses[-1] < 0.6 * losses[0]
    assert trunk_digest(teacher) == before and not teacher.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.get_output_embeddings()._forward_pre_hooks


def test_any_student_of_the_same_vocabulary_can_learn(teacher: Any, half_learnt: Rows, make_job: Jobs) -> None:
    config = Qwen3Config(
        vocab_size=48, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8,
        num_key_value_heads=2, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    student = Qwen3ForCausalLM(config)
    section = {"steps": 20, "rows": 8, "learning_rate": 1e-2, "objective": "draft"}
    history = run(make_job(student, half_learnt(160), section, objective="draft", reference=teacher)).state.log_history
    losses = [row["loss/task"] for row in history if "loss/task" in row]
    assert losses[-1] < losses[0]


def test_a_teacher_of_another_vocabulary_is_refused(
    make_model: Models, teacher: Any, half_learnt: Rows, make_job: Jobs
) -> None:
    other = make_model(vocab_size=50)
    job = make_job(build_draft(teacher, DraftShape(), 1), half_learnt(4), {"steps": 1, "rows": 4}, objective="draft")
    with pytest.raises(ConfigError, match="the teacher speaks 50 tokens and the student 48"):
        build_trainer(replace(job, reference=other))
    with pytest.raises(ConfigError, match="needs a teacher"):
        build_trainer(job)


@pytest.mark.parametrize("direction,share", [("forward", 0.5), ("reverse", 0.25), ("forward", 0.0), ("reverse", 1.0)])
def test_a_distill_step_mixes_the_divergence_with_the_cross_entropy(
    direction: str, share: float, make_model: Models, teacher: Any, half_learnt: Rows, make_job: Jobs
) -> None:
    student, rows = make_model(seed=5), half_learnt(4)
    with torch.no_grad():
        divergences, entropies = [], []
        for row in rows:
            given = {name: torch.tensor([row[name]]) for name in ("input_ids", "position_ids")}
            own, wanted = (model(**given, use_cache=False).logits.log_softmax(-1)[0] for model in (student, teacher))
            one, other = (wanted, own) if direction == "forward" else (own, wanted)
            divergences.append((one.exp() * (one - other)).sum(-1)[6:11])
            entropies.append(-own[torch.arange(6, 11), torch.tensor(row["input_ids"][7:])])
        expected = share * torch.cat(divergences).mean() + (1 - share) * torch.cat(entropies).mean()
    options = {"direction": direction, "share": share}
    section = {"steps": 1, "rows": 4, "objective": "distill", "options": options}
    trainer = run(make_job(student, rows, section, objective="distill", reference=teacher))
    assert trainer.state.log_history[0]["loss/task"] == pytest.approx(expected.item(), rel=1e-4)


def test_a_distill_step_does_not_depend_on_accumulation(
    make_model: Models, teacher: Any, half_learnt: Rows, make_job: Jobs
) -> None:
    found = []
    for accumulate in (1, 4):
        watch = Watch()
        section = {"steps": 2, "rows": 8, "accumulate": accumulate, "objective": "distill"}
        job = make_job(
            make_model(), half_learnt(16), section, objective="distill", reference=teacher, callbacks=[watch]
        )
        run(job)
        found.append(watch.gradients)
    for one, other in zip(*found, strict=True):
        for name, gradient in one.items():
            assert torch.allclose(gradient, other[name], atol=1e-6, rtol=1e-3), name

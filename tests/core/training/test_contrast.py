"""The contrast trainer: both answers of a row in one batch, terms over rows, and what stays frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from phasegate.core.config.schema import ReplaySection
from phasegate.core.training.contrast import PairCollator
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from phasegate.core.training.terms import LossSetup, WeightedLoss
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, TrainerCallback

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]
Jobs = Callable[..., StepJob]
Losses = Callable[..., tuple[WeightedLoss, ...]]
Replays = Callable[[int, int], Any]

KINDS = ("benign", "general", "harmful", "medical")
TOKENS = List(Value("int32"))
FEATURES = Features(
    {
        **dict.fromkeys(("input_ids", "assistant_masks", "rejected_ids", "rejected_masks"), TOKENS),
        "domain": Value("int64"),
        "kind": ClassLabel(names=list(KINDS)),
    }
)


class Watch(TrainerCallback):
    """Keeps the gradients of every optimiser step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def contrast_rows(count: int, kinds: Sequence[str] = KINDS, seed: int = 0) -> Dataset:
    """Rows of the kinds in turn; every third has no rejected answer; answers of one to five tokens."""
    random = np.random.default_rng(seed)

    def say(tokens: list[int], spoken: int) -> tuple[list[int], list[int]]:
        answer = random.integers(6, 48, spoken).tolist()
        return [*tokens, *answer], [0] * len(tokens) + [1] * spoken

    columns: dict[str, list[Any]] = {name: [] for name in FEATURES}
    for number in range(count):
        prompt = random.integers(6, 48, int(random.integers(3, 8))).tolist()
        said = say(prompt, int(random.integers(1, 6)))
        unsaid = ([], []) if number % 3 == 2 else say(prompt, int(random.integers(1, 6)))
        values = (*said, *unsaid, int(random.integers(0, 3)), KINDS.index(kinds[number % len(kinds)]))
        for name, value in zip(FEATURES, values, strict=True):
            columns[name].append(value)
    return Dataset.from_dict(columns, features=FEATURES)


@pytest.fixture
def safety_losses(domains: tuple[str, ...]) -> Losses:
    """The three terms of the safety loss, through the registry."""

    def make(model: PreTrainedModel, **weights: float) -> tuple[WeightedLoss, ...]:
        setup = LossSetup(model=model, domains=domains, experts=4, top_k=2, layers=2, world_size=1, accumulate=1)
        registry = Plugins.load(()).components()
        chosen = weights or {"harm_avoidance": 1.0, "over_refusal": 1.0, "domain_helpfulness": 0.5}
        return tuple(
            WeightedLoss(
                name=name.replace("_", "-"),
                loss=registry.build("loss", name.replace("_", "-"), {}, setup=setup),
                weight=weight,
                options={},
            )
            for name, weight in chosen.items()
        )

    return make


def _run(job: StepJob) -> Any:
    trainer = build_trainer(job)
    trainer.train()
    release(trainer)
    return trainer


def _mean_log_probability(model: PreTrainedModel, ids: Sequence[int], spoken: Sequence[int]) -> float:
    with torch.no_grad():
        logs = model(torch.tensor([list(ids)]))["logits"][0].log_softmax(-1)
    places = [place for place, flag in enumerate(spoken) if flag]
    return float(sum(logs[place - 1, ids[place]] for place in places) / len(places))


def test_the_collator_puts_what_should_not_be_said_behind_what_should() -> None:
    rows = [
        {"input_ids": [7, 8, 9], "assistant_masks": [0, 1, 1], "rejected_ids": [], "rejected_masks": [],
         "domain": 2, "kind": 3},
        {"input_ids": [7, 6], "assistant_masks": [0, 1], "rejected_ids": [7, 5, 4, 3], "rejected_masks": [0, 0, 1, 1],
         "domain": -1, "kind": 0},
    ]  # fmt: skip
    batch = {name: value.tolist() for name, value in PairCollator(pad=0)(rows).items()}
    assert batch["input_ids"] == [[7, 8, 9, 0], [7, 6, 0, 0], [7, 5, 4, 3]]
    assert batch["attention_mask"] == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["labels"] == [[8, 9], [6, -100], [4, 3]]
    assert batch["places"] == [[0, 1], [0, 0], [1, 2]]
    assert (batch["domain"], batch["kind"], batch["other"]) == ([2, -1, -1], [3, 0], [-1, 2])


def test_the_task_is_the_mean_over_general_rows_of_the_loss_per_token(make_model: Models, make_job: Jobs) -> None:
    rows, model = contrast_rows(8), make_model()
    general = [row for row in rows if row["kind"] == KINDS.index("general")]
    expected = [-_mean_log_probability(model, row["input_ids"], row["assistant_masks"]) for row in general]
    logs = _run(make_job(model, rows, {"steps": 1, "rows": 8}, objective="contrast")).state.log_history
    assert logs[0]["loss/task"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_task_can_be_a_mean_over_other_kinds(make_model: Models, make_job: Jobs) -> None:
    rows, model = contrast_rows(8), make_model()
    wanted = [row for row in rows if row["kind"] != KINDS.index("harmful")]
    expected = [-_mean_log_probability(model, row["input_ids"], row["assistant_masks"]) for row in wanted]
    section = {"steps": 1, "rows": 8, "options": {"task": ["benign", "general", "medical"]}}
    logs = _run(make_job(model, rows, section, objective="contrast")).state.log_history
    assert logs[0]["loss/task"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_without_general_rows_the_task_is_nothing_and_terms_train_alone(
    make_model: Models, make_job: Jobs, safety_losses: Losses
) -> None:
    rows, model = contrast_rows(4, ("harmful", "benign")), make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    job = make_job(
        model, rows, {"steps": 1, "rows": 4, "learning_rate": 0.01}, objective="contrast", losses=safety_losses(model)
    )
    logs = _run(job).state.log_history
    assert logs[0]["loss/task"] == 0.0
    assert logs[0]["loss/domain-helpfulness"] == 0.0
    assert logs[0]["loss/harm-avoidance"] > 0.0
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_terms_are_means_over_their_rows_and_weighted_as_they_say(
    make_model: Models, make_job: Jobs, safety_losses: Losses
) -> None:
    rows, model = contrast_rows(8), make_model()
    professional = [row for row in rows if row["kind"] == KINDS.index("medical")]
    expected = [-_mean_log_probability(model, row["input_ids"], row["assistant_masks"]) for row in professional]
    losses = safety_losses(model, domain_helpfulness=0.5, over_refusal=0.0)
    section = {"steps": 1, "rows": 8, "accumulate": 2}
    log = _run(make_job(model, rows, section, objective="contrast", losses=losses)).state.log_history[0]
    assert log["loss/domain-helpfulness"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert log["loss/domain-helpfulness/weighted"] == pytest.approx(0.5 * log["loss/domain-helpfulness"])
    assert (log["loss/over-refusal"] > 0, log["loss/over-refusal/weighted"]) == (True, 0.0)
    assert log["loss"] == pytest.approx(log["loss/task"] + log["loss/domain-helpfulness/weighted"], rel=1e-5)


@pytest.mark.parametrize("routing", ["all", "replayed"])
def test_one_batch_equals_eight_micro_batches(
    make_model: Models,
    make_job: Jobs,
    make_losses: Losses,
    safety_losses: Losses,
    make_replay: Replays,
    routing: str,
) -> None:
    """A micro-batch may hold rows of one kind only, none with a second answer, or no replayed row at all."""
    replayed = 3 if routing == "replayed" else 9
    runs = []
    for accumulate in (1, 8):
        model, watch = make_model(), Watch()
        section = {
            "steps": 2,
            "rows": 16,
            "accumulate": accumulate,
            "replay": ReplaySection(rows=replayed, weight=0.5, routing=routing),  # type: ignore[arg-type]
        }
        losses = (*safety_losses(model), *make_losses(model))
        replay = make_replay(replayed, accumulate)
        job = make_job(
            model, contrast_rows(32), section, objective="contrast", losses=losses, replay=replay, callbacks=[watch]
        )
        runs.append((watch.gradients, _run(job).state.log_history))
    (whole, whole_log), (split, split_log) = runs
    for name, gradient in whole[0].items():
        torch.testing.assert_close(split[0][name], gradient, rtol=1e-3, atol=1e-6)
    for first, second in zip(whole_log[:2], split_log[:2], strict=True):
        for key, value in first.items():
            if key.startswith(("loss", "router", "grad_norm")):
                assert second[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def test_routing_terms_count_both_answers_or_the_replayed_rows_alone(
    make_model: Models, make_job: Jobs, make_replay: Replays
) -> None:
    rows = contrast_rows(4)
    section: dict[str, Any] = {"steps": 1, "rows": 4}
    trainer = _run(make_job(make_model(), rows, section, objective="contrast"))
    tokens = sum(len(ids) for column in ("input_ids", "rejected_ids") for ids in rows[column])
    assert trainer.statistics.last_counts.sum() == 2 * 2 * tokens  # layers, top-k
    section["replay"] = ReplaySection(rows=3, weight=0.25, routing="replayed")
    trainer = _run(make_job(make_model(), rows, section, objective="contrast", replay=make_replay(3, 1)))
    replayed = make_replay(3, 1).batch(0, 0, 0, 1)["attention_mask"].sum(1).tolist()
    assert trainer.statistics.last_counts[0].sum(-1).tolist() == [*(2 * count for count in replayed), 0]


def test_the_frozen_router_and_experts_keep_their_bits(
    make_model: Models, make_job: Jobs, make_losses: Losses, safety_losses: Losses, make_replay: Replays
) -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    section = {
        "steps": 3,
        "rows": 8,
        "learning_rate": 0.02,
        "weight_decay": 0.1,
        "freeze": ("router", "experts[0-2]"),
        "replay": ReplaySection(rows=3, weight=0.5, routing="replayed"),
    }
    losses = (*safety_losses(model), *make_losses(model, domain_entropy=1.0))
    job = make_job(model, contrast_rows(24), section, objective="contrast", losses=losses, replay=make_replay(3, 1))
    _run(job)
    for name, value in model.state_dict().items():
        if "mlp.gate." in name:
            assert torch.equal(value, before[name]), name
        elif "experts" in name:
            assert torch.equal(value[:3], before[name][:3]), name
            assert not torch.equal(value[3], before[name][3]), name
        elif "norm" not in name:
            assert not torch.equal(value, before[name]), name


def test_evaluation_sees_the_task_alone(make_model: Models, make_job: Jobs, safety_losses: Losses) -> None:
    rows, model = contrast_rows(8), make_model()
    losses = safety_losses(model, harm_avoidance=100.0)
    job = make_job(model, rows, {"steps": 1, "rows": 8}, objective="contrast", heldout=rows, losses=losses)
    trainer = build_trainer(job)
    general = [row for row in rows if row["kind"] == KINDS.index("general")]
    model.eval()
    expected = [-_mean_log_probability(model, row["input_ids"], row["assistant_masks"]) for row in general]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    release(trainer)


def test_terms_over_pairs_are_refused_where_rows_have_one_answer(
    make_model: Models, chat_rows: Rows, make_job: Jobs, safety_losses: Losses
) -> None:
    model = make_model()
    job = make_job(model, chat_rows(4), {"steps": 1, "rows": 4}, objective="sft", losses=safety_losses(model))
    with pytest.raises(
        ConfigError, match=r"'harm-avoidance' compares .* a sft step does not know; use it in a contrast"
    ):
        build_trainer(job)


def test_a_model_without_routers_learns_the_terms_over_pairs(make_job: Jobs, safety_losses: Losses) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=48,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    job = make_job(model, contrast_rows(16), {"steps": 2, "rows": 8}, objective="contrast", losses=safety_losses(model))
    logs = _run(job).state.log_history
    assert logs[0]["loss/harm-avoidance"] > 0.0
    assert not any(key.startswith("router") for key in logs[0])


def test_it_trains_under_bf16_autocast(
    make_model: Models, make_job: Jobs, make_losses: Losses, safety_losses: Losses, make_replay: Replays
) -> None:
    values = []
    for precision in ("fp32", "bf16"):
        model = make_model()
        job = make_job(
            model,
            contrast_rows(16),
            {"steps": 2, "rows": 8, "replay": ReplaySection(rows=3, weight=0.5, routing="replayed")},
            objective="contrast",
            losses=(*safety_losses(model), *make_losses(model)),
            replay=make_replay(3, 1),
            precision=precision,
        )
        values.append(_run(job).state.log_history[0])
    for key in ("loss/task", "loss/harm-avoidance", "loss/over-refusal", "loss/domain-helpfulness"):
        assert values[1][key] == pytest.approx(values[0][key], rel=0.05), key
        assert values[1][key] != values[0][key], key


def test_a_resumed_step_ends_in_the_same_bits(
    make_model: Models, make_job: Jobs, make_losses: Losses, safety_losses: Losses, make_replay: Replays
) -> None:
    section = {"steps": 4, "rows": 8, "accumulate": 2, "replay": ReplaySection(rows=5, weight=0.5, routing="replayed")}
    ends = []
    for resume in (False, True):
        model = make_model(seed=int(resume))
        job = make_job(
            model,
            contrast_rows(32),
            section,
            objective="contrast",
            losses=(*safety_losses(model), *make_losses(model)),
            replay=make_replay(5, 2),
            save_steps=2,
        )
        trainer = build_trainer(job)
        trainer.train(resume_from_checkpoint=str(job.folder / "checkpoint-2") if resume else None)
        release(trainer)
        ends.append({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(ends[1][name], value) for name, value in ends[0].items())

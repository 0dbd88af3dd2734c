"""The trainers over trl: supervised tokens, replay, preferences, and what they leave on the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import huggingface_hub
import pytest
import torch
import torch.distributed as dist
from datasets import Dataset
from phasegate.core.config.schema import ReplaySection
from phasegate.core.training.collating import ChatCollator
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import frozen_copy, release, reshard
from phasegate.core.training.terms import WeightedLoss
from phasegate.registry.errors import ConfigError, DataError
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainerCallback

Models = Callable[..., PreTrainedModel]
Rows = Callable[..., Dataset]
Jobs = Callable[..., StepJob]
Losses = Callable[..., tuple[WeightedLoss, ...]]
Replays = Callable[[int, int], Any]


class Watch(TrainerCallback):
    """Keeps the gradients of every optimiser step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def _run(job: StepJob) -> Any:
    trainer = build_trainer(job)
    trainer.train()
    release(trainer)
    return trainer


def test_only_the_assistants_tokens_are_supervised() -> None:
    rows = [
        {"input_ids": [7, 8, 9, 10], "assistant_masks": [0, 0, 1, 1], "domain": 2},
        {"input_ids": [7, 8], "assistant_masks": [0, 1], "domain": -1},
    ]
    batch = ChatCollator(pad=0)(rows)
    assert batch["input_ids"].tolist() == [[7, 8, 9, 10], [7, 8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 9, 10], [-100, 8, -100, -100]]
    assert batch["domain"].tolist() == [2, -1]


def test_a_batch_without_assistant_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="no assistant token to learn from"):
        ChatCollator(pad=0)([{"input_ids": [7, 8], "assistant_masks": [0, 0], "domain": 0}])


def test_the_sft_loss_is_the_mean_over_supervised_tokens(make_model: Models, chat_rows: Rows, make_job: Jobs) -> None:
    rows = chat_rows(4)
    batch = ChatCollator(pad=0)([rows[i] for i in range(4)])
    model = make_model()
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"])["logits"][:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
    logs = _run(make_job(model, rows, {"steps": 1, "rows": 4}, objective="sft")).state.log_history
    assert logs[0]["loss/task"] == pytest.approx(float(expected), rel=1e-5)


def test_router_terms_reach_the_router_under_trls_own_head(
    make_model: Models, chat_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    gradients = []
    for weight in (0.0, 10.0):
        model, watch = make_model(), Watch()
        losses = make_losses(model, z=weight)
        _run(make_job(model, chat_rows(4), {"steps": 1, "rows": 4}, objective="sft", losses=losses, callbacks=[watch]))
        gradients.append(watch.gradients[0]["model.layers.1.mlp.gate.weight"])
    assert not torch.allclose(*gradients)


def test_padding_is_counted_nowhere(make_model: Models, chat_rows: Rows, make_job: Jobs) -> None:
    rows = chat_rows(4)
    trainer = _run(make_job(make_model(), rows, {"steps": 1, "rows": 4}, objective="sft"))
    tokens = sum(len(ids) for ids in rows["input_ids"])
    assert trainer.statistics.last_counts.sum() == 2 * 2 * tokens  # layers, top-k


@pytest.mark.parametrize("routing", ["all", "replayed"])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_accumulation_changes_nothing_with_replay_and_padding(
    make_model: Models,
    chat_rows: Rows,
    pair_rows: Rows,
    make_job: Jobs,
    make_losses: Losses,
    make_replay: Replays,
    objective: str,
    routing: str,
) -> None:
    rows = chat_rows(8) if objective == "sft" else pair_rows(8)
    # Over four micro-batches: seven rows leave one of them a row short, three leave one without any.
    rows_replayed = 7 if routing == "all" else 3
    runs = []
    for accumulate in (1, 4):
        model, watch = make_model(), Watch()
        job = make_job(
            model,
            rows,
            {"steps": 2, "rows": 4, "accumulate": accumulate, "replay": _replay_section(rows_replayed, 0.5, routing)},
            objective=objective,
            losses=make_losses(model),
            replay=make_replay(rows_replayed, accumulate),
            reference=frozen_copy(make_model(seed=1)) if objective == "dpo" else None,
            callbacks=[watch],
        )
        runs.append((watch.gradients, _run(job).state.log_history))
    (whole, whole_log), (split, split_log) = runs
    for name, gradient in whole[0].items():
        torch.testing.assert_close(split[0][name], gradient, rtol=1e-3, atol=1e-6)
    for key, value in whole_log[1].items():
        if key.startswith(("loss", "router")):
            assert split_log[1][key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def _replay_section(rows: int, weight: float, routing: str = "all") -> ReplaySection:
    return ReplaySection(rows=rows, weight=weight, routing=routing)


def test_replay_adds_its_language_loss_by_weight(
    make_model: Models, chat_rows: Rows, make_job: Jobs, make_replay: Replays
) -> None:
    model, stream = make_model(), make_replay(3, 1)
    batch = stream.batch(0, 0, 0, 1)
    inputs = {key: value for key, value in batch.items() if key != "domain"}
    with torch.no_grad():
        expected = float(model(**inputs, use_cache=False)["loss"])
    section = {"steps": 1, "rows": 4, "replay": _replay_section(3, 0.25)}
    logs = _run(make_job(model, chat_rows(4), section, objective="sft", replay=stream)).state.log_history[0]
    assert logs["loss/replay"] == pytest.approx(expected, rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["loss/task"] + 0.25 * expected, rel=1e-5)


def test_replayed_rows_bring_their_domains_to_the_routing_terms(
    make_model: Models, chat_rows: Rows, make_job: Jobs, make_replay: Replays
) -> None:
    rows = chat_rows(4).remove_columns("domain")
    section = {"steps": 1, "rows": 4, "replay": _replay_section(3, 0.25)}
    trainer = _run(make_job(make_model(), rows, section, objective="sft", replay=make_replay(3, 1)))
    replayed = make_replay(3, 1).batch(0, 0, 0, 1)["attention_mask"].sum(1).tolist()
    assert trainer.statistics.last_counts[0].sum(-1).tolist() == [
        *(2 * tokens for tokens in replayed),
        2 * sum(len(ids) for ids in rows["input_ids"]),
    ]


def test_routing_terms_can_be_held_to_replayed_rows(
    make_model: Models, chat_rows: Rows, make_job: Jobs, make_replay: Replays
) -> None:
    section = {"steps": 1, "rows": 4, "replay": _replay_section(3, 0.25, "replayed")}
    trainer = _run(make_job(make_model(), chat_rows(4), section, objective="sft", replay=make_replay(3, 1)))
    replayed = make_replay(3, 1).batch(0, 0, 0, 1)["attention_mask"].sum(1).tolist()
    assert trainer.statistics.last_counts[0].sum(-1).tolist() == [*(2 * tokens for tokens in replayed), 0]


def test_too_few_replayed_rows_for_the_processes_are_refused(
    make_model: Models, chat_rows: Rows, make_job: Jobs, make_replay: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    section = {"steps": 1, "rows": 4, "accumulate": 2, "replay": _replay_section(3, 0.25, "replayed")}
    job = make_job(make_model(), chat_rows(4), section, objective="sft", replay=make_replay(3, 2))
    with pytest.raises(ConfigError, match=r"3 rows are dealt to 2 processes x accumulate 2; raise replay.rows to 4"):
        build_trainer(job)


def test_the_first_dpo_loss_is_the_logarithm_of_two(make_model: Models, pair_rows: Rows, make_job: Jobs) -> None:
    logs = _run(make_job(make_model(), pair_rows(4), {"steps": 1, "rows": 4}, objective="dpo")).state.log_history
    assert logs[0]["loss/task"] == pytest.approx(0.693147, abs=1e-5)  # policy equals reference


def test_the_nll_option_adds_the_chosen_answers_cross_entropy(
    make_model: Models, pair_rows: Rows, make_job: Jobs
) -> None:
    losses = []
    for nll in (0.0, 1.0):
        section = {"steps": 1, "rows": 4, "options": {"beta": 0.1, "nll": nll}}
        logs = _run(make_job(make_model(), pair_rows(4), section, objective="dpo")).state.log_history
        losses.append(logs[0]["loss/task"])
    assert losses[1] - losses[0] > 1.0


def test_the_reference_model_is_neither_trained_nor_counted(
    make_model: Models, pair_rows: Rows, make_job: Jobs
) -> None:
    rows, reference = pair_rows(4), frozen_copy(make_model())
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    section = {"steps": 1, "rows": 4, "learning_rate": 0.1}
    trainer = _run(make_job(make_model(), rows, section, objective="dpo", reference=reference))
    assert all(torch.equal(before[name], value) for name, value in reference.state_dict().items())
    tokens = sum(trainer.train_dataset[i][f"{side}_ids"].__len__() for i in range(4) for side in ("chosen", "rejected"))
    tokens += 2 * sum(len(trainer.train_dataset[i]["prompt_ids"]) for i in range(4))
    assert trainer.statistics.last_counts.sum() == 2 * 2 * tokens
    assert "forward" not in reference.__dict__


def test_prompts_that_leave_no_room_are_refused(make_model: Models, pair_rows: Rows, make_job: Jobs) -> None:
    with pytest.raises(DataError, match="preference rows have prompts of 5 tokens or more"):
        build_trainer(make_job(make_model(), pair_rows(8), {"steps": 2, "rows": 4}, objective="dpo", length=5))


def test_an_unknown_dpo_option_names_the_nearest(make_model: Models, pair_rows: Rows, make_job: Jobs) -> None:
    section = {"steps": 1, "rows": 4, "options": {"beat": 0.1}}
    with pytest.raises(ConfigError, match=r"a dpo step has no option 'beat'\. Did you mean 'beta'"):
        build_trainer(make_job(make_model(), pair_rows(4), section, objective="dpo"))


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_a_released_model_can_be_copied(
    make_model: Models, chat_rows: Rows, pair_rows: Rows, make_job: Jobs, objective: str
) -> None:
    model = make_model(output_router_logits=True, router_aux_loss_coef=0.5)
    flags = {key: getattr(model.config, key) for key in ("use_cache", "output_router_logits", "router_aux_loss_coef")}
    rows = chat_rows(4) if objective == "sft" else pair_rows(4)
    section = {"steps": 1, "rows": 4, "freeze": ("router",), "activation_checkpointing": True}
    _run(make_job(model, rows, section, objective=objective))
    assert {key: getattr(model.config, key) for key in flags} == flags
    assert not model.is_activation_checkpointing
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    assert not any("RouterCapture" in hook.__qualname__ for hook in hooks)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        # A patched forward would still compute with the original's weights.
        assert twin(torch.arange(6, 10)[None])["logits"].abs().sum() == 0.0


def test_a_patched_model_is_not_copied_as_a_reference(make_model: Models, chat_rows: Rows, make_job: Jobs) -> None:
    model = make_model()
    trainer = build_trainer(make_job(model, chat_rows(4), {"steps": 1, "rows": 4}, objective="sft"))
    with pytest.raises(ConfigError, match="forward is patched by an earlier step"):
        frozen_copy(model)
    release(trainer)
    assert not any(parameter.requires_grad for parameter in frozen_copy(model).parameters())


def test_steps_of_all_kinds_follow_each_other_on_one_model(
    make_model: Models, causal_rows: Rows, chat_rows: Rows, pair_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    model = make_model()
    kinds = (("causal", causal_rows), ("sft", chat_rows), ("dpo", pair_rows), ("causal", causal_rows))
    for objective, rows in kinds:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        section = {"steps": 2, "rows": 4, "learning_rate": 0.01}
        _run(make_job(model, rows(8), section, objective=objective, losses=make_losses(model)))
        assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_trl_evaluates_the_task_loss_alone(
    make_model: Models, pair_rows: Rows, make_job: Jobs, make_losses: Losses
) -> None:
    model, rows = make_model(), pair_rows(4)
    losses = make_losses(model, balance=100.0)
    trainer = build_trainer(
        make_job(model, rows, {"steps": 1, "rows": 4}, objective="dpo", heldout=rows, losses=losses)
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(0.693147, abs=1e-5)
    release(trainer)


def test_no_telemetry_is_sent(make_model: Models, chat_rows: Rows, make_job: Jobs) -> None:
    release(build_trainer(make_job(make_model(), chat_rows(4), {"steps": 1, "rows": 4}, objective="sft")))
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY is True


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_trls_own_defaults_do_not_leak_in(
    make_model: Models, chat_rows: Rows, pair_rows: Rows, make_job: Jobs, objective: str
) -> None:
    rows = chat_rows(4) if objective == "sft" else pair_rows(4)
    trainer = build_trainer(make_job(make_model(), rows, {"steps": 1, "rows": 4}, objective=objective))
    args = trainer.args
    release(trainer)
    assert (args.bf16, args.activation_checkpointing, args.report_to) == (False, False, [])
    assert args.train_sampling_strategy == "sequential"


def test_a_tokenizer_without_padding_is_refused(make_model: Models, chat_rows: Rows, make_job: Jobs) -> None:
    job = make_job(make_model(), chat_rows(4), {"steps": 1, "rows": 4}, objective="sft", tokenizer=None)
    with pytest.raises(ConfigError, match="no padding token"):
        build_trainer(job)


def test_modules_left_whole_are_sharded_again() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = torch.nn.Sequential(torch.nn.Linear(4, 4))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)), reshard_after_forward=False)
        with torch.no_grad():
            model(torch.zeros(1, 4))
        left_whole = not isinstance(model[0].weight, DTensor)
        reshard(model)
        assert left_whole
        assert isinstance(model[0].weight, DTensor)
    finally:
        dist.destroy_process_group()

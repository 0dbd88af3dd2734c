"""What trains and what keeps its bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from phasegate.core.model.parameters import roles_of
from phasegate.core.training.freezing import freeze, matching, parameter_groups
from phasegate.core.training.job import StepJob, build_trainer
from phasegate.core.training.release import release
from phasegate.registry.errors import ConfigError
from transformers import PreTrainedModel

Models = Callable[..., PreTrainedModel]


def _trained(
    model: PreTrainedModel, rows: Dataset, make_job: Callable[..., StepJob], **section: Any
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    job = make_job(model, rows, {"steps": 3, "rows": 4, "learning_rate": 0.01, **section})
    trainer = build_trainer(job)
    trainer.train()
    release(trainer)
    return before, dict(model.named_parameters())


def test_frozen_roles_keep_their_bits_and_all_others_move(
    make_model: Models, causal_rows: Callable[..., Dataset], make_job: Callable[..., StepJob]
) -> None:
    model = make_model()
    roles = roles_of(model)
    before, after = _trained(model, causal_rows(12), make_job, freeze=("router", "norm"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name, role in roles.items() if role not in ("router", "norm")}


def test_a_frozen_slice_of_experts_keeps_its_bits(
    make_model: Models, causal_rows: Callable[..., Dataset], make_job: Callable[..., StepJob]
) -> None:
    model = make_model()
    before, after = _trained(model, causal_rows(12), make_job, freeze=("experts[0-2]",), weight_decay=0.5)
    name = "model.layers.0.mlp.experts.down_proj"
    assert torch.equal(before[name][:3], after[name][:3])
    assert not torch.equal(before[name][3], after[name][3])


def test_trunk_is_all_but_experts_router_and_probes(make_model: Models) -> None:
    model = make_model()
    roles = roles_of(model)
    names = matching(model, "trunk", roles)
    assert {roles[name] for name in names} == {"attention", "embedding", "norm"}


def test_a_pattern_may_be_a_parameter_name(make_model: Models) -> None:
    model = make_model()
    trainable = freeze(model, ["model.layers.0.*"])
    assert not model.get_parameter("model.layers.0.mlp.gate.weight").requires_grad
    assert model.get_parameter("model.layers.1.mlp.gate.weight").requires_grad
    trainable.restore()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_restoring_keeps_what_was_frozen_before(make_model: Models) -> None:
    model = make_model()
    model.lm_head.weight.requires_grad_(False)
    freeze(model, ["router"]).restore()
    assert not model.lm_head.weight.requires_grad
    assert model.get_parameter("model.layers.1.mlp.gate.weight").requires_grad


def test_an_unknown_pattern_names_the_nearest(make_model: Models) -> None:
    with pytest.raises(ConfigError, match=r"'routers' matches no role .* did you mean 'router'"):
        freeze(make_model(), ["routers"])


def test_an_expert_that_does_not_exist_is_refused(make_model: Models) -> None:
    with pytest.raises(ConfigError, match=r"names expert 8, but .* has experts 0 to 3"):
        freeze(make_model(), ["experts[0-8]"])


def test_freezing_everything_is_refused(make_model: Models) -> None:
    with pytest.raises(ConfigError, match=r"nothing .* to train"):
        freeze(make_model(), ["*"])


def _rates(model: PreTrainedModel, scales: dict[str, float], decayed: list[str]) -> dict[int, tuple[float, float]]:
    groups: Any = parameter_groups(model, freeze(model, []), scales, decayed, 0.1, 0.5)
    return {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_learning_rates_scale_by_role_and_later_patterns_win(make_model: Models) -> None:
    model = make_model()
    rates = _rates(model, {"trunk": 0.3, "norm": 1.0, "router": 2.0}, [])
    get = model.get_parameter
    assert rates[id(get("model.layers.0.self_attn.q_proj.weight"))][0] == pytest.approx(0.03)
    assert rates[id(get("model.norm.weight"))][0] == pytest.approx(0.1)
    assert rates[id(get("model.layers.0.mlp.gate.weight"))][0] == pytest.approx(0.2)


def test_the_first_group_has_the_plain_learning_rate(make_model: Models) -> None:
    model = make_model()
    groups: Any = parameter_groups(model, freeze(model, []), {"router": 0.1}, [], 0.1, 0.5)
    assert groups[0]["lr"] == 0.1


def test_a_module_can_exempt_its_parameters_from_weight_decay(make_model: Models) -> None:
    model = make_model()
    router = model.model.layers[0].mlp.gate
    router.no_weight_decay = ("weight",)
    rates = _rates(model, {}, [name for name, _ in model.named_parameters()])
    assert rates[id(router.weight)][1] == 0.0
    assert rates[id(model.model.layers[1].mlp.gate.weight)][1] == 0.5
    assert rates[id(model.model.norm.weight)][1] == 0.0

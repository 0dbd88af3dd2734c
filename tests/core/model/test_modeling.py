from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.configuration import PhasegateMoeConfig
from phasegate.core.model.modeling import PhasegateMoeForCausalLM, PhasegateMoeModel
from phasegate.core.model.parameters import routers_of
from phasegate.core.model.router import RouterBase, RouterContext
from phasegate.registry.components import RouterSpec
from phasegate.registry.current import using
from phasegate.registry.entries import Entry
from phasegate.registry.errors import PluginError
from phasegate.registry.registry import Registry
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.integrations.moe import ExpertsInterface, grouped_mm_experts_forward


class Fixed(RouterBase):
    """A foreign router without parameters: every token goes to the experts 1 and 2."""

    def __init__(self, *, context: RouterContext) -> None:
        super().__init__(context)

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 2.0, 1.0, 0.0, 0.0]).expand(hidden.shape[0], -1)

    def init_weights(self, std: float) -> None:
        pass


class NoRouter(nn.Module):
    def __init__(self, *, context: RouterContext) -> None:
        super().__init__()


def with_router(registry: Registry, name: str, target: Any) -> Registry:
    entry = Entry(dist="other", version="1.0", component=RouterSpec(name=name, target=target))
    return Registry((*registry, entry))


def logits(model: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, **options).logits


def test_the_model_type_is_registered_with_the_auto_classes() -> None:
    config = AutoConfig.for_model(
        "phasegate_moe", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8
    )
    assert type(config) is PhasegateMoeConfig
    with torch.device("meta"):
        assert type(AutoModel.from_config(config)) is PhasegateMoeModel
        assert type(AutoModelForCausalLM.from_config(config)) is PhasegateMoeForCausalLM


def test_the_configuration_names_a_component_and_no_import_path(build: Any, tmp_path: Path) -> None:
    build(gate="normalized").config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["router"] == "phasegate:linear"
    assert written["router_options"] == {"gate": "normalized"}
    assert written["num_local_experts"] == 5
    assert "auto_map" not in written
    assert "experts_implementation" not in json.dumps(written)


def test_experts_run_grouped_by_default(build: Any) -> None:
    assert build().config._experts_implementation == "grouped_mm"


def test_a_registered_experts_implementation_is_really_called(build: Any, ids: torch.Tensor) -> None:
    calls = []

    def counting(self: Any, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        calls.append(index.shape)
        return grouped_mm_experts_forward(self, hidden, index, weights)

    ExpertsInterface.register("counting", counting)
    model = build()
    model.set_experts_implementation("counting")
    logits(model, ids)
    assert calls == [(32, 2), (32, 2)]


@pytest.mark.parametrize("implementation", ["batched_mm", "eager"])
def test_experts_implementations_agree(build: Any, ids: torch.Tensor, implementation: str) -> None:
    grouped, other = build(), build()
    other.set_experts_implementation(implementation)
    assert other.config._experts_implementation == implementation
    torch.testing.assert_close(logits(other, ids), logits(grouped, ids), atol=1e-5, rtol=0)


def test_generation_with_a_cache_equals_generation_without(build: Any, ids: torch.Tensor) -> None:
    model = build()
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, use_cache=True, **options), model.generate(ids, use_cache=False, **options))


def test_the_loss_is_plain_cross_entropy_of_the_next_token(build: Any, ids: torch.Tensor) -> None:
    model = build()
    with torch.no_grad():
        loss = model(ids, labels=ids).loss
    expected = nn.functional.cross_entropy(logits(model, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)


def test_the_librarys_auxiliary_loss_is_off_even_when_routers_are_recorded(build: Any, ids: torch.Tensor) -> None:
    model = build()
    with torch.no_grad():
        recorded = model(ids, labels=ids, output_router_logits=True)
        plain = model(ids, labels=ids)
    assert len(recorded.router_logits) == 2
    assert plain.router_logits is None
    assert torch.equal(recorded.loss, plain.loss)


def test_a_foreign_router_is_built_used_and_recorded(build: Any, registry: Registry, ids: torch.Tensor) -> None:
    config = copy.deepcopy(build().config)
    config.router, config.router_options = "other:fixed", {}
    with using(with_router(registry, "fixed", Fixed)):
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        out = model(ids, output_router_logits=True)
    assert [type(module).__name__ for _, _, module in routers_of(model)] == ["Fixed", "Fixed"]
    assert [tuple(layer.shape) for layer in out.router_logits] == [(32, 5), (32, 5)]


def test_a_router_that_cannot_be_recorded_is_refused(build: Any, registry: Registry) -> None:
    config = copy.deepcopy(build().config)
    config.router, config.router_options = "other:none", {}
    with using(with_router(registry, "none", NoRouter)), pytest.raises(PluginError, match=r"RouterBase"):
        AutoModelForCausalLM.from_config(config)


def test_a_misspelt_router_is_an_error_that_names_the_nearest(build: Any) -> None:
    config = copy.deepcopy(build().config)
    config.router = "phasegate:liner"
    with pytest.raises(PluginError, match=r"liner.*linear"):
        AutoModelForCausalLM.from_config(config)


def test_embeddings_are_tied(build: Any, ids: torch.Tensor) -> None:
    model = build()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "lm_head.weight" not in dict(model.named_parameters())


def test_embeddings_can_be_untied(build: Any) -> None:
    model = build(options={"tie_word_embeddings": False})
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_a_padding_id_in_the_config_changes_no_gradient(build: Any, ids: torch.Tensor) -> None:
    plain = build(options={"tie_word_embeddings": False})
    config = copy.deepcopy(plain.config)
    config.pad_token_id = int(ids[0, 0])
    padded = AutoModelForCausalLM.from_config(config)
    padded.load_state_dict(plain.state_dict())
    for model in (plain, padded):
        model(ids, labels=ids).loss.backward()
    gradients = [model.model.embed_tokens.weight.grad[ids[0, 0]] for model in (plain, padded)]
    assert gradients[0].abs().max() > 0
    assert torch.equal(gradients[0], gradients[1])


def packed(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two documents of 16 tokens in one row, with positions that start again."""
    return ids.reshape(1, 32), torch.arange(16).repeat(2)[None]


def test_packed_documents_do_not_see_each_other_without_a_cache(build: Any, ids: torch.Tensor) -> None:
    model = build()
    row, positions = packed(ids)
    together = logits(model, row, position_ids=positions, use_cache=False)
    torch.testing.assert_close(together.reshape(2, 16, -1), logits(model, ids), atol=1e-5, rtol=0)


def test_packed_documents_leak_with_the_default_cache(build: Any, ids: torch.Tensor) -> None:
    model = build()
    row, positions = packed(ids)
    together = logits(model, row, position_ids=positions).reshape(2, 16, -1)
    assert (together[1] - logits(model, ids)[1]).abs().max() > 1e-2


def test_activation_checkpointing_keeps_the_gradients(build: Any, ids: torch.Tensor) -> None:
    plain, saving = build(), build()
    saving.activation_checkpointing_enable()
    for model in (plain, saving):
        model.train()
        model(ids, labels=ids, use_cache=False).loss.backward()
    for (name, expected), (_, actual) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        assert expected.grad is not None, name
        torch.testing.assert_close(actual.grad, expected.grad, msg=name)


def test_cloned_experts_compute_the_dense_function_only_with_gates_of_sum_one(build: Any, ids: torch.Tensor) -> None:
    def with_clones(gate: str) -> torch.Tensor:
        model = build(gate=gate, num_experts_per_tok=1)
        dense = build(options={"dense_layers": [1]}, num_experts_per_tok=1)
        with torch.no_grad():
            clone, source = model.model.layers[1].mlp.experts, dense.model.layers[1].mlp
            clone.gate_up_proj.copy_(torch.cat([source.gate_proj.weight, source.up_proj.weight]).expand(5, -1, -1))
            clone.down_proj.copy_(source.down_proj.weight.expand(5, -1, -1))
            hidden = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
            return (model.model.layers[1].mlp(hidden) - source(hidden)).abs().max() / source(hidden).abs().max()

    assert with_clones("straight-through") < 1e-5
    assert with_clones("normalized") < 1e-5
    assert with_clones("softmax") > 0.5


def test_weights_start_at_the_configured_spread_and_with_balanced_routers(build: Any) -> None:
    model = build(initializer_range=0.1, hidden_size=64)
    spread = {name: p.detach().std().item() for name, p in model.named_parameters() if p.ndim > 1}
    assert all(math.isclose(value, 0.1, rel_tol=0.2) for value in spread.values()), spread
    assert all(not module.selection_bias.any() for _, _, module in routers_of(model))


def test_evaluation_predictions_are_logits_alone(build: Any, ids: torch.Tensor, tmp_path: Path) -> None:
    model = build()
    model.config.output_router_logits = True
    seen = []
    rows = [{"input_ids": row, "labels": row} for row in ids]
    trainer = Trainer(
        model,
        TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", per_device_eval_batch_size=2),
        eval_dataset=rows,
        compute_metrics=lambda prediction: seen.append(prediction.predictions) or {},
    )
    trainer.evaluate()
    assert [value.shape for value in seen] == [(2, 16, 300)]

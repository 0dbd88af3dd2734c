"""The origin of cloned experts: taken from clones only, and it travels with the model bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.breaking import break_experts
from phasegate.core.model.companions import attach, companions_of
from phasegate.core.model.exporting import export_model
from phasegate.core.model.growing import grow
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.origin import Origin
from phasegate.core.model.parameters import expert_parameters
from phasegate.registry.errors import ConfigError, StoreError
from phasegate.registry.registry import Registry
from torch import nn

FACTS = {"experts": 5, "breaker": "drop", "strength": 0.25, "perplexities": [12.5, 12.5, 12.9]}


@pytest.fixture
def cloned(build: Any) -> Any:
    """A model of three layers, the first of them dense, whose experts are clones."""
    model = build("straight-through", num_experts_per_tok=1, num_hidden_layers=3, options={"dense_layers": (0,)})
    with torch.no_grad():
        for name in expert_parameters(model):
            weight = model.get_parameter(name)
            weight.copy_(weight[:1].expand_as(weight).clone())
    return model


def test_the_centre_of_a_layer_is_what_its_experts_were(cloned: Any) -> None:
    origin = Origin.of(cloned)
    experts = [(layer, cloned.model.layers[layer].mlp.experts) for layer in (1, 2)]
    before = [(layer, one.gate_up_proj[3].clone(), one.down_proj[3].clone()) for layer, one in experts]
    break_experts(cloned, "drop", 0.5, seed=0)
    for layer, gate_up, down in before:
        centre = origin.centre(layer)
        assert centre[0].shape == (32, 32) and centre[1].shape == (32, 16)
        assert torch.equal(centre[0], gate_up)
        assert torch.equal(centre[1], down)


def test_a_layer_without_experts_has_no_centre(cloned: Any) -> None:
    with pytest.raises(ConfigError, match="layer 0 have no origin; it is known of the layers 1, 2"):
        Origin.of(cloned).centre(0)


def test_experts_that_differ_have_no_origin(cloned: Any) -> None:
    break_experts(cloned, "noise", 0.01, seed=0)
    with pytest.raises(ConfigError, match="no clones of each other"):
        Origin.of(cloned)


def test_a_dense_model_has_no_origin() -> None:
    with pytest.raises(ConfigError, match="has no experts"):
        Origin.of(nn.Linear(2, 2))


def test_it_is_read_again_bit_for_bit_with_its_facts(
    cloned: Any, tokenizer: Any, registry: Registry, tmp_path: Path
) -> None:
    origin = replace(Origin.of(cloned), facts=FACTS)
    break_experts(cloned, "noise", 0.01, seed=0)
    attach(cloned, "origin", origin)
    save_model(cloned, tokenizer, tmp_path)
    read = companions_of(load_model(tmp_path, registry))["origin"]
    assert read.facts == FACTS
    assert set(read.save()[1]) == {f"layers.{layer}.{name}" for layer in (1, 2) for name in ("down", "gate_up")}
    for layer in (1, 2):
        for one, other in zip(read.centre(layer), origin.centre(layer), strict=True):
            assert torch.equal(one, other)


def test_it_goes_along_when_the_model_grows_and_stays_behind_when_it_is_exported(
    cloned: Any, tokenizer: Any, registry: Registry, tmp_path: Path
) -> None:
    origin = Origin.of(cloned, FACTS)
    attach(cloned, "origin", origin)
    save_model(grow(cloned, 2, seed=0), tokenizer, tmp_path / "in")
    read = companions_of(load_model(tmp_path / "in", registry))["origin"]
    assert torch.equal(read.centre(2)[1], origin.centre(2)[1])
    export_model(tmp_path / "in", tmp_path / "out", registry)
    assert "origin" not in companions_of(load_model(tmp_path / "out", registry))


def test_the_origin_of_another_model_is_not_restored(cloned: Any, build: Any) -> None:
    facts, tensors = Origin.of(cloned).save()
    for other in (build(num_hidden_layers=3), build(num_hidden_layers=3, moe_intermediate_size=8)):
        with pytest.raises(StoreError, match=r"The origin of the experts has nothing of shape .* another model"):
            Origin.restore(facts, tensors, other, None)

"""Probes say what their formulas say, and decide by what a wrong answer costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.companions import attach, companions_of, trunk_digest
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.probes import Probes, layers_at, normalised
from phasegate.registry.errors import ConfigError

PENALTIES = {"medical": 10.0, "legal": 8.0, "general": 2.0}


def probes(weight: list[list[list[float]]], bias: list[float], **changes: Any) -> Probes:
    settings: dict[str, Any] = {
        "layers": tuple(range(1, 1 + len(bias))),
        "penalties": PENALTIES,
        "position": "both",
        "pool": "mean",
        "trunk": "",
    }
    return Probes(weight=torch.tensor(weight), bias=torch.tensor(bias), **(settings | changes))


def constant(logit: float, **changes: Any) -> tuple[Probes, list[torch.Tensor]]:
    """Probes of one depth that say ``logit`` whatever they read."""
    return probes([[[0.0, 0.0], [0.0, 0.0]]], [logit], **changes), [torch.ones(1, 1, 2)] * 2


def test_states_are_divided_by_their_root_mean_square() -> None:
    assert normalised(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([3 / math.sqrt(12.5), 4 / math.sqrt(12.5)])


def test_no_gradient_goes_into_the_states() -> None:
    states = torch.ones(1, 2, 2, requires_grad=True)
    assert not constant(0.0)[0].read([states, states]).calibrated.requires_grad


def test_an_answer_is_the_mean_of_its_tokens_and_depths() -> None:
    # Normalised states are (1, 1) or (1, -1). Depth 1 reads 2 x at the prompt and y at tokens, depth 2 only its bias.
    found = probes([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]], [0.5, 4.5])
    states = torch.tensor([[[9.0, 9.0], [5.0, 5.0], [5.0, -5.0], [1.0, -1.0]]])
    reading = found.read([states, states, states], start=1, spoken=torch.tensor([[True, True, False]]))
    # Tokens of depth 1: 2 + 1 + 0.5 and 2 - 1 + 0.5, mean 2.5; depth 2: 4.5; together 3.5.
    assert reading.depths.tolist() == [[pytest.approx(2.5), pytest.approx(4.5)]]
    assert float(reading.calibrated) == pytest.approx(1 / (1 + math.exp(-3.5)))
    assert reading.tokens[0, :2].tolist() == pytest.approx([1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-3))])
    assert bool(reading.tokens[0, 2].isnan())


def test_the_last_token_stands_for_the_answer_if_asked_to() -> None:
    found = probes([[[0.0, 0.0], [0.0, 1.0]]], [0.0], pool="last")
    states = torch.tensor([[[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]]])
    spoken = torch.tensor([[True, True, False], [True, True, True]])
    assert found.read([states, states], spoken=spoken).depths[:, 0].tolist() == pytest.approx([-1.0, -1.0])


def test_padding_on_the_left_and_behind_an_answer_changes_nothing() -> None:
    found = probes([[[1.0, 0.0], [0.5, 1.0]]], [0.1])
    answer = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    junk = torch.full((1, 2, 2), 7.0)
    padded = torch.cat([junk, answer, junk], 1)
    spoken = torch.tensor([[True, True, True, False]])
    alone, among = found.read([answer] * 2), found.read([padded] * 2, start=2, spoken=spoken)
    assert torch.equal(alone.calibrated, among.calibrated)
    assert torch.equal(alone.tokens, among.tokens[:, :3])


@pytest.mark.parametrize(("domain", "w"), PENALTIES.items())
def test_inverting_raw_confidence_gives_the_reported_probability(domain: str, w: float) -> None:
    found, states = constant(1.3)
    raw, calibrated = found.confidence(states, domain)
    c = float(raw)
    assert w * c / (1 - c + w * c) == pytest.approx(float(calibrated), rel=1e-6)


@pytest.mark.parametrize(("p", "w", "raw"), [(0.95, 10.0, 0.655), (0.95, 8.0, 0.7037), (0.95, 2.0, 0.9048)])
def test_raw_confidence_is_the_minimiser_of_the_asymmetric_loss(p: float, w: float, raw: float) -> None:
    found, states = constant(math.log(p / (1 - p)), penalties={"any": w})
    assert float(found.confidence(states, "any")[0]) == pytest.approx(raw, abs=5e-4)


@pytest.mark.parametrize(("domain", "threshold"), [("medical", 10 / 11), ("legal", 8 / 9), ("general", 2 / 3)])
def test_an_answer_is_given_above_the_probability_that_its_cost_asks_for(domain: str, threshold: float) -> None:
    for p, given in ((threshold + 0.001, True), (threshold - 0.001, False)):
        found, states = constant(math.log(p / (1 - p)))
        assert bool(found.read(states, domain=domain).answer) is given


def test_without_a_domain_the_strictest_decides() -> None:
    found, states = constant(math.log(0.9 / 0.1))
    assert float(found.read(states).raw) == float(found.read(states, domain="medical").raw)
    assert bool(found.read(states, domain="general").answer)
    assert not bool(found.read(states).answer)


def test_the_reported_probability_needs_no_domain() -> None:
    found, states = constant(0.7)
    assert float(found.read(states).calibrated) == float(found.read(states, domain="general").calibrated)


def test_every_row_may_have_a_domain_of_its_own() -> None:
    found, _ = constant(math.log(0.9 / 0.1))
    states = [torch.ones(2, 1, 2)] * 2
    assert found.read(states, domain=["medical", "general"]).answer.tolist() == [False, True]


def test_an_unknown_domain_names_the_nearest() -> None:
    found, states = constant(0.0)
    with pytest.raises(ConfigError, match=r"know no domain 'medicine'\. Did you mean 'medical'\?"):
        found.read(states, domain="medicine")


def test_the_scale_moves_what_is_reported_and_not_what_is_decided() -> None:
    plain, states = constant(2.0)
    scaled, _ = constant(2.0, scale=0.5, shift=-1.0)
    assert float(scaled.read(states).calibrated) == pytest.approx(0.5)
    assert float(scaled.read(states).raw) == float(plain.read(states).raw)


def test_probes_stand_at_a_third_two_thirds_and_the_end() -> None:
    shares = (1 / 3, 2 / 3, 1.0)
    assert layers_at(shares, 54) == (18, 36, 54)
    assert layers_at(shares, 3) == (1, 2, 3)
    assert layers_at(shares, 2) == (1, 2)
    assert layers_at(shares, 1) == (1,)


def test_probes_travel_with_the_model_bit_for_bit(build: Any, tokenizer: Any, registry: Any, tmp_path: Path) -> None:
    model = build(num_experts_per_tok=1)
    stream = torch.Generator().manual_seed(2)
    kept = Probes(
        layers=(1, 2),
        weight=torch.randn(2, 2, 32, generator=stream),
        bias=torch.randn(2, generator=stream),
        penalties=PENALTIES,
        position="both",
        pool="mean",
        trunk=trunk_digest(model),
        scale=0.1 + 0.2,
        shift=-1 / 3,
        facts={"label": {"label": "contains"}},
    )
    attach(model, "probes", kept)
    save_model(model, tokenizer, tmp_path / "model")
    loaded = load_model(tmp_path / "model", registry)
    found = companions_of(loaded)["probes"]
    assert torch.equal(found.weight, kept.weight) and torch.equal(found.bias, kept.bias)
    assert (found.scale, found.shift, found.layers, found.facts) == (kept.scale, kept.shift, kept.layers, kept.facts)
    assert not found.stale(loaded)


def test_probes_are_stale_once_a_weight_has_moved(build: Any) -> None:
    model = build(num_experts_per_tok=1)
    found, _ = constant(0.0, trunk=trunk_digest(model))
    assert not found.stale(model)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1.0
    assert found.stale(model)

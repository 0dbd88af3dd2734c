"""The perplexity and routing gates: what a model makes of held-out text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from phasegate.evals.criteria import Criterion, judge
from phasegate.plugins.gates.perplexity import PerplexityConfig, PerplexityGate
from phasegate.plugins.gates.routing import RoutingConfig, RoutingGate
from phasegate.registry.errors import ConfigError


@pytest.fixture
def texts() -> list[dict[str, str]]:
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "red",
        "mat",
        "and",
        "ate",
        "one",
        "small",
        "fish",
        "while",
        "it",
        "rained",
    ]
    return [
        {"text": " ".join(words[i % 5 : i % 5 + 4 + i % 7]) + f" {i}", "domain": "general" if i % 2 else "code"}
        for i in range(20)
    ]


def test_perplexity_is_reported_by_domain(context: Any, texts: Any) -> None:
    found = PerplexityGate().measure(context({"text": texts}))
    assert found["nll/code"].n == found["nll/general"].n == 10
    assert found["perplexity/code"].value == pytest.approx(math.exp(found["nll/code"].value))
    assert found["bits_per_byte"].value > 0


def test_a_model_of_uniform_predictions_has_the_vocabulary_as_perplexity(context: Any, texts: Any, model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = PerplexityGate().measure(context({"text": texts}))
    assert found["perplexity"].value == pytest.approx(320, rel=1e-5)


def test_texts_are_cut_to_the_asked_tokens(context: Any, texts: Any, tokenizer: Any) -> None:
    ctx = context({"text": texts})
    gate = PerplexityGate(PerplexityConfig(tokens=3))
    pack = ctx.folder / gate.measure(ctx)["nll"].evidence["pack"] / "rows.jsonl"
    assert pack.read_text(encoding="utf-8").count('"tokens": 3') == 20


def test_documents_are_spread_over_domains(context: Any, texts: Any) -> None:
    found = PerplexityGate().measure(context({"text": texts}, documents=8))
    assert (found["nll"].n, found["nll/code"].n) == (8, 4)


def test_the_same_model_differs_by_nothing_from_itself(context: Any, texts: Any) -> None:
    measured = PerplexityGate().measure(context({"text": texts}))
    criterion = Criterion(name="ppl", metric="nll/*", at_most=math.log(1.02), statistic="difference")
    assert [found.verdict for found in judge(criterion, measured, measured)] == ["pass", "pass"]


def test_text_of_an_unknown_domain_is_missing(context: Any, texts: Any) -> None:
    found = PerplexityGate(PerplexityConfig(domains=("law",))).measure(context({"text": texts}))
    assert found["nll"].missing == "there is no held-out text of the domains law"


def count_by_hand(model: Any, tokenizer: Any, texts: Any) -> np.ndarray[Any, Any]:
    """Text and the separator behind it. shape: (layers, domains code and general, experts)"""
    counts = np.zeros((2, 2, 4))
    for row in texts:
        ids = [*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model.eval()(torch.tensor([[1, *ids]]), output_router_logits=True).router_logits
        for layer, scores in enumerate(logits):
            for expert in scores[1:].argmax(-1).tolist():
                counts[layer, int(row["domain"] == "general"), expert] += 1
    return counts


def test_routing_counts_every_text_token_once(context: Any, texts: Any, model: Any, tokenizer: Any) -> None:
    ctx = context({"text": texts}, domains=("code", "general"), batch_size=3)
    found = RoutingGate().measure(ctx)
    counts = count_by_hand(model, tokenizer, texts)
    shares = counts / counts.sum(-1, keepdims=True)
    load = shares.mean(1)
    assert found["load_min"].value == pytest.approx(load.min())
    assert found["load_max"].value == pytest.approx(load.max())
    assert found["load_mean_max"].value == pytest.approx(load.mean(0).max())
    safe = np.where(shares > 0, shares, 1.0)
    expected = -(shares * np.log(safe)).sum(-1).mean(0)
    assert found["entropy/code"].value == pytest.approx(expected[0])
    assert found["entropy_mean"].value == pytest.approx(expected.mean())
    assert found["top2/general"].value == pytest.approx(np.sort(shares, -1)[..., -2:].sum(-1).mean(0)[1])
    assert found["dead"].value == (load < 0.0025).sum()


def test_a_mixture_weighs_the_load(context: Any, texts: Any, model: Any, tokenizer: Any) -> None:
    config = RoutingConfig(mixture={"general": 3.0, "code": 1.0})
    found = RoutingGate(config).measure(context({"text": texts}, domains=("code", "general")))
    counts = count_by_hand(model, tokenizer, texts)
    shares = counts / counts.sum(-1, keepdims=True)
    assert found["load_max"].value == pytest.approx((shares * np.array([0.25, 0.75])[None, :, None]).sum(1).max())


def test_bootstrap_bounds_surround_the_value_and_repeat(context: Any, texts: Any) -> None:
    first = RoutingGate().measure(context({"text": texts}))
    again = RoutingGate().measure(context({"text": texts}))
    interval = first["entropy/code"].interval
    assert interval is not None and interval == again["entropy/code"].interval
    assert interval[0] < first["entropy/code"].value < interval[1]


def test_more_documents_narrow_the_bounds(context: Any, texts: Any) -> None:
    def width(documents: int) -> float:
        many = [{"text": f"{row['text']} {i}", "domain": row["domain"]} for row in texts for i in range(8)]
        interval = RoutingGate().measure(context({"text": many}, documents=documents))["entropy_mean"].interval
        assert interval is not None
        return interval[1] - interval[0]

    assert width(160) < width(16)


def test_measuring_routing_leaves_no_hook_and_no_mode_behind(context: Any, texts: Any, model: Any) -> None:
    model.train()
    RoutingGate().measure(context({"text": texts}))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_routers_is_missing(context: Any, texts: Any) -> None:
    found = RoutingGate().measure(context({"text": texts}, routers=lambda model: []))
    assert found["load_min"].missing is not None and "no routers" in found["load_min"].missing


def test_routers_of_an_unknown_class_are_missing(context: Any, texts: Any) -> None:
    def unknown(model: Any) -> list[Any]:
        raise ConfigError("no router of a known class")

    found = RoutingGate().measure(context({"text": texts}, routers=unknown))
    assert found["dead"].missing == "no router of a known class"


def test_long_text_is_scored_part_by_part(context: Any, texts: Any, model: Any, tokenizer: Any) -> None:
    gate = PerplexityGate(PerplexityConfig(borders=(0, 4, 8)))
    found = gate.measure(context({"text": texts}))
    encoded = [tokenizer(row["text"])["input_ids"] for row in texts]
    for name, end in (("nll/at-0", 4), ("nll/at-4", 8)):  # equal beginnings of one domain are one document
        parts = {(row["domain"], *ids[:end]) for row, ids in zip(texts, encoded, strict=True) if len(ids) >= end}
        assert found[name].n == len(parts)
    row = next(row for row, ids in zip(texts, encoded, strict=True) if len(ids) >= 8)
    alone = gate.measure(context({"text": [row]}))
    ids = tokenizer(row["text"])["input_ids"][:8]

    def mean(tokens: list[int], last: int) -> float:
        with torch.no_grad():
            scores = torch.log_softmax(model.eval()(torch.tensor([tokens])).logits[0, :-1], -1)
        return -float(scores.gather(-1, torch.tensor(tokens[1:])[:, None])[-last:].mean())

    assert alone["nll/at-0"].value == pytest.approx(mean([tokenizer.eos_token_id, *ids[:4]], 4), rel=1e-4)
    assert alone["nll/at-4"].value == pytest.approx(mean(ids, 4), rel=1e-4)


def test_parts_of_a_uniform_model_cost_the_same(context: Any, texts: Any, model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = PerplexityGate(PerplexityConfig(borders=(0, 3, 6))).measure(context({"text": texts}))
    assert found["nll/at-0"].value == found["nll/at-3"].value == pytest.approx(math.log(320), rel=1e-5)


def test_borders_beyond_the_models_positions_are_not_measured(context: Any, texts: Any) -> None:
    found = PerplexityGate(PerplexityConfig(borders=(0, 32, 65))).measure(context({"text": texts}))
    assert found["nll/at-32"].missing == "the last border is 65, but the model has 64 positions"
    assert found["nll"].missing is None


def test_borders_that_no_text_reaches_are_not_measured(context: Any, texts: Any) -> None:
    found = PerplexityGate(PerplexityConfig(borders=(0, 60, 64))).measure(context({"text": texts}))
    assert found["nll/at-0"].missing == "no document has 60 tokens"


@pytest.mark.parametrize("borders", [(64,), (64, 64), (128, 64), (-1, 64)])
def test_borders_that_do_not_rise_are_refused(borders: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="each above the one before"):
        PerplexityConfig(borders=borders)

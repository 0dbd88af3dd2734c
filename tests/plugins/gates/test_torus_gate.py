"""The gate over consecutive tokens."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.parameters import routers_of
from phasegate.evals.transitions import hops_between
from phasegate.plugins.gates.torus import TorusConfig, TorusGate
from phasegate.plugins.routers.geometry import hops
from phasegate.registry.plugins import Plugins

WORDS = ["the", "cat", "sat", "on", "a", "red", "mat", "and", "ate", "one", "small", "fish", "while", "it", "rained"]


@pytest.fixture
def texts() -> list[dict[str, str]]:
    return [
        {"text": " ".join(WORDS[i % 5 : i % 5 + 4 + i % 7]) + f" {i}", "domain": "general" if i % 2 else "code"}
        for i in range(16)
    ]


@pytest.fixture
def torus() -> Any:
    """A tiny model of 2 layers whose 8 experts lie on a ring, far enough for steps of all classes."""
    registry = Plugins.load(()).components()
    derived = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
        "moe_intermediate_size": 8,
        "num_experts": 8,
        "num_experts_per_tok": 1,
        "initializer_range": 0.3,
    }
    router = Ref(use="torus", options={"grid": [8, 1, 1]})
    context = ModelContext(registry=registry, router=router, derived=derived, vocab_size=320, sequence_length=64)
    return registry.build("model", "moe", {}, context=context).build(seed=0)


def by_hand(model: Any, tokenizer: Any, texts: Any) -> tuple[list[Counter[int]], list[list[float]], list[set[int]]]:
    """Hops and lengths of steps, and the experts reached, by layer."""
    routers = [router for _, _, router in routers_of(model)]
    steps: list[Counter[int]] = [Counter() for _ in routers]
    lengths: list[list[float]] = [[] for _ in routers]
    reached: list[set[int]] = [set() for _ in routers]
    read: list[Any] = []
    handles = [r.register_forward_hook(lambda m, inputs, output: read.append((inputs[0], output[2]))) for r in routers]
    for row in texts:
        ids = [*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id]
        read.clear()
        with torch.no_grad():
            model.eval()(input_ids=torch.tensor([[1, *ids]]), use_cache=False)
        for layer, (hidden, index) in enumerate(read):
            chosen = index[1:, 0].tolist()
            places = routers[layer].coordinates(hidden.reshape(-1, 16)[1:].detach()).tolist()
            reached[layer] |= set(chosen)
            for first, second in pairwise(chosen):
                steps[layer][min(3, abs(first - second), 8 - abs(first - second))] += 1
            for one, other in pairwise(places):
                along = [min(abs(a - b), 1 - abs(a - b)) for a, b in zip(one, other, strict=True)]
                lengths[layer].append(sum(part**2 for part in along) ** 0.5)
    for handle in handles:
        handle.remove()
    return steps, lengths, reached


def test_steps_are_counted_as_by_hand(context: Any, texts: Any, torus: Any, tokenizer: Any) -> None:
    ctx = context({"text": texts}, model=torus, routers=routers_of, batch_size=3)
    found = TorusGate().measure(ctx)
    steps, lengths, reached = by_hand(torus, tokenizer, texts)
    for place, name in enumerate(("same", "one_hop", "two_hop", "far")):
        expected = np.mean([counted[place] / sum(counted.values()) for counted in steps])
        assert found[name].value == pytest.approx(expected), name
    assert sum(found[name].value for name in ("same", "one_hop", "two_hop", "far")) == pytest.approx(1.0)
    assert found["distance"].value == pytest.approx(np.mean([np.mean(part) for part in lengths]), rel=1e-4)
    assert found["unreached"].value == sum(8 - len(part) for part in reached)
    assert found["same"].n == 16


def test_the_hops_of_a_router_are_those_of_its_lattice() -> None:
    grid = (4, 3, 2)
    edges = (hops(grid) == 1).triu().nonzero().numpy()
    assert (hops_between(edges, 24) == hops(grid).clamp(max=3).numpy()).all()


def test_experts_without_a_path_are_far() -> None:
    assert hops_between(np.array([[0, 1]]), 3).tolist() == [[0, 1, 3], [1, 0, 3], [3, 3, 0]]


def test_drift_is_how_far_experts_are_from_where_they_began(context: Any, texts: Any, torus: Any) -> None:
    router = routers_of(torus)[0][2]
    with torch.no_grad():
        router.positions.copy_(router.home)
        router.positions[0, 0] += 0.9  # 0.1 over the seam, one of eight experts
    found = TorusGate().measure(context({"text": texts}, model=torus, routers=routers_of))["drift"]
    assert found.value == pytest.approx(0.1 / 8, abs=1e-6)
    assert found.kind == "exact"


def test_a_linear_router_has_only_what_needs_no_neighbours(context: Any, texts: Any) -> None:
    found = TorusGate().measure(context({"text": texts}))
    assert 0 <= found["same"].value <= 1
    assert found["unreached"].missing is None
    for name in ("one_hop", "two_hop", "far"):
        assert found[name].missing == "the router of this model does not know which experts are neighbours"
    for name in ("distance", "drift"):
        assert found[name].missing == "the router of this model has no positions on a torus"


def test_bounds_surround_the_value_and_repeat(context: Any, texts: Any, torus: Any) -> None:
    ctx = context({"text": texts}, model=torus, routers=routers_of)
    first, again = TorusGate().measure(ctx)["same"], TorusGate().measure(ctx)["same"]
    assert first.interval is not None and first.interval == again.interval
    assert first.interval[0] < first.value < first.interval[1]


def test_nothing_is_left_on_the_model(context: Any, texts: Any, torus: Any) -> None:
    torus.train()
    TorusGate().measure(context({"text": texts}, model=torus, routers=routers_of))
    assert torus.training
    assert not any(module._forward_hooks for _, _, module in routers_of(torus))


def test_documents_of_one_token_are_no_text_to_move_in(context: Any) -> None:
    rows = [{"text": "cat", "domain": "code"}]
    found = TorusGate(TorusConfig(tokens=1)).measure(context({"text": rows}))
    assert found["same"].missing == "no held-out document has two tokens"


def test_a_model_without_routers_is_missing(context: Any, texts: Any) -> None:
    found = TorusGate().measure(context({"text": texts}, routers=lambda model: []))
    assert found["unreached"].missing is not None and "no routers" in found["unreached"].missing

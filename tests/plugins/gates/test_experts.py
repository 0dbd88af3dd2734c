"""The gate over the weights of the experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.companions import attach
from phasegate.core.model.distances import experts_by_layer
from phasegate.core.model.origin import Origin
from phasegate.core.model.parameters import routers_of
from phasegate.plugins.gates.experts import ExpertsGate
from phasegate.registry.plugins import Plugins
from torch import nn


@pytest.fixture
def tiny() -> Callable[..., Any]:
    """The platform's own MoE of 2 layers and 4 experts."""

    def make(router: str = "linear", quantizer: str | None = None, experts: int = 4) -> Any:
        registry = Plugins.load(()).components()
        derived = {
            "hidden_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 4,
            "moe_intermediate_size": 4,
            "num_experts": experts,
            "num_experts_per_tok": 1,
            "initializer_range": 0.2,
        }
        context = ModelContext(
            registry=registry,
            router=Ref(use=router),
            derived=derived,
            vocab_size=48,
            sequence_length=16,
            quantizer=None if quantizer is None else Ref(use=quantizer),
        )
        return registry.build("model", "moe", {}, context=context).build(seed=0)

    return make


def measure(context: Any, model: Any) -> Any:
    return ExpertsGate().measure(context({}, model=model, routers=routers_of))


def fill(model: Any, *experts: float) -> None:
    """All weights of an expert become one number."""
    with torch.no_grad():
        for names in experts_by_layer(model).values():
            for name in names:
                model.get_parameter(name).copy_(torch.tensor(experts)[:, None, None])


def test_similarity_is_seen_from_what_experts_were_cloned_from(context: Any, tiny: Any) -> None:
    model = tiny()
    fill(model, 1.0, 1.0, 1.0, 1.0)
    origin = Origin.of(model)
    fill(model, 2.0, 3.0, 4.0, 0.0)  # three went one way, one the other: cosines 1 three times, -1 three times
    attach(model, "origin", origin)
    found = measure(context, model)["similarity"]
    assert found.value == pytest.approx(0.0, abs=1e-6)
    assert found.kind == "exact"


def test_without_an_origin_similarity_is_seen_from_the_mean(context: Any, tiny: Any) -> None:
    model = tiny()
    fill(model, 1.0, 1.0, 1.0, 5.0)  # from their mean 2: three at -1, one at 3
    assert measure(context, model)["similarity"].value == pytest.approx((3 - 3) / 6, abs=1e-6)
    fill(model, 1.0, 1.0, 5.0, 5.0)  # two and two: cosines 1 twice, -1 four times
    assert measure(context, model)["similarity"].value == pytest.approx(-1 / 3, abs=1e-6)


def test_copies_have_no_similarity(context: Any, tiny: Any) -> None:
    model = tiny()
    fill(model, 1.0, 1.0, 1.0, 1.0)
    assert "still copies" in measure(context, model)["similarity"].missing


def test_density_is_that_of_neighbours_and_of_all(context: Any, tiny: Any) -> None:
    model = tiny("torus", "ternary")  # 2 x 2 x 1: experts 0 and 3, and 1 and 2, are no neighbours
    fill(model, 1.0, 1.0, 1.0, -1.0)  # all codes are 1, those of expert 3 are -1
    found = measure(context, model)
    assert found["density"].value == pytest.approx(2 / 4)
    assert found["density_all"].value == pytest.approx(3 / 6)
    assert (found["zeros"].value, found["error"].value) == (0.0, pytest.approx(0.0, abs=1e-6))


def test_zeros_and_error_are_those_of_the_quantizer(context: Any, tiny: Any) -> None:
    model = tiny("linear", "ternary")
    with torch.no_grad():  # in every row one weight of 0.1 beside weights of 1: below 0.7 of the mean, so 0
        for names in experts_by_layer(model).values():
            for name in names:
                weight = model.get_parameter(name)
                weight.fill_(1.0)
                weight[..., 0] = 0.1
    sizes = [(8 * 8, 8), (8 * 4, 4)]  # weights of gate and up, and of down, and the length of their rows
    weights = sum(count for count, _ in sizes)
    rows = sum(count / length for count, length in sizes)
    found = measure(context, model)
    assert found["zeros"].value == pytest.approx(rows / weights)
    assert found["error"].value == pytest.approx(0.01 * rows / (weights - rows + 0.01 * rows), rel=1e-4)


def test_without_a_quantizer_there_are_no_codes(context: Any, tiny: Any) -> None:
    found = measure(context, tiny("torus"))
    for name in ("density", "density_all", "zeros", "error"):
        assert found[name].missing is not None and "quantize" in found[name].missing
    assert found["similarity"].missing is None


def test_without_neighbours_there_is_no_density_of_them(context: Any, tiny: Any) -> None:
    found = measure(context, tiny("linear", "ternary"))
    assert "LinearRouter of this model does not know which experts are neighbours" in found["density"].missing
    assert found["density_all"].missing is None


def test_a_single_expert_is_compared_with_none(context: Any, tiny: Any) -> None:
    found = measure(context, tiny("linear", "ternary", experts=1))
    assert {part.missing for part in found.values()} == {
        "a layer of this model has a single expert, and there is none to compare it with"
    }


def test_a_model_without_experts_is_missing(context: Any) -> None:
    model = nn.Linear(2, 2)
    found = measure(context, model)
    assert {part.missing for part in found.values()} == {
        "Linear has no experts to compare; upcycle it or build a sparse model first"
    }

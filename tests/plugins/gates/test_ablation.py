"""The ablation gate on models whose specialists are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phasegate.core.model.parameters import routers_of
from phasegate.evals.ablation import TABLES
from phasegate.evals.context import MeasureContext
from phasegate.evals.criteria import Criterion, judge
from phasegate.plugins.gates.ablation import AblationConfig, AblationGate
from phasegate.registry.plugins import Plugins
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

Make = Callable[..., MeasureContext]

CODE, GENERAL = "cat sat on a red mat", "fish while it rained over"
LINES = {"general": GENERAL.split(), "code": CODE.split()}
QUICK = AblationConfig(pairs=False, zero=False)


def texts(per_domain: int = 8) -> list[dict[str, str]]:
    return [
        {"text": " ".join(words[i % 5 :] + words[: i % 5] + words[: 1 + i // 5]), "domain": domain}
        for domain, words in LINES.items()
        for i in range(per_domain)
    ]


def specialists(tokenizer: Any) -> Qwen3MoeForCausalLM:
    """Tokens of code go to expert 0, those of general to expert 1, experts 2 and 3 are idle; trained until the two
    matter."""
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=320,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            moe_intermediate_size=32,
            num_experts=4,
            num_experts_per_tok=1,
            initializer_range=0.3,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    rows = texts()
    ids = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")["input_ids"]
    code = set(tokenizer(CODE + " cat")["input_ids"])
    embedding = model.get_input_embeddings().weight
    router: Any = routers_of(model)[0][2]
    attention: Any = model.model.layers[0].self_attn
    with torch.no_grad():
        # One coordinate says whether a token is of code; attention and the first norm let it pass.
        embedding[:, 0] = torch.tensor([6.0 if token in code else -6.0 for token in range(320)])
        router.weight.zero_()
        router.weight[0, 0], router.weight[1, 0], router.weight[2:, 0] = 9.0, -9.0, 0.0
        attention.o_proj.weight.zero_()
    trained = [p for name, p in model.named_parameters() if "experts" in name or "lm_head" in name]
    optimiser = torch.optim.Adam(trained, lr=1e-2)
    labels = ids.masked_fill(ids == 0, -100)
    for _ in range(30):
        optimiser.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def taught(tokenizer: Any) -> Any:
    return specialists(tokenizer)


def measured(ctx: MeasureContext, config: AblationConfig) -> tuple[Any, dict[str, Any]]:
    ctx.folder.mkdir(parents=True, exist_ok=True)
    found = AblationGate(config).measure(ctx)
    path = ctx.folder / TABLES
    return found, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def test_the_owner_of_a_specialist_is_hurt_most_without_it(taught: Any, context: Make) -> None:
    found, tables = measured(context({"text": texts()}, model=taught, routers=routers_of), QUICK)
    assert tables["owners"] == [["code", "general", None, None]]
    rows = {row["expert"]: row for row in tables["single"]}
    assert (rows[0]["most"], rows[1]["most"]) == ("code", "general")
    assert rows[0]["clear"] and rows[1]["clear"]
    assert (found["match"].value, found["match"].n, found["match"].chance) == (1.0, 2, 0.5)


def test_a_zeroed_specialist_leaves_the_other_domain_exactly_as_it_was(taught: Any, context: Make) -> None:
    _, tables = measured(context({"text": texts()}, model=taught, routers=routers_of), AblationConfig(pairs=False))
    row = next(row for row in tables["single"] if row["mode"] == "zero" and row["expert"] == 0)
    assert row["domains"]["general"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert row["domains"]["code"]["high"] < 0


def test_an_idle_expert_is_free_to_prune_and_says_so(taught: Any, context: Make) -> None:
    found, _ = measured(context({"text": texts()}, model=taught, routers=routers_of), QUICK)
    assert found["least_harm"].value == pytest.approx(0.0, abs=1e-6)
    (verdict,) = judge(Criterion(name="pruning", metric="least_harm", at_least=0.001), found)
    assert verdict.verdict == "fail"
    assert found["harm/0"].value > 0.01
    assert found["harm/0"].interval is not None and found["harm/0"].interval[0] > 0


def test_with_one_layer_both_tables_of_experts_agree(taught: Any, context: Make) -> None:
    _, tables = measured(context({"text": texts()}, model=taught, routers=routers_of), QUICK)
    for single, everywhere in zip(tables["single"], tables["experts"], strict=True):
        assert single["mean"] == everywhere["mean"]


def test_a_pairs_interaction_is_what_it_costs_beyond_both_alone(taught: Any, context: Make) -> None:
    _, tables = measured(context({"text": texts()}, model=taught, routers=routers_of), AblationConfig(zero=False))
    alone = {row["expert"]: row["mean"]["value"] for row in tables["experts"]}
    assert len(tables["pairs"]) == 6
    for row in tables["pairs"]:
        beyond = row["mean"]["value"] - alone[row["experts"][0]] - alone[row["experts"][1]]
        assert row["interaction"]["value"] == pytest.approx(beyond, abs=1e-5)


def test_the_busiest_two_of_a_domain_are_taken_together_and_apart(model: Any, context: Make) -> None:
    _, tables = measured(context({"text": texts()}, model=model, routers=routers_of), AblationConfig(zero=False))
    shares = np.asarray(tables["shares"])
    for place, row in enumerate(tables["domain_pairs"]):
        assert [pair[0] for pair in row["experts"]] == shares[:, place].argmax(axis=-1).tolist()
        sum_of_both = row["first"]["value"] + row["second"]["value"]
        assert row["interaction"]["value"] == pytest.approx(row["both"]["value"] - sum_of_both, abs=1e-5)


def test_questions_are_asked_without_each_expert_through_lm_eval(
    model: Any, context: Make, questions: list[dict[str, Any]]
) -> None:
    ctx = context({"text": texts(), "choice": questions}, model=model, routers=routers_of)
    _, tables = measured(ctx, AblationConfig(pairs=False, zero=False, questions=12))
    assert [row["expert"] for row in tables["choice"]] == [0, 1, 2, 3]
    for row in tables["choice"]:
        assert row["questions"] == 12
        assert row["mean"]["low"] <= row["mean"]["value"] <= row["mean"]["high"]
        assert row["drop"] == min(change["value"] for change in row["domains"].values())


def test_tables_carry_the_papers_four_rows(taught: Any, context: Make) -> None:
    _, tables = measured(context({"text": texts()}, model=taught, routers=routers_of), QUICK)
    assert [(row["expert"], row["mean"]) for row in tables["paper"]] == [
        ("E1", -4.2),
        ("E3", -3.8),
        ("E5", -2.1),
        ("E9", -5.6),
    ]


def test_measuring_twice_gives_the_same_tables_and_leaves_the_model_alone(taught: Any, context: Make) -> None:
    ctx = context({"text": texts()}, model=taught, routers=routers_of)
    state = {name: tensor.clone() for name, tensor in taught.state_dict().items()}
    _, first = measured(ctx, QUICK)
    _, second = measured(ctx, QUICK)
    assert first == second
    assert all(torch.equal(state[name], tensor) for name, tensor in taught.state_dict().items())


def test_a_model_without_experts_to_spare_is_not_measured(model: Any, context: Make) -> None:
    module: Any
    for _, _, module in routers_of(model):
        module.top_k = 4
    found, tables = measured(context({"text": texts()}, model=model, routers=routers_of), QUICK)
    assert math.isnan(found["match"].value) and not tables
    assert "only 3 of 4 would be left" in str(found["match"].missing)


def test_weights_that_are_no_numbers_are_not_measured(model: Any, context: Make) -> None:
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.nan
    found, _ = measured(context({"text": texts()}, model=model, routers=routers_of), QUICK)
    assert "not finite" in str(found["least_harm"].missing)


def test_the_component_is_registered_with_its_metrics(tmp_path: Path) -> None:
    entry = Plugins.load(()).components().get("gate", "ablation")
    assert entry.load() is AblationGate
    assert {"match", "least_harm", "harm/*"} <= set(entry.component.metrics)  # type: ignore[attr-defined]

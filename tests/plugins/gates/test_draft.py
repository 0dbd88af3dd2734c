"""The draft gate: real generations with a draft model, measured beside the target alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from phasegate.core.model.companions import attach, trunk_digest
from phasegate.core.model.draft import Draft, vocabulary_of
from phasegate.core.model.draft_start import DraftShape, build_draft
from phasegate.evals.measurement import Measurement
from phasegate.plugins.gates.draft import DraftConfig, DraftGate
from phasegate.registry.errors import ConfigError

METRICS = {"acceptance", "alpha", "identical", "predicted_speedup", "speedup", "tokens_per_step"}


def asked(count: int = 6) -> list[dict[str, Any]]:
    words = ["the", "cat", "sat", "on", "a", "red", "mat", "and", "ate", "one", "small", "fish"]
    return [
        {"prompt": [{"role": "user", "content": f"{words[n % 12]} {words[(5 * n + 1) % 12]} ?"}], "kind": str(n % 2)}
        for n in range(count)
    ]


@pytest.fixture
def drafted(model: Any, tokenizer: Any) -> Any:
    """The model with a draft that proposes two tokens."""
    torch.set_num_threads(1)
    network = build_draft(model, DraftShape(), seed=1)
    draft = Draft(network=network, trunk=trunk_digest(model), vocabulary=vocabulary_of(tokenizer), proposals=2)
    attach(model, "draft", draft)
    return model


def measured(context: Callable[..., Any], model: Any, config: DraftConfig, **changes: Any) -> dict[str, Measurement]:
    rows: Sequence[dict[str, Any]] = changes.pop("rows", asked())
    return dict(DraftGate(config).measure(context({config.view: rows}, model=model, **changes)))


def test_answers_are_identical_and_everything_is_reported(context: Any, drafted: Any) -> None:
    found = measured(context, drafted, DraftConfig(answer_tokens=8, rounds=1, curve=3, curve_prompts=2))
    assert set(found) == METRICS | {"speedup/1", "speedup/2", "speedup/3"}
    assert (found["identical"].value, found["identical"].kind, found["identical"].n) == (1.0, "proportion", 6)
    for name in METRICS - {"identical"}:
        assert found[name].interval is not None and math.isfinite(found[name].value), name
    assert 0 <= found["acceptance"].value <= found["alpha"].value <= 1
    assert 1 <= found["tokens_per_step"].value <= 3
    assert (found["speedup/1"].n, found["speedup/2"].n) == (2, 6)
    evidence = found["speedup"].evidence
    assert set(evidence["curve"]) == {"1", "2", "3"} and evidence["proposals"] == 2
    assert (evidence["differing"], evidence["stale"], evidence["rounds"]) == ([], False, 1)
    assert evidence["tokens"] >= 6 and set(evidence["curve"]["2"]) >= {"alpha", "cost", "speedup"}


def test_the_number_of_proposals_can_be_set_and_documents_limit_the_prompts(context: Any, drafted: Any) -> None:
    config = DraftConfig(answer_tokens=6, rounds=1, curve=0, proposals=1)
    found = measured(context, drafted, config, documents=3)
    assert set(found) == METRICS | {"speedup/1"}
    assert found["speedup"].n == 3 and found["tokens_per_step"].value <= 2


def test_a_stale_draft_says_so(context: Any, drafted: Any) -> None:
    with torch.no_grad():
        drafted.model.norm.weight[0] += 0.5
    found = measured(context, drafted, DraftConfig(answer_tokens=4, rounds=1, curve=0), documents=2)
    assert found["speedup"].evidence["stale"] is True and found["identical"].value == 1.0


def test_text_is_gone_on_with_from_its_first_tokens(context: Any, drafted: Any) -> None:
    rows = [{"text": "the cat sat on a red mat and ate one small fish while it rained"}, {"text": "old town"}]
    config = DraftConfig(view="text", prompt_tokens=4, answer_tokens=4, rounds=1, curve=0)
    found = measured(context, drafted, config, rows=rows)
    assert found["identical"].value == 1.0 and found["identical"].n == 2


def test_a_model_without_a_draft_is_not_measured(context: Any, model: Any) -> None:
    found = measured(context, model, DraftConfig())
    assert set(found) == METRICS
    assert all("no draft model" in str(one.missing) for one in found.values())


def test_a_view_without_prompts_is_not_measured(context: Any, drafted: Any) -> None:
    found = measured(context, drafted, DraftConfig(view="unknown"), rows=[{"question": "who ?"}])
    assert "neither prompts nor texts" in str(found["speedup"].missing)


def test_measuring_leaves_no_trace(context: Any, drafted: Any) -> None:
    drafted.train()
    before, state = trunk_digest(drafted), torch.get_rng_state()
    measured(context, drafted, DraftConfig(answer_tokens=4, rounds=1, curve=0, experts="eager"), documents=2)
    assert trunk_digest(drafted) == before and torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in drafted.modules())
    assert drafted.config._experts_implementation == "grouped_mm"


def test_an_experts_implementation_that_does_not_exist_is_refused(context: Any, drafted: Any) -> None:
    with pytest.raises(ConfigError, match="cannot run experts as 'fast'"):
        measured(context, drafted, DraftConfig(experts="fast"), documents=1)

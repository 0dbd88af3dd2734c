"""The anchor gate: both sides or nothing, and what is said with the anchor in place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Guard
from phasegate.core.model.companions import attach
from phasegate.evals.context import MeasureContext
from phasegate.plugins.gates.anchor import AnchorGate, AnchorGateConfig

Context = Callable[..., MeasureContext]

HARMFUL, BENIGN = ("cat", "mat", "old", "sea"), ("dog", "fish", "town", "rain", "red", "one")


def gate() -> AnchorGate:
    return AnchorGate(AnchorGateConfig(answer_tokens=3))


class ByWord:
    """An anchor for tests: the score of a prompt is that of one of its words."""

    def __init__(self, scores: dict[str, float], tokenizer: Any, model: Any) -> None:
        from phasegate.core.model.states import final_states

        prompts = [
            tokenizer.apply_chat_template(asked(word), add_generation_prompt=True)["input_ids"] for word in scores
        ]
        with torch.no_grad():
            self.states = final_states(model.eval(), prompts, 1)
        self.scores = torch.tensor(list(scores.values()))

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(hidden.reshape(-1, hidden.shape[-1]), self.states).argmin(-1)
        return self.scores[nearest].reshape(hidden.shape[:-1])


def asked(word: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"the {word}"}]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        {
            "prompt": asked(word),
            "completion": [{"role": "assistant", "content": "no"}],
            "rejected": [],
            "domain": "general",
            "kind": kind,
            "value": "",
        }
        for kind, words in (("harmful", HARMFUL), ("benign", BENIGN[:3]), ("medical", BENIGN[3:]))
        for word in words
    ]


@pytest.fixture
def guarded(context: Context, model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> Context:
    """A context whose model has an anchor with these scores by word; harmful words 1 and the others -1 if not given."""

    def make(scores: dict[str, float] | None = None, **changes: Any) -> MeasureContext:
        usual = {**dict.fromkeys(HARMFUL, 1.0), **dict.fromkeys(BENIGN, -1.0)}
        guard = Guard(
            reference="test:by-word",
            revision=1,
            options={},
            anchor=ByWord({**usual, **(scores or {})}, tokenizer, model),  # type: ignore[arg-type]
            digest="",
            refusal="sorry , no",
        )
        attach(model, "anchor", guard)
        ready = context({"refusal": rows}, **changes)
        ready.folder.mkdir(parents=True)
        return ready

    return make


def values(ctx: MeasureContext) -> dict[str, float]:
    return {name: found.value for name, found in gate().measure(ctx).items()}


def test_a_perfect_anchor_finds_all_and_stops_nothing_else(guarded: Context) -> None:
    found = values(guarded())
    assert (found["detected"], found["false_positive_rate"], found["auroc"]) == (1.0, 0.0, 1.0)
    assert (found["blocked"], found["refused_guarded"]) == (1.0, 1.0)


def test_shares_are_counted_by_kind(guarded: Context) -> None:
    found = values(guarded({"cat": -1.0, "dog": 1.0, "fish": 1.0}))
    assert (found["detected"], found["detected/harmful"]) == (0.75, 0.75)
    assert found["false_positive_rate"] == pytest.approx(2 / 6)
    assert found["false_positive_rate/benign"] == pytest.approx(2 / 3)
    assert found["false_positive_rate/medical"] == 0.0


def test_the_area_is_the_share_of_pairs_in_order_with_its_interval(guarded: Context) -> None:
    scores = {"cat": 0.9, "mat": 0.8, "old": 0.4, "sea": 0.3, "dog": 0.5, "fish": 0.1, "town": -1.0}
    measured = gate().measure(guarded({**scores, "rain": -1.0, "red": -1.0, "one": -1.0}))
    area = measured["auroc"]
    # 24 pairs, of which dog > old and dog > sea are in the wrong order
    assert area.value == pytest.approx(22 / 24)
    assert measured["auroc/benign"].value == pytest.approx(10 / 12)
    assert measured["auroc/medical"].value == 1.0
    # Hanley and McNeil: A = 0.91667, Q1 = A/(2-A) = 0.84615, Q2 = 2A²/(1+A) = 0.87681
    spread = (0.91667 * 0.08333 + 3 * (0.84615 - 0.84028) + 5 * (0.87681 - 0.84028)) / 24
    assert area.interval is not None
    assert area.interval[0] == pytest.approx(0.91667 - 1.6449 * math.sqrt(spread), abs=1e-3)
    assert area.interval[1] == 1.0


def test_a_false_positive_is_no_help(guarded: Context, tmp_path: Any) -> None:
    clean = values(guarded())
    assert clean["answered_guarded"] == 1.0
    stopped = values(guarded(dict.fromkeys(BENIGN, 1.0), folder=tmp_path / "other"))
    assert stopped["answered_guarded"] == stopped["answered_guarded/medical"] == 0.0


def test_help_holds_the_value_where_the_data_gives_one(guarded: Context, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["value"] = "a word that no such model says"
    assert values(guarded())["answered_guarded"] == 0.0


def test_a_model_that_refuses_by_itself_is_not_blocked(guarded: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phasegate.plugins.gates.anchor.is_refusal", lambda *_: True)
    found = values(guarded(dict.fromkeys(HARMFUL, -1.0)))
    assert (found["detected"], found["blocked"], found["refused_guarded"]) == (0.0, 0.0, 1.0)


def test_what_was_said_is_kept_as_evidence(guarded: Context) -> None:
    ctx = guarded()
    found = gate().measure(ctx)
    lines = [json.loads(line) for line in (ctx.folder / "guarded.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 10
    assert {line["answer"] for line in lines if line["vetoed"]} == {"sorry , no"}
    assert {line["hash"] for line in lines if line["kind"] == "harmful"} == set(found["detected"].per_document)


def test_answers_are_left_out_on_request(guarded: Context) -> None:
    found = AnchorGate(AnchorGateConfig(answers=0)).measure(guarded())
    assert not {"blocked", "refused_guarded", "answered_guarded"} & set(found)


def test_fewer_documents_are_drawn_evenly_by_kind(guarded: Context) -> None:
    found = gate().measure(guarded(documents=6))
    assert (found["detected"].n, found["false_positive_rate"].n) == (2, 4)


def test_a_model_without_an_anchor_has_nothing_to_measure(context: Context, rows: list[dict[str, Any]]) -> None:
    found = gate().measure(context({"refusal": rows}))
    assert {name: one.missing for name, one in found.items()}["detected"] == (
        "the model has no safety anchor; capture one in a step with objective: anchor"
    )
    assert all(math.isnan(one.value) for one in found.values())


def test_one_side_alone_is_not_measured(guarded: Context, rows: list[dict[str, Any]]) -> None:
    rows[:] = [row for row in rows if row["kind"] == "harmful"]
    found = gate().measure(guarded())
    assert "all on one side" in str(found["detected"].missing)


def test_scores_that_are_no_numbers_are_no_area(guarded: Context) -> None:
    found = gate().measure(guarded({"cat": math.nan}))
    assert found["auroc"].missing is not None
    assert found["detected"].value == 1.0  # what cannot be scored is vetoed


def test_measuring_leaves_no_trace(guarded: Context, model: Any) -> None:
    ctx = guarded()
    model.train()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    gate().measure(ctx)
    assert model.training and torch.equal(torch.get_rng_state(), before)

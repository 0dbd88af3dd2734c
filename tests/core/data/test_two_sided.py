"""Safety data that knows one side only is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from phasegate.core.config.schema import LossSection, StepSection
from phasegate.core.data.corpus import Corpus
from phasegate.core.data.two_sided import check_two_sided
from phasegate.registry.errors import DataError
from phasegate.registry.plugins import Plugins

LABEL = "phases.safety.steps.refuse"


def rows_of(counts: Mapping[str, int], **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": f"question {n} ?"}],
            "completion": [{"role": "assistant", "content": "answer"}],
            "rejected": [],
            "domain": "general",
            "kind": kind,
            **changes,
        }
        for kind, count in counts.items()
        for n in range(count)
    ]


@pytest.fixture
def refused(corpus_of: Callable[..., Corpus]) -> Callable[..., str]:
    """What the check says about rows and a step's section; empty if it lets them pass."""

    def check(rows: list[dict[str, Any]], **section: Any) -> str:
        plan: Any = SimpleNamespace(
            corpus=corpus_of({(section.get("view", "refusal"), "train"): rows}), registry=Plugins.load(()).components()
        )
        step = StepSection(**{"objective": "contrast", "view": "refusal", **section})
        try:
            check_two_sided(plan, LABEL, step)
        except DataError as error:
            return str(error)
        return ""

    return check


BOTH = {"harmful": 2, "benign": 2, "medical": 1}


@pytest.mark.parametrize("objective", ["contrast", "anchor"])
def test_both_sides_pass(refused: Callable[..., str], objective: str) -> None:
    assert refused(rows_of(BOTH), objective=objective) == ""


@pytest.mark.parametrize("objective", ["contrast", "anchor"])
def test_a_set_without_benign_prompts_is_one_sided(refused: Callable[..., str], objective: str) -> None:
    assert refused(rows_of({"harmful": 3}), objective=objective) == (
        f"{LABEL} draws no prompts to answer from the view 'refusal' (kinds harmful): one-sided safety data teaches to "
        "refuse everything; add benign prompts."
    )


@pytest.mark.parametrize("objective", ["contrast", "anchor"])
def test_a_set_without_harmful_prompts_is_one_sided(refused: Callable[..., str], objective: str) -> None:
    assert refused(rows_of({"benign": 3, "legal": 1}), objective=objective) == (
        f"{LABEL} draws no prompts to refuse from the view 'refusal' (kinds benign, legal, none of harmful): safety "
        "data needs both sides; add harmful prompts."
    )


def test_kinds_and_shares_that_leave_one_side_out_are_one_sided(refused: Callable[..., str]) -> None:
    assert "no prompts to answer" in refused(rows_of(BOTH), kinds=("harmful",))
    assert "no prompts to answer" in refused(rows_of(BOTH), options={"shares": {"harmful": 1.0, "benign": 0.0}})
    assert "no prompts to refuse" in refused(rows_of(BOTH), options={"shares": {"benign": 1.0}})


def test_an_anchor_may_say_which_kinds_are_harmful_and_benign(refused: Callable[..., str]) -> None:
    rows = rows_of({"attack": 2, "question": 2})
    assert "no prompts to refuse" in refused(rows, objective="anchor")
    assert refused(rows, objective="anchor", options={"harmful": ["attack"]}) == ""
    assert "no prompts to answer" in refused(
        rows, objective="anchor", options={"harmful": ["attack"], "benign": ["chat"]}
    )


def test_harmful_rows_with_nothing_to_say_are_refused_in_training(refused: Callable[..., str]) -> None:
    rows = [*rows_of(BOTH), *rows_of({"harmful": 2}, completion=[])]
    assert refused(rows) == (
        f"{LABEL}: 2 training rows of the kind 'harmful' in the view 'refusal' have no completion; give each a "
        "refusal, or leave such prompts to evaluation."
    )
    assert refused(rows, objective="anchor") == ""


def test_rows_that_are_not_drawn_need_nothing_to_say(refused: Callable[..., str]) -> None:
    rows = [*rows_of(BOTH), *rows_of({"general": 2}, completion=[])]
    assert "kind 'general'" in refused(rows)
    assert refused(rows, options={"shares": {"harmful": 1.0, "benign": 1.0}}) == ""


def test_shares_and_tasks_of_kinds_that_are_not_there_are_refused(refused: Callable[..., str]) -> None:
    assert "gives a share to the kind 'bening'" in refused(rows_of(BOTH), options={"shares": {"bening": 1.0}})
    assert "Did you mean 'benign'?" in refused(rows_of(BOTH), options={"shares": {"bening": 1.0}})
    assert "has as its task the kind 'general'" in refused(rows_of(BOTH), options={"task": ["general"]})


def test_a_term_without_rows_is_refused(refused: Callable[..., str]) -> None:
    losses = {"helpful": LossSection(use="domain-helpfulness"), "z": LossSection(use="z")}
    assert refused(rows_of(BOTH), losses=losses) == ""
    text = refused(rows_of({"harmful": 1, "benign": 1}), losses=losses)
    assert text == (
        f"{LABEL}.losses.helpful looks at rows of the kinds legal, medical, security, none of which the step draws (it "
        "draws benign, harmful); change its kinds, or remove it."
    )


def test_a_term_that_compares_answers_needs_rows_with_both(refused: Callable[..., str]) -> None:
    losses = {"over-refusal": LossSection(use="over-refusal"), "harm-avoidance": LossSection(use="harm-avoidance")}
    assert refused(rows_of(BOTH), losses=losses) == (
        f"{LABEL}.losses.over-refusal holds what should be said against what should not, which no row of the kinds "
        "benign, medical tells; give them a rejected answer, or remove it."
    )
    told = rows_of({"medical": 1}, rejected=[{"role": "assistant", "content": "no"}])
    assert refused([*rows_of(BOTH), *told], losses=losses) == ""


def test_a_view_that_knows_one_answer_is_refused(refused: Callable[..., str]) -> None:
    rows = [{key: value for key, value in row.items() if key != "rejected"} for row in rows_of(BOTH)]
    rows = [row | {"check": ""} for row in rows]
    assert "does not say what should not be said (rejected)" in refused(rows, view="chat")

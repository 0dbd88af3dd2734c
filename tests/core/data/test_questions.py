"""Questions for probes: folds that share nothing, and what is refused before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from phasegate.core.config.objectives import ProbeOptions
from phasegate.core.config.schema import StepSection
from phasegate.core.data.corpus import Corpus
from phasegate.core.data.questions import Question, check_questions, divide, questions_of
from phasegate.registry.errors import ConfigError, DataError

PENALTIES = {"general": 2.0, "code": 10.0}


def row(number: int, domain: str = "general", **changes: Any) -> dict[str, Any]:
    made = {"question": f"what is {number} ?", "answer": f"thing {number}", "domain": domain, "kind": "known"}
    return made | changes


def questions(count: int, domain: str = "general", phrasings: int = 3) -> list[Question]:
    return [
        Question(text=f"q{n}.{k}", truths=("x",), domain=domain, kind="", group=f"{domain}/{n}")
        for n in range(count)
        for k in range(phrasings)
    ]


def test_the_group_is_said_by_the_row_or_is_the_question() -> None:
    rows = [row(1, group="g", fact="f"), row(2, fact="f"), row(3)]
    assert [one.group for one in questions_of(rows)] == ["general/g", "general/f", "general/what is 3 ?"]


def test_every_alias_is_a_truth_and_no_empty_text_is() -> None:
    rows = [row(1, aliases=["other", "", "thing 1"]), row(2, answer=""), row(3, answer=" ", aliases=None)]
    assert [one.truths for one in questions_of(rows)] == [("thing 1", "other"), (), ()]


def test_phrasings_of_one_thing_are_in_one_fold() -> None:
    posed, folds = divide(questions(40), ProbeOptions(folds=4), seed=1)
    where: dict[str, set[int]] = {}
    for question, fold in zip(posed, folds, strict=True):
        where.setdefault(question.group, set()).add(fold)
    assert all(len(found) == 1 for found in where.values())
    assert Counter(next(iter(found)) for found in where.values()) == {0: 10, 1: 10, 2: 10, 3: 10}


def test_every_domain_is_in_every_fold() -> None:
    posed, folds = divide([*questions(20), *questions(20, "code")], ProbeOptions(folds=5), seed=0)
    assert len({(question.domain, fold) for question, fold in zip(posed, folds, strict=True)}) == 10


def test_all_questions_are_posed_in_their_order_unless_there_is_a_cap() -> None:
    every = questions(10)
    assert divide(every, ProbeOptions(), seed=3)[0] == every


def test_a_cap_is_shared_by_the_domains() -> None:
    posed, _ = divide([*questions(100), *questions(10, "code")], ProbeOptions(questions=60), seed=0)
    assert Counter(question.domain for question in posed) == {"general": 30, "code": 30}


def test_the_seed_draws_the_folds() -> None:
    every = questions(40)
    assert divide(every, ProbeOptions(), seed=1) == divide(every, ProbeOptions(), seed=1)
    assert divide(every, ProbeOptions(), seed=1)[1] != divide(every, ProbeOptions(), seed=2)[1]


@pytest.fixture
def check(corpus_of: Callable[..., Corpus]) -> Callable[..., None]:
    def run(rows: list[dict[str, Any]], view: str = "unknown", **options: Any) -> None:
        corpus = corpus_of({(view, "train"): rows})
        section = StepSection(objective="probes", view=view, options={"penalties": PENALTIES, **options})
        check_questions(SimpleNamespace(corpus=corpus), "phases.metacognition.steps.probes", section)

    return run


def test_questions_with_answers_and_weights_pass(check: Callable[..., None]) -> None:
    check([row(n, "code" if n % 2 else "general", answer="" if n % 3 else "x") for n in range(12)])


def test_questions_of_which_none_has_an_answer_are_refused(check: Callable[..., None]) -> None:
    with pytest.raises(
        DataError, match=r"^phases\.metacognition\.steps\.probes: no training question .* has an answer"
    ):
        check([row(n, answer="") for n in range(12)])


def test_a_domain_without_weight_is_refused_and_named(check: Callable[..., None]) -> None:
    rows = [row(n) for n in range(12)]
    with pytest.raises(ConfigError, match=r"the domain 'general' .* has no weight.*Did you mean 'generel'"):
        check(rows, penalties={"generel": 2.0})


def test_a_view_without_questions_is_refused(check: Callable[..., None]) -> None:
    rows = [{"text": f"t{n}", "domain": "general"} for n in range(9)]
    with pytest.raises(DataError, match="the view 'text' has no column 'question', which probes need"):
        check(rows, view="text")


def test_fewer_things_than_folds_are_refused(check: Callable[..., None]) -> None:
    with pytest.raises(DataError, match="asks 2 different things, which cannot be split into 5 folds"):
        check([row(n, fact=str(n % 2)) for n in range(12)])


def test_a_classifier_that_is_not_there_is_refused(check: Callable[..., None]) -> None:
    with pytest.raises(ConfigError, match="'nowhere' holds no classifier"):
        check([row(n) for n in range(12)], label="entailment", entailment="nowhere")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"label": "entailment"}, "label entailment needs a model"),
        ({"entailment": "nli"}, "entailment has no effect with label contains"),
        ({"layers": [0.5, 1.5]}, "'layers.1' = 1.5"),
        ({"penalties": {"general": 0}}, "'penalties.general' = 0"),
        ({"strengh": 1.0}, "no option 'strengh'. Did you mean 'strength'"),
        ({"folds": 1}, "'folds' = 1"),
    ],
)
def test_options_that_say_nothing_are_refused(check: Callable[..., None], options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check([row(n) for n in range(12)], **options)

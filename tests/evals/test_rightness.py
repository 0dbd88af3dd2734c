"""When an answer is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from phasegate.evals.rightness import Answered, Entailment, Judge, contains, token_f1
from phasegate.registry.errors import ConfigError
from transformers import BertConfig, BertForSequenceClassification


def one(answer: str, *truths: str) -> list[Answered]:
    return [Answered(question="what ?", answer=answer, truths=truths)]


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("it is Salt .", "salt", True),
        ("it is saltpetre .", "salt", False),
        ("it is 112 .", "12", False),
        ("the answer is New  York!", "new york", True),
        ("york is new", "new york", False),
        ("maçã", "maçã", True),
    ],
)
def test_an_answer_contains_the_words_of_the_truth(answer: str, truth: str, right: bool) -> None:
    assert contains(answer, truth) is right


def test_the_f1_of_words_is_the_harmonic_mean_of_precision_and_recall() -> None:
    # 2 of 3 words said are wanted, 2 of 4 wanted are said: 2 * (2/3 * 1/2) / (2/3 + 1/2) = 4/7.
    assert token_f1("the cat sat", "the cat ate fish") == pytest.approx(4 / 7)
    assert token_f1("dog", "cat") == 0.0


def test_an_exact_answer_differs_in_case_and_marks_only() -> None:
    judge = Judge(label="exact")
    assert judge.right(one("New-York !", "new york")) == [True]
    assert judge.right(one("in new york", "new york")) == [False]


def test_f1_has_its_threshold() -> None:
    assert Judge(label="f1", f1=0.57).right(one("the cat sat", "the cat ate fish")) == [True]
    assert Judge(label="f1", f1=0.58).right(one("the cat sat", "the cat ate fish")) == [False]


def test_any_of_several_truths_makes_an_answer_right() -> None:
    assert Judge().right(one("it is coal", "wood", "coal")) == [True]


def test_nothing_is_right_where_there_is_no_truth() -> None:
    assert Judge().right([*one("coal"), *one("coal", "")]) == [False, False]


def test_entailment_must_hold_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer:
        """A premise entails what is not longer than itself."""

        def holds(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
            return [len(premise) >= len(hypothesis) for premise, hypothesis in pairs]

    monkeypatch.setattr(Entailment, "load", lambda folder: Longer())
    answers = [*one("coal", "wood"), *one("coal", "charcoal"), *one("charcoal", "coal"), *one("coal")]
    assert Judge(label="entailment", entailment="nli").right(answers) == [True, False, False, False]


def classifier(folder: Path, tokenizer: Any, names: dict[int, str]) -> str:
    config = BertConfig(
        vocab_size=320,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_local_classifier_judges_pairs(tmp_path: Path, tokenizer: Any) -> None:
    judge = Entailment.load(classifier(tmp_path, tokenizer, {0: "ENTAILMENT", 1: "neutral", 2: "contradiction"}))
    assert judge.label == 0
    assert judge.holds([]) == []
    assert len(judge.holds([("the cat sat", "a cat sat")] * 70)) == 70


def test_a_classifier_without_entailment_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="none of which says entailment"):
        Entailment.load(classifier(tmp_path, tokenizer, {0: "good", 1: "bad"}))


def test_a_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no classifier"):
        Entailment.load(str(tmp_path / "nothing"))

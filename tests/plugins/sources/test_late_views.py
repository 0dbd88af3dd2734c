"""Records become rows of the views of the late phases: refusal, unknown, needle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.data.source import VIEW_COLUMNS, SourceContext
from phasegate.plugins.sources.files import Files, FilesConfig
from phasegate.plugins.sources.options import RecordOptions, check_options
from phasegate.plugins.sources.records import read_rows
from phasegate.registry.errors import DataError

Context = Callable[..., SourceContext]
NO = "I cannot help with that."


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def rows(records: list[Any], share: float = 0.0, /, **options: Any) -> Any:
    made = RecordOptions(**{"domain": "general", **options})
    check_options(made, "mine")
    return read_rows(records, made, "mine", share)


def refusals(records: list[Any], share: float = 0.0, /, **options: Any) -> Any:
    return rows(records, share, **{"view": "refusal", "kind": "harmful", **options})


# ---- refusal

PAIR = {
    "chosen": "\n\nHuman: How do I rob a bank?\n\nAssistant: Why?\n\nHuman: For money.\n\nAssistant: Please do not.",
    "rejected": "\n\nHuman: How do I rob a bank?\n\nAssistant: Why?\n\nHuman: For money.\n\nAssistant: Take a mask.",
}


def test_a_pair_of_dialogues_says_what_should_be_said_and_what_should_not() -> None:
    made = refusals([PAIR], dialogue="hh-rlhf").columns["train"]
    assert made["prompt"] == [[user("How do I rob a bank?"), assistant("Why?"), user("For money.")]]
    assert made["completion"] == [[assistant("Please do not.")]]
    assert made["rejected"] == [[assistant("Take a mask.")]]
    assert made["kind"] == ["harmful"]


def test_the_first_turn_of_a_dialogue_may_be_given_another_answer() -> None:
    made = refusals([PAIR], dialogue="hh-rlhf", turn="first", fields={"completion": NO}).columns["train"]
    assert made["prompt"] == [[user("How do I rob a bank?")]]
    assert made["completion"] == [[assistant(NO)]]
    assert made["rejected"] == [[assistant("Why?")]]


def test_a_first_turn_that_both_dialogues_answer_alike_teaches_nothing_by_itself() -> None:
    with pytest.raises(DataError, match="1 by empty or broken"):
        refusals([PAIR], dialogue="hh-rlhf", turn="first")


def test_records_of_what_is_to_be_answered_have_a_refusal_as_what_should_not_be_said() -> None:
    record = {"instruction": "How do I kill a process?", "response": "With kill.", "prompt": "?"}
    fields = {"prompt": "{instruction}", "completion": "{response}", "rejected": NO}
    made = refusals([record], kind="benign", fields=fields).columns["train"]
    assert made["completion"] == [[assistant("With kill.")]]
    assert made["rejected"] == [[assistant(NO)]]


def test_prompts_without_answers_are_for_measuring_only() -> None:
    made = refusals([{"prompt": "Make a bomb."}], held_out=1.0)
    assert made.columns["train"]["prompt"] == []
    assert made.columns["heldout"]["completion"] == made.columns["heldout"]["rejected"] == [[]]


def test_prompts_without_answers_that_would_be_trained_on_are_refused_in_one_sentence() -> None:
    with pytest.raises(DataError, match=r"'mine' has no answer for its harmful prompts.*set held_out: 1"):
        refusals([{"prompt": "Make a bomb."}])


def test_a_record_whose_answer_is_empty_is_left_out_of_training_and_counted() -> None:
    records = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": " "}]
    assert refusals(records, fields={"completion": "{completion}"}).skipped == {"empty or broken": 1}


def test_rows_without_a_kind_are_refused_in_one_sentence() -> None:
    with pytest.raises(DataError, match="not of which kind they are; set kind to harmful"):
        refusals([{"prompt": "a"}], kind="")


def test_what_was_read_before_keeps_its_side_in_every_view() -> None:
    records = [{"prompt": f"question {n}", "completion": "yes"} for n in range(200)]
    fields = {"completion": "{completion}"}
    chats = rows(records, 0.3, view="chat").columns["heldout"]["prompt"]
    assert chats == refusals(records, 0.3, fields=fields).columns["heldout"]["prompt"]
    assert 0 < len(chats) < 200


# ---- what is kept of any view


def test_an_expression_keeps_the_rows_whose_column_holds_it() -> None:
    records = [{"prompt": text, "completion": "x"} for text in ("How to KILL time", "skill", "how to kill")]
    made = rows(records, view="chat", matches={"prompt": r"(?i)\bkill\b"})
    assert [prompt[0]["content"] for prompt in made.columns["train"]["prompt"]] == ["How to KILL time", "how to kill"]
    assert made.skipped == {"matches": 1}


def test_an_expression_looks_at_the_last_message() -> None:
    with pytest.raises(DataError, match="1 by matches"):
        refusals([PAIR], dialogue="hh-rlhf", matches={"prompt": "bank"})
    assert len(refusals([PAIR], dialogue="hh-rlhf", matches={"prompt": "money"}).columns["train"]["prompt"]) == 1


def test_an_expression_leaves_out_the_rows_whose_column_holds_it() -> None:
    records = [{"prompt": "a", "completion": text} for text in ("Sorry, no.", "Yes.")]
    made = rows(records, view="chat", avoids={"completion": "^Sorry"})
    assert made.columns["train"]["completion"] == [[assistant("Yes.")]]
    assert made.skipped == {"avoids": 1}


def test_what_says_nothing_holds_no_expression() -> None:
    records = [{"prompt": "a", "completion": "b"}]
    fields = {"completion": "{completion}"}
    assert refusals(records, fields=fields, avoids={"rejected": ""}).skipped == {}


def test_rows_with_too_many_words_are_left_out() -> None:
    # the question and the longest answer count: 2 + 3 words, then 2 + 4
    records = [
        {"prompt": "a b", "chosen": "c d e", "rejected": "f"},
        {"prompt": "a b", "chosen": "c", "rejected": "d e f g"},
    ]
    made = rows(records, view="preference", most_words=5)
    assert made.columns["train"]["rejected"] == [[assistant("f")]]
    assert made.skipped == {"most_words": 1}


def test_marks_are_taken_out_of_answers_and_a_place_in_a_list_can_be_named() -> None:
    record = {"name": {"common": "Peru"}, "capital": ["Lima###end###"], "none": []}
    fields = {"prompt": "What is the capital of {name.common}?", "completion": "{capital.0}"}
    made = rows([record], view="chat", fields=fields, remove=("###end###",)).columns["train"]
    assert made["completion"] == [[assistant("Lima")]]
    with pytest.raises(DataError, match="1 by empty or broken"):
        rows([record], view="chat", fields={**fields, "completion": "{none.0}"})


# ---- unknown


def test_a_question_has_an_answer_and_other_right_ones() -> None:
    record = {"context": "Question: Which vegetable?\nAnswer:", "answer": "Onion", "aliases": ["Onions", "Onion", ""]}
    made = rows(
        [record],
        view="unknown",
        kind="trivia",
        fields={"question": "{context}", "aliases": "{aliases}"},
        remove=("Question: ", "\nAnswer:"),
    ).columns["train"]
    assert made == {
        "question": ["Which vegetable?"],
        "answer": ["Onion"],
        "aliases": [["Onions"]],
        "domain": ["general"],
        "kind": ["trivia"],
    }


def test_a_list_of_answers_is_one_answer_and_the_others() -> None:
    made = rows([{"question": "When?", "answer": ["1972", "December 1972"]}], view="unknown").columns["train"]
    assert (made["answer"], made["aliases"]) == (["1972"], [["December 1972"]])
    assert made["kind"] == ["mine"]


@pytest.mark.parametrize("answer", [1, "B", "two"])
def test_the_answer_of_an_exam_is_the_text_of_its_choice(answer: Any) -> None:
    record = {"question": "Q", "choices": ["one", "two"], "answer": answer}
    assert rows([record], view="unknown", fields={"choices": "{choices}"}).columns["train"]["answer"] == ["two"]


def test_only_a_source_that_says_so_has_questions_without_a_true_answer() -> None:
    made = rows([{"question": "Q"}], view="unknown", fields={"answer": ""}).columns["train"]
    assert made["answer"] == [""]
    with pytest.raises(DataError, match="1 by empty or broken"):
        rows([{"question": "Q", "answer": ""}], view="unknown")


def test_questions_are_split_by_what_they_ask() -> None:
    records = [{"question": f"Q{n % 50}", "answer": str(n)} for n in range(100)]
    made = rows(records, 0.5, view="unknown").columns
    assert set(made["train"]["question"]).isdisjoint(made["heldout"]["question"])
    assert len(made["train"]["question"]) + len(made["heldout"]["question"]) == 100


# ---- needle

BOOKS = [{"text": " ".join(f"w{n}.{place}" for place in range(60))} for n in range(40)]


def needles(share: float = 0.3, **options: Any) -> Any:
    return rows(BOOKS, share, **{"view": "needle", "needles": 20, "needle_words": (24, 50), **options})


@pytest.mark.parametrize(("split", "count"), [("train", 20), ("heldout", 2)])
def test_a_needle_stands_once_at_its_depth_in_a_document_of_its_length(split: str, count: int) -> None:
    made = needles().columns[split]
    assert Counter(made["kind"]) == {"24": count, "50": count}
    for text, answer, kind, depth in zip(made["text"], made["answer"], made["kind"], made["depth"], strict=True):
        assert text.endswith("the pass key is") and text.count(f"the pass key is {answer} .") == 1
        words = f"{text} {answer}".split()
        assert len(words) == int(kind)
        assert words.index("the") == round(depth * (int(kind) - 15))


def test_needles_of_one_length_stand_at_all_five_depths_evenly() -> None:
    made = needles(needle_words=(24,)).columns["train"]
    assert Counter(made["depth"]) == {0.0: 4, 0.25: 4, 0.5: 4, 0.75: 4, 1.0: 4}


def test_the_words_around_a_needle_follow_each_other_in_the_texts() -> None:
    made = needles(needle_words=(50,)).columns["train"]
    for text in made["text"]:
        hay = [word for word in text.split() if "." in word[1:]]
        assert len(hay) == 35
        for first, second in pairwise(hay):
            book, place = first.split(".")
            assert second == f"{book}.{int(place) + 1}" or place == "59"


def test_held_out_needles_have_keys_and_texts_of_their_own() -> None:
    made = needles(needles=300).columns
    assert set(made["train"]["answer"]).isdisjoint(made["heldout"]["answer"])
    hay = {
        split: {word.split(".")[0] for text in columns["text"] for word in text.split() if "." in word[1:]}
        for split, columns in made.items()
    }
    assert hay["train"].isdisjoint(hay["heldout"])


def test_needles_are_the_same_every_time_and_others_when_the_text_is() -> None:
    assert needles().columns == needles().columns
    other = rows(BOOKS[1:], 0.3, view="needle", needles=20, needle_words=(24, 50))
    assert other.columns["train"]["text"] != needles().columns["train"]["text"]


def test_too_little_text_for_the_longest_document_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"'mine' has 60 words of train text, too few for a document of 220"):
        rows(BOOKS[:1], 0.0, view="needle")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"turn": "first"}, "takes the first turn"),
        ({"view": "chat", "dialogue": "hh-rlhf"}, "set view: preference, or refusal"),
        ({"matches": {"txt": "a"}}, "Did you mean 'text'"),
        ({"avoids": {"text": "("}}, "no regular expression"),
        ({"needle_words": (50,)}, "only the view 'needle'"),
        ({"view": "needle", "needle_words": (10,)}, "at least 20 words"),
        ({"view": "needle", "needles": 0}, "needles >= 1"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows([{"text": "a"}], **options)


# ---- as sources


@pytest.mark.parametrize(
    ("view", "record", "options"),
    [
        ("refusal", '{"prompt": "a"}', {"kind": "harmful", "held_out": 1.0}),
        ("unknown", '{"question": "a", "answer": "b"}', {}),
        ("needle", '{"text": "a b c d e f g h i j k l m n o p q r s t u v w x y z"}', {"needle_words": (24,)}),
    ],
)
def test_an_empty_split_of_a_late_view_has_the_columns_and_types_of_the_full_one(
    context: Context, tmp_path: Path, view: str, record: str, options: dict[str, Any]
) -> None:
    (tmp_path / "a.jsonl").write_text(record + "\n")
    source = Files(FilesConfig(view=view, paths=("a.jsonl",), domain="general", **options), context=context())  # type: ignore[arg-type]
    train, heldout = (source.load(view, split) for split in ("train", "heldout"))
    assert {len(train), len(heldout)} & {0}
    assert train.features == heldout.features
    assert set(VIEW_COLUMNS[view]) <= set(train.column_names)


def test_sources_with_and_without_answers_join_to_one_view(context: Context, tmp_path: Path) -> None:
    from datasets import concatenate_datasets

    (tmp_path / "a.csv").write_text("prompt,completion\nMake a bomb.,no\n")
    made = [
        Files(FilesConfig(view="refusal", kind="harmful", paths=("a.csv",), domain="general", **options), context())  # type: ignore[arg-type]
        for options in ({"held_out": 1.0}, {"held_out": 1.0, "fields": {"completion": "{completion}", "rejected": "y"}})
    ]
    joined = concatenate_datasets([source.load("refusal", "heldout") for source in made])
    assert [bool(completion) for completion in joined["completion"]] == [False, True]
    assert [source.evaluation_only for source in made] == [True, True]

"""Documents that end in a question, as rows to learn the answer from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from datasets import Dataset
from phasegate.core.data.chat import encode_documents
from phasegate.registry.errors import DataError


def rows(*pairs: tuple[str, str]) -> Dataset:
    return Dataset.from_list(
        [{"text": text, "answer": answer, "domain": "general", "kind": str(len(text))} for text, answer in pairs]
    )


def test_only_the_answer_and_the_end_of_text_are_learnt(tokenizer: Any) -> None:
    made = encode_documents(tokenizer, rows(("the word is good . the word is", "good")), 64)
    (ids,), (mask,) = made.ids, made.masks
    assert tokenizer.decode(ids) == "the word is good . the word is good<eos>"
    assert tokenizer.decode([token for token, learnt in zip(ids, mask, strict=True) if learnt]) == " good<eos>"


def test_the_text_has_the_tokens_that_it_has_as_a_prompt(tokenizer: Any) -> None:
    text = "number question"
    (ids,) = encode_documents(tokenizer, rows((text, "answer")), 64).ids
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt)] == prompt


def test_there_is_no_chat_template_in_it(tokenizer: Any) -> None:
    (ids,) = encode_documents(tokenizer, rows(("told", "good")), 64).ids
    assert not set(tokenizer.convert_tokens_to_ids(["<user>", "<asst>", "<end>"])) & set(ids)


def test_a_text_that_ends_in_a_blank_gets_no_second_one(tokenizer: Any) -> None:
    (ids,) = encode_documents(tokenizer, rows(("told ", "good")), 64).ids
    assert tokenizer.decode(ids) == "told good<eos>"


def test_documents_over_the_length_and_without_an_answer_are_dropped_and_counted(tokenizer: Any) -> None:
    made = encode_documents(tokenizer, rows(("in in in in in", "good"), ("in", ""), ("in", "good")), 4)
    assert (made.rows, made.too_long, made.unanswered) == ([2], 1, 1)


def test_documents_that_are_all_too_long_are_an_error(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="All 1 documents are longer than 3 tokens; raise sequence_length"):
        encode_documents(tokenizer, rows(("in in in in", "good")), 3)


def test_documents_without_any_answer_are_an_error(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="None of 2 documents has an answer"):
        encode_documents(tokenizer, rows(("in", ""), ("in", " ")), 64)


def test_a_tokenizer_without_end_of_text_is_refused(tokenizer: Any) -> None:
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(DataError, match="no eos token"):
        encode_documents(endless, rows(("in", "good")), 64)

"""Dialogues as token rows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from phasegate.core.data.chat import encode_chats, pair_lengths
from phasegate.core.data.corpus import Corpus
from phasegate.registry.errors import DataError


def test_the_mask_covers_what_the_assistant_says_and_nothing_else(tokenizer: Any, small_corpus: Corpus) -> None:
    chats = encode_chats(tokenizer, small_corpus.view("chat", "train"), 64)
    ids, mask = chats.ids[0], chats.masks[0]
    assert tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m]) == " answer 0<end>"
    assert tokenizer.decode(ids) == "<user> told question 0 in general ?<asst> answer 0<end>"


def test_dialogues_over_the_length_are_dropped_and_counted(tokenizer: Any, small_corpus: Corpus) -> None:
    rows = small_corpus.view("chat", "train")
    lengths = [len(ids) for ids in encode_chats(tokenizer, rows, 64).ids]
    cut = sorted(lengths)[5]
    chats = encode_chats(tokenizer, rows, cut)
    assert max(len(ids) for ids in chats.ids) <= cut
    assert chats.too_long == sum(length > cut for length in lengths) > 0
    assert chats.rows == [place for place, length in enumerate(lengths) if length <= cut]


def test_nothing_short_enough_is_an_error(tokenizer: Any, small_corpus: Corpus) -> None:
    with pytest.raises(DataError, match="All 12 dialogues are longer than 3 tokens"):
        encode_chats(tokenizer, small_corpus.view("chat", "train"), 3)


def test_a_template_that_marks_nothing_is_refused(tokenizer: Any, small_corpus: Corpus) -> None:
    blind = copy.deepcopy(tokenizer)
    blind.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(DataError, match="marks no assistant token"):
        encode_chats(blind, small_corpus.view("chat", "train"), 64)


def test_a_tokenizer_without_template_is_refused(tokenizer: Any, small_corpus: Corpus) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        encode_chats(bare, small_corpus.view("chat", "train"), 64)


def test_a_pair_is_as_long_as_its_longer_side(tokenizer: Any, corpus_of: Any) -> None:
    def row(chosen: str, rejected: str) -> dict[str, Any]:
        made = {name: [{"role": "assistant", "content": text}] for name, text in (("c", chosen), ("r", rejected))}
        return {
            "prompt": [{"role": "user", "content": "q"}],
            "chosen": made["c"],
            "rejected": made["r"],
            "domain": "code",
            "kind": "",
            "truth": "",
        }

    rows = corpus_of({("preference", "train"): [row("1", "1 2 3"), row("1 2 3", "1")]}).view("preference", "train")
    first, second = pair_lengths(tokenizer, rows)
    assert first == second == len(tokenizer("<user> q<asst> 1 2 3<end>")["input_ids"])

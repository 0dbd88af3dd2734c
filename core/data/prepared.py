"""Tokenised views of a corpus, each made once: packed text, rows with an answer, dialogues packed for replay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...registry.errors import DataError
from .chat import Chats, encode_chats, encode_documents
from .corpus import Corpus, members_of, texts
from .hashing import digest
from .packing import Packed, encode, pack_chats, pack_text, separator_of
from .source import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..config.schema import StepSection
    from .two_sided import Planned


def tokenizer_key(tokenizer: PreTrainedTokenizerFast) -> str:
    """Names what a tokenizer does to a text, whatever truncation or padding its last call left set."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.pop("truncation", None)
    state.pop("padding", None)
    return digest(state, tokenizer.chat_template, tokenizer.eos_token_id)


def packed_text(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, length: int, split: Split) -> Packed:
    """The text of a split, packed domain by domain in the corpus's order; made once per corpus."""

    def make() -> Packed:
        rows = corpus.view("text", split)
        members = members_of(rows)
        documents = [
            (number, encode(tokenizer, texts(rows.select(members[name]))))
            for number, name in enumerate(corpus.domains)
            if name in members
        ]
        return pack_text(documents, length, separator_of(tokenizer))

    return corpus.once(("text", tokenizer_key(tokenizer), length, split), make)


def text_domains(corpus: Corpus) -> list[str]:
    """The domains that have training text, in the corpus's order."""
    named = set(corpus.view("text", "train").unique("domain"))
    return [name for name in corpus.domains if name in named]


def is_dialogue(corpus: Corpus, view: str) -> bool:
    """Whether the rows of a view are dialogues, as against documents that end in a question; ``DataError`` for a view
    whose rows are neither, since nothing in them is an answer."""
    columns = set(corpus.view(view, "train").column_names)
    if {"prompt", "completion"} <= columns:
        return True
    if {"text", "answer"} <= columns:
        return False
    raise DataError(
        f"The view {view!r} has no answers to learn from: its rows are neither dialogues (prompt, completion) nor "
        "documents with an answer (text, answer); choose another view."
    )


def check_answers(plan: Planned, label: str, section: StepSection) -> None:
    """Refuse, before anything is trained, a view without answers or without rows of the step's kinds (``DataError``
    with ``label``, the step's place in the experiment)."""
    try:
        is_dialogue(plan.corpus, section.view)
        for split in ("train", "heldout"):
            plan.corpus.rows(section.view, split, section.kinds)
    except DataError as error:
        raise DataError(f"{label}: {error}") from error


def encoded_answers(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    length: int,
    view: str,
    split: Split,
    kinds: Sequence[str] = (),
) -> Chats:
    """The dialogues or documents of a view, of the named kinds only, tokenised; made once per corpus."""

    def make() -> Chats:
        encode_rows = encode_chats if is_dialogue(corpus, view) else encode_documents
        return encode_rows(tokenizer, corpus.rows(view, split, kinds), length)

    return corpus.once(("answers", tokenizer_key(tokenizer), length, view, split, tuple(kinds)), make)


def replayable_chats(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, length: int, view: str, kinds: Sequence[str] = ()
) -> Packed:
    """The dialogues of a view that may be replayed, packed domain by domain; made once per corpus."""

    def make() -> Packed:
        chats = encoded_answers(corpus, tokenizer, length, view, "train", kinds)
        rows = corpus.rows(view, "train", kinds)
        wanted = rows["replay"][:] if "replay" in rows.column_names else [True] * len(rows)
        by_domain: dict[str, list[tuple[list[int], list[int]]]] = {}
        for place, name, ids, mask in zip(chats.rows, chats.domain, chats.ids, chats.masks, strict=True):
            if wanted[place]:
                by_domain.setdefault(name, []).append((ids, mask))
        packed = [(number, by_domain[name]) for number, name in enumerate(corpus.domains) if name in by_domain]
        return pack_chats(packed, length)

    return corpus.once(("replay", tokenizer_key(tokenizer), length, view, tuple(kinds)), make)

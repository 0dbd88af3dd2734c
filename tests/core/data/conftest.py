"""Small corpora and a small tokenizer for the data tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from phasegate.core.config.schema import DataSection
from phasegate.core.data.corpus import Corpus

Table = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]


class ListSource:
    """A source over rows written out in the test."""

    def __init__(self, table: Table, domains: tuple[str, ...]) -> None:
        self.table, self.named = table, domains

    def fingerprint(self) -> str:
        return "list"

    def domains(self) -> tuple[str, ...]:
        return self.named

    def views(self) -> tuple[str, ...]:
        return tuple(sorted({view for view, _ in self.table}))

    def load(self, view: str, split: str) -> Any:
        from datasets import Dataset

        return Dataset.from_list([dict(row) for row in self.table.get((view, split), ())])


def message(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def numbered(domain: str, count: int, word: str) -> list[dict[str, str]]:
    """Documents that differ in a number, far shorter than a contamination window."""
    return [{"text": f"{word} {domain} number {n} .", "domain": domain} for n in range(count)]


@pytest.fixture
def corpus_of() -> Callable[..., Corpus]:
    """Make a corpus from tables of rows."""

    def make(*tables: Table, domains: tuple[str, ...] = ("general", "code"), **section: Any) -> Corpus:
        sources = {f"list{number}": ListSource(table, domains) for number, table in enumerate(tables)}
        return Corpus(sources, DataSection(**section), Path())

    return make


@pytest.fixture
def small_corpus(corpus_of: Callable[..., Corpus]) -> Corpus:
    """Two domains of text, and six chats and six pairs in each."""

    def chats(word: str) -> list[dict[str, Any]]:
        return [
            {
                "prompt": message("user", f"{word} question {n} in {domain} ?"),
                "completion": message("assistant", f"answer {n}"),
                "domain": domain,
                "kind": "",
                "check": "",
                "replay": n % 2 == 0,
            }
            for domain in ("general", "code")
            for n in range(6)
        ]

    def pairs(word: str) -> list[dict[str, Any]]:
        return [
            {
                "prompt": message("user", f"{word} question {n} in {domain} ?"),
                "chosen": message("assistant", f"good {n}"),
                "rejected": message("assistant", f"bad {n}"),
                "domain": domain,
                "kind": "",
                "truth": "",
            }
            for domain in ("general", "code")
            for n in range(6)
        ]

    return corpus_of(
        {
            ("text", "train"): numbered("general", 60, "told") + numbered("code", 40, "told"),
            ("text", "heldout"): numbered("general", 20, "kept") + numbered("code", 20, "kept"),
            ("chat", "train"): chats("told"),
            ("chat", "heldout"): chats("kept"),
            ("preference", "train"): pairs("told"),
            ("preference", "heldout"): pairs("kept"),
        }
    )


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level tokenizer with the platform's special tokens and chat template."""
    from phasegate.core.model.tokenizer import train_tokenizer

    text = [f"{word} {domain} number question in answer good bad ? ." for word in ("told", "kept") for domain in "gc"]
    with pytest.warns(UserWarning, match="tokens instead of"):
        return train_tokenizer(text, 400)

"""The tokenizer of a run: trained once on the training text of the first phase, or taken from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...registry.atomic import write_json
from ..config.schema import TokenizerSection

if TYPE_CHECKING:
    from ..data.corpus import Corpus


def write_tokenizer(section: TokenizerSection, corpus: Corpus, folder: Path) -> None:
    """Write the run's tokenizer to ``folder``; ``DONE.json`` comes last."""
    from ..model.tokenizer import make_tokenizer

    assert section.vocab_size is not None
    tokenizer = make_tokenizer(section, words_of(corpus, section.documents), section.vocab_size)
    tokenizer.save_pretrained(folder)
    write_json(folder / "DONE.json", {"tokens": len(tokenizer)})


def words_of(corpus: Corpus, documents: int) -> Iterator[str]:
    """Yield ``documents`` training texts, a fifth of them dialogues if there are any; held-out text is never read.

    Dialogues are read because instructions use words that running text may lack.
    """
    chats = corpus.view("chat", "train") if "chat" in corpus.views() else None
    share = min(documents // 5, len(chats)) if chats is not None else 0
    yield from corpus.tokenizer_texts(documents - share)
    if chats is not None:
        for row in chats.select(range(share)):
            yield " ".join(message["content"] for message in (*row["prompt"], *row["completion"]))

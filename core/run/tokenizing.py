"""The tokenizer of a run: trained once on the training text of the first phase, or taken from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.schema import TokenizerSection
from .atomic import write_json

if TYPE_CHECKING:
    from ..data.corpus import Corpus


def write_tokenizer(section: TokenizerSection, corpus: Corpus, folder: Path) -> None:
    """Write the run's tokenizer to ``folder``; ``DONE.json`` comes last."""
    from ..model.tokenizer import make_tokenizer

    assert section.vocab_size is not None
    tokenizer = make_tokenizer(section, tokenizer_texts(corpus, section.documents), section.vocab_size)
    tokenizer.save_pretrained(folder)
    write_json(folder / "DONE.json", {"tokens": len(tokenizer)})


def tokenizer_texts(corpus: Corpus, documents: int) -> Iterator[str]:
    """Yield training documents of all domains in turn, at most ``documents``, then all training dialogues' words.

    Held-out text is never read. Dialogues are read because their instructions use words that running text may lack.
    """
    from ..data.corpus import members_of, texts

    rows = corpus.view("text", "train")
    members = members_of(rows)
    share = max(1, documents // max(1, len(members)))
    for name in sorted(members):
        yield from texts(rows.select(members[name][:share]))
    if "chat" in corpus.views():
        chats = corpus.view("chat", "train")
        for row in chats.select(range(min(share, len(chats)))):
            yield " ".join(message["content"] for message in (*row["prompt"], *row["completion"]))

"""The tokenizer of a run: trained once on the training text of the first phase, or taken from a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...registry.sealed import seal, unseal
from ..config.schema import TokenizerSection

if TYPE_CHECKING:
    from ..data.corpus import Corpus


TOKENIZER = "tokenizer"  # in the work folder of a first stage
DONE = "DONE.json"


def write_tokenizer(section: TokenizerSection, corpus: Corpus, folder: Path) -> None:
    """Write the run's tokenizer to ``folder``; ``DONE.json`` comes last."""
    from ..model.tokenizer import make_tokenizer

    assert section.vocab_size is not None
    shutil.rmtree(folder, ignore_errors=True)  # what a kill left of an earlier attempt
    with corpus.noting() as read:
        tokenizer = make_tokenizer(section, words_of(corpus, section.documents), section.vocab_size)
    tokenizer.save_pretrained(folder)
    seal(
        folder / DONE,
        {"read": sorted(read), "tokens": len(tokenizer)},
        [path for path in folder.iterdir() if path.is_file()],
    )


def made_tokenizer(folder: Path) -> frozenset[str] | None:
    """Return what the tokenizer that ``write_tokenizer`` wrote here learnt from; None where it has not, and
    ``StoreError`` where that is damaged."""
    if not (folder / DONE).exists():
        return None
    facts = unseal(
        folder / DONE,
        f"the tokenizer of the unfinished stage {folder.parent.name}",
        f"move {folder} away and run again to make it anew",
    )
    return frozenset(facts["read"])


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

"""Fixed small sets of text rows, all domains in turn: held-out ones by which an earlier phase is watched, or others."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from .corpus import Corpus
from .prepared import packed_text
from .source import Split

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast


def heldout_rows(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, length: int, rows: int) -> Dataset:
    """Return at most ``rows`` packed rows of held-out text, all domains in turn: input_ids, position_ids, labels."""
    return text_rows(corpus, tokenizer, length, rows, "heldout")


def text_rows(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, length: int, rows: int, split: Split) -> Dataset:
    """The same of either split."""
    from datasets import Dataset

    packed = packed_text(corpus, tokenizer, length, split)
    turns = zip_longest(*packed.members(len(corpus.domains)))
    chosen = [int(row) for row in chain.from_iterable(turns) if row is not None][:rows]
    return Dataset.from_dict(
        {
            "input_ids": packed.ids[chosen].tolist(),
            "position_ids": packed.positions[chosen].tolist(),
            "labels": packed.labels[chosen].tolist(),
        }
    )

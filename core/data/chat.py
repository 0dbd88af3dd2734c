"""Dialogues as token rows with a mask over what the assistant says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...registry.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

_CHUNK = 2_000

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chats:
    """Tokenised dialogues; ``too_long`` counts those that were dropped, ``rows`` says which rows are left."""

    ids: list[list[int]]
    masks: list[list[int]]
    domain: list[str]
    rows: list[int]
    too_long: int

    def __len__(self) -> int:
        return len(self.ids)


def encode_chats(tokenizer: PreTrainedTokenizerFast, rows: Dataset, length: int) -> Chats:
    """Render prompt + completion with the tokenizer's chat template and mark the assistant's tokens.

    Dialogues of more than ``length`` tokens are dropped and counted. ``DataError`` if the template marks nothing
    (it needs ``{% generation %}`` around assistant content) or nothing is short enough.
    """
    chats = Chats(ids=[], masks=[], domain=[], rows=[], too_long=0)
    too_long, place = 0, 0
    for batch in rows.iter(batch_size=_CHUNK):
        conversations = [[*p, *c] for p, c in zip(batch["prompt"], batch["completion"], strict=True)]
        ids, masks = _render(tokenizer, conversations)
        for domain, tokens, mask in zip(batch["domain"], ids, masks, strict=True):
            if len(tokens) > length:
                too_long += 1
            elif not any(mask):
                raise DataError(
                    "The chat template marks no assistant token in a dialogue; put {% generation %} … "
                    "{% endgeneration %} around the assistant's content in it."
                )
            else:
                chats.ids.append(tokens)
                chats.masks.append(mask)
                chats.domain.append(domain)
                chats.rows.append(place)
            place += 1
    if not chats.ids:
        raise DataError(f"All {place} dialogues are longer than {length} tokens; raise sequence_length.")
    return Chats(ids=chats.ids, masks=chats.masks, domain=chats.domain, rows=chats.rows, too_long=too_long)


def _render(
    tokenizer: PreTrainedTokenizerFast, conversations: Sequence[Sequence[Message]]
) -> tuple[list[list[int]], list[list[int]]]:
    if not tokenizer.chat_template:
        raise DataError("The tokenizer has no chat template; set tokenizer.chat_template.")
    encoded: Any = tokenizer.apply_chat_template(
        [list(conversation) for conversation in conversations],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"verbose": False},
    )
    return encoded["input_ids"], encoded["assistant_masks"]


def pair_lengths(tokenizer: PreTrainedTokenizerFast, rows: Dataset) -> list[int]:
    """The longer of (prompt + chosen, prompt + rejected) in tokens, for every preference row."""
    lengths: list[int] = []
    for batch in rows.iter(batch_size=_CHUNK):
        sides = []
        for side in ("chosen", "rejected"):
            conversations = [[*p, *c] for p, c in zip(batch["prompt"], batch[side], strict=True)]
            sides.append([len(ids) for ids in _render(tokenizer, conversations)[0]])
        lengths += [max(pair) for pair in zip(*sides, strict=True)]
    return lengths

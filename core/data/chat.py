"""Dialogues and documents with an answer as token rows, with a mask over what is learnt of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...registry.errors import DataError
from .packing import encode, separator_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

_CHUNK = 2_000

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chats:
    """Tokenised rows; ``rows`` says which are left, ``too_long`` counts those that were dropped for their length and
    ``unanswered`` those in which nothing is said."""

    ids: list[list[int]]
    masks: list[list[int]]
    domain: list[str]
    rows: list[int]
    too_long: int
    unanswered: int = 0

    def __len__(self) -> int:
        return len(self.ids)


def encode_chats(tokenizer: PreTrainedTokenizerFast, rows: Dataset, length: int) -> Chats:
    """Render prompt + completion with the tokenizer's chat template and mark the assistant's tokens.

    Dialogues of more than ``length`` tokens, and those without a completion, are dropped and counted. ``DataError``
    if the template marks nothing (it needs ``{% generation %}`` around assistant content) or nothing is left.
    """
    gathered = _Gathered(length)
    for start in range(0, len(rows), _CHUNK):
        batch = rows[start : start + _CHUNK]
        said = [place for place, completion in enumerate(batch["completion"]) if completion]
        gathered.unanswered += len(batch["completion"]) - len(said)
        ids, masks = _render(tokenizer, [[*batch["prompt"][n], *batch["completion"][n]] for n in said])
        for place, tokens, mask in zip(said, ids, masks, strict=True):
            if not any(mask):
                raise DataError(
                    "The chat template marks no assistant token in a dialogue; put {% generation %} … "
                    "{% endgeneration %} around the assistant's content in it."
                )
            gathered.add(start + place, batch["domain"][place], tokens, mask)
    return gathered.chats(len(rows), "dialogues")


def encode_documents(tokenizer: PreTrainedTokenizerFast, rows: Dataset, length: int) -> Chats:
    """Tokenise ``text``, then ``answer`` and the end of text, and mark the latter two.

    A blank stands between them unless the text ends in white space, and both are tokenised apart, so that the text
    has the tokens that it has as a prompt. Rows of more than ``length`` tokens, and those without an answer, are
    dropped and counted. ``DataError`` if nothing is left or the tokenizer has no end-of-text token.
    """
    gathered, end = _Gathered(length), separator_of(tokenizer)
    questions, answers = rows["text"][:], rows["answer"][:]
    continued = [
        answer if text[-1:].isspace() else f" {answer}" for text, answer in zip(questions, answers, strict=True)
    ]
    encoded = zip(encode(tokenizer, questions), encode(tokenizer, continued), strict=True)
    for place, (question, answer) in enumerate(encoded):
        if answers[place].strip():
            tokens = [*question, *answer, end]
            gathered.add(place, rows["domain"][place], tokens, [0] * len(question) + [1] * (len(answer) + 1))
        else:
            gathered.unanswered += 1
    return gathered.chats(len(rows), "documents")


class _Gathered:
    """Rows that are short enough, and how many were not."""

    def __init__(self, length: int) -> None:
        self.length, self.too_long, self.unanswered = length, 0, 0
        self._kept: list[tuple[int, str, list[int], list[int]]] = []

    def add(self, place: int, domain: str, tokens: list[int], mask: list[int]) -> None:
        if len(tokens) > self.length:
            self.too_long += 1
        else:
            self._kept.append((place, domain, tokens, mask))

    def chats(self, total: int, what: str) -> Chats:
        if not self._kept:
            if self.unanswered == total:
                raise DataError(f"None of {total} {what} has an answer to learn from; choose a view that has.")
            silent = f" or without an answer ({self.unanswered})" if self.unanswered else ""
            raise DataError(f"All {total} {what} are longer than {self.length} tokens{silent}; raise sequence_length.")
        return Chats(
            ids=[tokens for _, _, tokens, _ in self._kept],
            masks=[mask for _, _, _, mask in self._kept],
            domain=[domain for _, domain, _, _ in self._kept],
            rows=[place for place, _, _, _ in self._kept],
            too_long=self.too_long,
            unanswered=self.unanswered,
        )


def _render(
    tokenizer: PreTrainedTokenizerFast, conversations: Sequence[Sequence[Message]]
) -> tuple[list[list[int]], list[list[int]]]:
    if not tokenizer.chat_template:
        raise DataError("The tokenizer has no chat template; set tokenizer.chat_template.")
    if not conversations:
        return [], []
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

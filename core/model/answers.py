"""Answers of a model with what is known of them, and how one answer takes the place of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a model answered to B prompts, after vetoes and abstentions.

    ``sequences`` holds prompts and answers as the library's ``generate`` returns them, ``texts`` the answers without
    special tokens. ``vetoed`` says where the safety anchor put a refusal in place of an answer, ``withheld`` where
    "I don't know" stands in its place. With confidence: ``confidence`` is the calibrated probability that the answer
    is right (NaN where it was vetoed; that of the withheld answer where it was withheld), ``token_confidence`` that of
    every new token (NaN behind an answer's end, and where another text stands), ``abstained`` where the probes decide
    that it is better not to answer, whether or not the answer was withheld.
    """

    sequences: torch.Tensor  # shape: (B, T + T_new)
    texts: tuple[str, ...]
    vetoed: torch.Tensor  # shape: (B,), bool
    withheld: torch.Tensor  # shape: (B,), bool
    confidence: torch.Tensor | None = None  # shape: (B,)
    token_confidence: torch.Tensor | None = None  # shape: (B, T_new)
    abstained: torch.Tensor | None = None  # shape: (B,), bool


def encode_answer(tokenizer: Any, text: str) -> list[int]:
    """The tokens of an answer as the chat template renders it, with what ends it."""
    if tokenizer.chat_template:
        question = [{"role": "user", "content": "?"}]
        opened = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*question, {"role": "assistant", "content": text}], tokenize=False)
        if whole.startswith(opened):
            return list(tokenizer(whole[len(opened) :], add_special_tokens=False)["input_ids"])
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], *end]


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, text: str | Sequence[str] | None, messages: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts, or dialogues that await an answer, as ids and mask, shape (B, T), padded on the left."""
    if messages is not None:
        dialogues = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        rendered: Any = tokenizer.apply_chat_template(dialogues, tokenize=False, add_generation_prompt=True)
        options = {"add_special_tokens": False}  # the template has put them where they belong
    else:
        rendered, options = [text] if isinstance(text, str) else list(text or ()), {}
    encoded = tokenizer(rendered, return_tensors="pt", padding=True, padding_side="left", **options)
    return encoded["input_ids"], encoded["attention_mask"]


def spoken_tokens(new: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
    """Which of the new tokens (B, T) belong to an answer, bool: all up to and with the first that ends it."""
    ended = torch.isin(new, torch.tensor(list(ends), dtype=new.dtype, device=new.device))
    return (ended.cumsum(1) - ended.long()) == 0


def replace_rows(new: torch.Tensor, where: torch.Tensor, tokens: Sequence[int], pad: int) -> torch.Tensor:
    """New tokens (B, T) in which the rows ``where`` (B,) are ``tokens``; all rows padded on the right if that is
    longer."""
    if not bool(where.any()):
        return new
    width = max(new.shape[1], len(tokens))
    wider = new.new_full((len(new), width), pad)
    wider[:, : new.shape[1]] = new
    row = new.new_full((width,), pad)
    row[: len(tokens)] = torch.tensor(list(tokens), dtype=new.dtype, device=new.device)
    wider[where] = row
    return wider

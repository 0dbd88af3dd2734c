"""A model's own answers to questions, with the hidden states that they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...registry.errors import DataError
from ..model.answers import spoken_tokens
from ..model.tokenizer import stop_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnswerBatch:
    """Answers to B questions, of at most T tokens each with the one that ends it.

    ``places`` are the questions' numbers, ``states`` the hidden states that predicted each token (the first is the end
    of the prompt), embedding first, ``spoken`` says which tokens belong to an answer. ``softmax`` is the mean over an
    answer's tokens of the largest probability, ``log_probability`` the sum of the log-probabilities of its tokens.
    """

    places: tuple[int, ...]
    texts: tuple[str, ...]
    states: tuple[torch.Tensor, ...]  # L + 1 times (B, T, d)
    spoken: torch.Tensor  # shape: (B, T), bool
    softmax: torch.Tensor  # shape: (B,)
    log_probability: torch.Tensor  # shape: (B,)


@torch.no_grad()
def own_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[str],
    *,
    batch: int,
    new_tokens: int,
    sampled: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Iterator[AnswerBatch]:
    """Pose each question as a user message and answer it by the library's ``generate``: greedily, or ``sampled`` at
    temperature 1 from the whole vocabulary with torch's random stream.

    Questions of like length are answered together, ``batch`` at a time (last bits depend on who shares a batch);
    ``check`` is called before each batch and may raise. The model should be in eval mode.
    """
    if not tokenizer.chat_template:
        raise DataError("The tokenizer has no chat template to pose questions with; set tokenizer.chat_template.")
    prompts = _prompts(tokenizer, questions)
    ends = sorted({*stop_tokens(tokenizer), *_ends(model)})
    draw: dict[str, Any] = (
        {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sampled else {"do_sample": False}
    )
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    for begin in range(0, len(order), batch):
        check()
        places = order[begin : begin + batch]
        ids, mask = _padded([prompts[place] for place in places], tokenizer.pad_token_id, model.device)
        generator: Any = model
        found = generator.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_hidden_states=True,
            output_logits=True,
            **draw,
        )
        new = found.sequences[:, ids.shape[1] :]  # shape: (B, T)
        spoken = spoken_tokens(new, ends)
        log_p = torch.stack(found.logits, 1).float().log_softmax(-1)  # shape: (B, T, V)
        largest = log_p.amax(-1).exp().masked_fill(~spoken, 0.0).sum(1) / spoken.sum(1)
        own = log_p.gather(-1, new[..., None])[..., 0].masked_fill(~spoken, 0.0).sum(1)
        layers = range(len(found.hidden_states[0]))
        # The first step holds the whole prompt, each later one a single token: the last state predicts what follows.
        states = tuple(torch.stack([step[layer][:, -1] for step in found.hidden_states], 1) for layer in layers)
        kept = new.masked_fill(~spoken, tokenizer.pad_token_id)
        texts = tuple(text.strip() for text in tokenizer.batch_decode(kept, skip_special_tokens=True))
        yield AnswerBatch(
            places=tuple(places), texts=texts, states=states, spoken=spoken, softmax=largest, log_probability=own
        )


def _prompts(tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]) -> list[list[int]]:
    dialogues = [[{"role": "user", "content": question}] for question in questions]
    rendered: Any = tokenizer.apply_chat_template(dialogues, tokenize=False, add_generation_prompt=True)
    encoded: list[list[int]] = tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]
    return encoded


def _ends(model: PreTrainedModel) -> list[int]:
    ends: Any = getattr(model.generation_config, "eos_token_id", None)
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, padded on the left, where generation needs it. shape: (B, T), (B, T)"""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask

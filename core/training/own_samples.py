"""A model's own continuations of prompts: what a draft model, or any other student, learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ...registry.errors import StoreError
from ..model.answers import spoken_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

_BATCH = 128  # fixed, because who shares a batch decides the last bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A prompt and what the model said after it, with the token that ends it if it came to an end."""

    prompt: Sequence[int]
    answer: Sequence[int]


@torch.no_grad()
def own_samples(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    temperature: float,
    ends: Sequence[int],
    pad: int,
    check: Callable[[], None] = lambda: None,
) -> list[Sample]:
    """One continuation of every prompt, in order, drawn at ``temperature`` from the whole vocabulary with torch's
    random stream; greedy at temperature 0.

    Prompts of like length are continued together; ``check`` is called before each batch and may raise. The model
    should be in eval mode.
    """
    draw: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature > 0
        else {"do_sample": False}
    )
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda place: (len(prompts[place]), place))
    generator: Any = model
    for begin in range(0, len(order), _BATCH):
        check()
        places = order[begin : begin + _BATCH]
        width = max(len(prompts[place]) for place in places)
        ids = torch.full((len(places), width), pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, place in enumerate(places):
            prompt = prompts[place]
            ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, width - len(prompt) :] = 1
        found = generator.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=new_tokens,
            eos_token_id=list(ends),
            pad_token_id=pad,
            **draw,
        )
        new = found[:, width:]
        counts = spoken_tokens(new, ends).sum(1).tolist()
        for place, tokens, count in zip(places, new.tolist(), counts, strict=True):
            answers[place] = tokens[:count]
    return [Sample(prompt=prompt, answer=answer) for prompt, answer in zip(prompts, answers, strict=True)]


def to_bytes(samples: Sequence[Sample]) -> bytes:
    """Samples as the content of a safetensors file."""
    parts = [part for sample in samples for part in (sample.prompt, sample.answer)]
    return save(
        {
            "ids": np.asarray([token for part in parts for token in part], dtype=np.int64),
            "sizes": np.asarray([len(part) for part in parts], dtype=np.int64),
        }
    )


def read_samples(path: Path) -> list[Sample]:
    """Read what ``to_bytes`` made; ``StoreError`` for a damaged file."""
    try:
        content = load(path.read_bytes())
        parts = np.split(content["ids"], np.cumsum(content["sizes"])[:-1])
    except (KeyError, OSError, SafetensorError, ValueError) as error:
        raise StoreError(f"The samples in {path} cannot be read ({error}); remove the file and run again.") from error
    lists = [part.tolist() for part in parts]
    return [Sample(prompt=prompt, answer=answer) for prompt, answer in zip(lists[::2], lists[1::2], strict=True)]

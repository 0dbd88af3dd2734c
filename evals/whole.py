"""A model for lm-eval that scores texts whole where its positions allow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM
from torch import nn

from ..registry.errors import DataError


class Whole(HFLM):
    """``HFLM`` whose context length grows to the longest request.

    ``HFLM`` cuts the beginning of a text off that is longer than its ``max_length``, few-shot examples and question
    first, and stops where an answer alone is longer. A model with rotary positions reads on: what it makes of places
    it was not trained on is its own affair, and shows in the score. A model with a table of positions cannot, so
    its texts are cut as ``HFLM`` cuts them. ``longer`` counts the requests that had more tokens than ``max_length``.
    """

    def __init__(self, *, pretrained: Any, tokenizer: Any, batch_size: int, max_length: int | None) -> None:
        self._room = 0
        self.longer = 0
        super().__init__(pretrained=pretrained, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length)
        self._bounded = has_position_table(pretrained)

    @property
    def max_length(self) -> int:
        return max(int(super().max_length), self._room)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        pairs = [request.args for request in requests]
        self._check_answers([answer for _, answer in pairs])
        self._make_room([(context + answer, 0) for context, answer in pairs])
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        new = int(self.max_gen_toks)
        self._make_room([(prompt, int(kwargs.get("max_gen_toks") or new)) for prompt, kwargs in map(_args, requests)])
        found: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return found

    def _check_answers(self, answers: Sequence[str]) -> None:
        """``HFLM`` would stop with an assertion where an answer is longer than a table of positions."""
        limit = self.max_length
        if self._bounded and any(
            len(answer.encode()) > limit and len(self.tok_encode(answer)) > limit for answer in set(answers)
        ):
            raise DataError(
                f"this benchmark has answers longer than the {limit} positions of the model: leave the benchmark out "
                "for this model."
            )

    def _make_room(self, texts: Sequence[tuple[str, int]]) -> None:
        """Count what is longer than the context length, and grow it where the model can."""
        limit = self.max_length
        longest = limit
        for text, new in texts:
            if len(text.encode()) + new <= limit:  # no more tokens than bytes
                continue
            tokens = len(self.tok_encode(text)) + new + 1
            self.longer += tokens > limit
            longest = max(longest, tokens)
            if self._bounded and new >= limit:
                raise DataError(
                    f"the answers of this benchmark may have {new} tokens, but the model has {limit} positions: "
                    "leave the benchmark out for this model."
                )
        if not self._bounded:
            self._room = max(self._room, longest)


def has_position_table(model: nn.Module) -> bool:
    """Whether a model looks positions up in a table that ends (GPT-2, OPT), where rotary ones go on."""
    own = getattr(model, "get_input_embeddings", lambda: None)()
    return any(
        isinstance(module, nn.Embedding)
        and module is not own
        and any(word in name.rpartition(".")[2].lower() for word in ("wpe", "position"))
        for name, module in model.named_modules()
    )


def _args(request: Any) -> tuple[str, dict[str, Any]]:
    prompt, kwargs = request.args
    return prompt, kwargs

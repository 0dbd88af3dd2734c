"""Does a model that remembers say the same token by token as at once?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from ...evals.context import MeasureContext
from ...evals.measurement import Measurement
from .measuring import NotMeasured, check_finite, or_missing
from .texts import heldout_texts


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrenceConfig:
    """Which text: the first ``tokens`` tokens of ``rows`` documents of ``view`` and ``split``, evenly over domains."""

    view: str = "text"
    split: str = "heldout"
    rows: Annotated[int, Field(ge=1)] = 8
    tokens: Annotated[int, Field(ge=2)] = 48


class RecurrenceGate:
    """One pass over whole texts against the same texts read token by token, with what the layers keep in the cache.

    Metrics: ``max_difference``, the largest difference of any logit between the two. It is exact, and about 1e-4 in
    fp32 where both forms of a layer compute the same; more means that one of them is wrong, or that a router's choice
    hangs on the last digit.
    """

    def __init__(self, config: RecurrenceConfig | None = None) -> None:
        self.config = config or RecurrenceConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(("max_difference",), lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from ...evals.undisturbed import undisturbed

        check_finite(ctx)
        config = self.config
        texts = heldout_texts(replace(ctx, documents=config.rows), config.view, config.split, config.tokens)
        if not texts.ids:
            raise NotMeasured("the held-out documents hold no text")
        # Padding on the right is read after all that counts, in both ways.
        ids = pad_sequence([torch.tensor(document) for document in texts.ids], batch_first=True).to(ctx.model.device)
        lengths = torch.tensor([len(document) for document in texts.ids], device=ids.device)
        apart, cache = [], None
        with undisturbed(ctx.model), torch.inference_mode():
            whole = ctx.model(input_ids=ids, use_cache=False).logits  # shape: (B, T, V)
            for place in range(ids.shape[1]):
                read = ctx.model(input_ids=ids[:, place : place + 1], past_key_values=cache, use_cache=True)
                cache, there = read.past_key_values, place < lengths
                apart.append((read.logits[there, -1].float() - whole[there, place].float()).abs().max())
        largest = float(torch.stack(apart).max())  # NaN where any is
        if not math.isfinite(largest):
            raise NotMeasured("the model's logits are not finite numbers")
        return {
            "max_difference": Measurement(metric="max_difference", value=largest, n=len(texts.ids), kind="exact"),
        }

"""What a model says of one fixed row, gradients and all: the path that learns is the one to be shown."""

from __future__ import annotations

from typing import Any

import torch


def logits_of(model: Any, length: int = 24) -> torch.Tensor:
    """Return the logits in evaluation mode, shape (1, length, V), in fp32."""
    ids = (torch.arange(length) * 5 % model.get_input_embeddings().weight.shape[0])[None]
    return torch.as_tensor(model.eval()(input_ids=ids, use_cache=False)["logits"]).detach().float()

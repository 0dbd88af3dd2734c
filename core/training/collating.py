"""Collators: rows in, tensors out, with the domain of every row beside what the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...registry.errors import DataError

Row = Mapping[str, Any]


def causal_batch(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """``input_ids``, ``position_ids``, ``labels``, shape (B, T), and ``domain``, shape (B,), of packed rows.

    There is no attention mask: positions that start anew separate the documents of a row.
    """
    batch = {
        column: torch.from_numpy(np.stack([np.asarray(row[column], dtype=np.int64) for row in rows]))
        for column in ("input_ids", "position_ids", "labels")
    }
    batch["domain"] = _domains(rows)
    return batch


class ChatCollator:
    """Pads tokenised conversations to the right and supervises the assistant's tokens only.

    ``input_ids``, ``attention_mask``, ``labels``, shape (B, T), and ``domain``, shape (B,).
    Raises ``DataError`` for a batch in which no token is supervised.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        length = max(len(row["input_ids"]) for row in rows)
        ids = np.full((len(rows), length), self.pad, dtype=np.int64)
        labels = np.full((len(rows), length), -100, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for number, row in enumerate(rows):
            tokens = np.asarray(row["input_ids"], dtype=np.int64)
            spoken = np.asarray(row["assistant_masks"], dtype=bool)
            ids[number, : len(tokens)] = tokens
            mask[number, : len(tokens)] = 1
            labels[number, : len(tokens)][spoken] = tokens[spoken]
        if not (labels[:, 1:] != -100).any():
            raise DataError(
                f"a batch of {len(rows)} chat rows has no assistant token to learn from; "
                "put {% generation %} around the assistant's content in the chat template"
            )
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(labels),
            "domain": _domains(rows),
        }


class WithDomain:
    """Adds the rows' ``domain`` to what another collator makes of them."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {**self.collate(rows), "domain": _domains(rows)}


def _domains(rows: Sequence[Row]) -> torch.Tensor:
    return torch.tensor([int(row.get("domain", -1)) for row in rows], dtype=torch.int64)

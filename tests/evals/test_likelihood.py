"""Scores of documents: the definition, whatever the batches are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from phasegate.evals.likelihood import batches_of, mean_log_likelihoods
from phasegate.registry.errors import DataError

DOCUMENTS = [[5, 6, 7, 8], [9], [10, 11], [12, 13, 14], [15, 16, 17, 18, 19, 20]]


def by_definition(model: Any, document: list[int]) -> float:
    with torch.inference_mode():
        logits = model.eval()(input_ids=torch.tensor([[1, *document[:-1]]])).logits[0]
    return float(logits.log_softmax(-1)[range(len(document)), document].mean())


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_a_score_is_the_mean_log_probability_of_the_tokens(model: Any, batch_size: int) -> None:
    batches = batches_of(DOCUMENTS, prefix=1, batch_size=batch_size, vocab_size=320)
    expected = [by_definition(model, document) for document in DOCUMENTS]
    assert mean_log_likelihoods(model, batches) == pytest.approx(expected, abs=1e-6)


def test_a_large_vocabulary_makes_smaller_batches() -> None:
    """2^26 logits hold 11 rows of 6 tokens at a million words, and 1 at 2^26."""
    assert len(batches_of(DOCUMENTS * 4, prefix=1, batch_size=64, vocab_size=10**6)[0].places) == 11
    assert [len(b.places) for b in batches_of(DOCUMENTS, prefix=1, batch_size=64, vocab_size=2**26)] == [1] * 5


def test_the_models_mode_is_left_as_it_was(model: Any) -> None:
    model.train()
    mean_log_likelihoods(model, batches_of(DOCUMENTS, prefix=1, batch_size=2, vocab_size=320))
    assert model.training


@pytest.mark.parametrize("documents", [[], [[1, 2], []]])
def test_nothing_to_score_is_an_error(documents: list[list[int]]) -> None:
    with pytest.raises(DataError, match="no text to score"):
        batches_of(documents, prefix=1, batch_size=2, vocab_size=320)

"""Own samples: in order, up to the token that ends them, whole on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.training.own_samples import Sample, own_samples, read_samples, to_bytes
from phasegate.registry.errors import StoreError

PROMPTS = [[7, 8, 9, 10], [11], [12, 13], [14, 15, 16, 17, 18], [19]]


@pytest.fixture
def model(make_model: Callable[..., Any]) -> Any:
    return make_model(initializer_range=0.5).eval()


def test_greedy_samples_are_what_each_prompt_alone_would_get(model: Any) -> None:
    found = own_samples(model, PROMPTS, new_tokens=6, temperature=0.0, ends=[20, 30], pad=0)
    for prompt, sample in zip(PROMPTS, found, strict=True):
        alone = model.generate(
            torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=[20, 30], pad_token_id=0
        )
        assert (list(sample.prompt), list(sample.answer)) == (prompt, alone[0, len(prompt) :].tolist())


def test_an_answer_ends_with_the_token_that_ends_it(model: Any) -> None:
    ends = list(range(6, 30))
    found = own_samples(model, PROMPTS * 4, new_tokens=12, temperature=1.0, ends=ends, pad=0)
    assert all(1 <= len(sample.answer) <= 12 for sample in found)
    for sample in found:
        assert not set(sample.answer[:-1]) & set(ends)
        assert sample.answer[-1] in ends or len(sample.answer) == 12


def test_sampling_follows_the_random_stream(model: Any) -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        samples = own_samples(model, PROMPTS, new_tokens=8, temperature=1.0, ends=[1], pad=0)
        found.append([list(sample.answer) for sample in samples])
    assert found[0] == found[1] != found[2]


def test_every_batch_may_be_the_last(model: Any) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_samples(model, PROMPTS, new_tokens=2, temperature=0.0, ends=[1], pad=0, check=stop)


def test_samples_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    samples = [Sample(prompt=[3, 4], answer=[5]), Sample(prompt=[6], answer=[7, 8, 9])]
    path = tmp_path / "samples.safetensors"
    path.write_bytes(to_bytes(samples))
    assert read_samples(path) == samples
    path.write_bytes(to_bytes(samples)[:-9])
    with pytest.raises(StoreError, match="cannot be read"):
        read_samples(path)

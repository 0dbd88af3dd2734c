"""Tiny random models and a tiny tokenizer: enough to run every gate in milliseconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from datasets import Dataset
from phasegate.evals.context import MeasureContext
from phasegate.registry.errors import DataError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}<asst>{% generation %}{{ m['content'] }}<end>{% endgeneration %}"
    "{% else %}<user>{{ m['content'] }}<end>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<asst>{% endif %}"
)
WORDS = "the cat sat on a red mat and ate one small fish while it rained over the old town by the sea"


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<eos>", "<user>", "<asst>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([WORDS] * 4, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    made.add_special_tokens({"additional_special_tokens": ["<user>", "<asst>", "<end>"]})
    made.chat_template = TEMPLATE
    return made


def build_model(seed: int = 0) -> Qwen3MoeForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=32,
        moe_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=1,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return Qwen3MoeForCausalLM(config)


@pytest.fixture
def model() -> Qwen3MoeForCausalLM:
    return build_model(0)


@pytest.fixture
def other_model() -> Qwen3MoeForCausalLM:
    return build_model(1)


def routers(model: Any) -> Sequence[tuple[str, int, Any]]:
    found = [(name, module) for name, module in model.named_modules() if name.endswith("mlp.gate")]
    return [(name, layer, module) for layer, (name, module) in enumerate(found)]


Views = Mapping[str, Sequence[Mapping[str, Any]]]


@pytest.fixture
def context(
    model: Qwen3MoeForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Callable[..., MeasureContext]:
    """A context over rows given by view name; other views are missing."""

    def make(views: Views, **changes: Any) -> MeasureContext:
        def view(name: str, split: str) -> Dataset:
            if name not in views:
                raise DataError(f"no source gives the view '{name}'")
            return Dataset.from_list([dict(row) for row in views[name]])

        settings: dict[str, Any] = {
            "model": model,
            "tokenizer": tokenizer,
            "view": view,
            "domains": ("general", "code"),
            "folder": tmp_path / "evidence",
            "root": tmp_path,
            "routers": routers,
            "length": 64,
        }
        return MeasureContext(**(settings | changes))

    return make


@pytest.fixture
def questions() -> list[dict[str, Any]]:
    """Twelve questions over two domains with three choices each."""
    things = ["cat", "mat", "fish", "town"]
    return [
        {
            "question": f"what is thing {i} ?",
            "choices": [things[i % 4], things[(i + 1) % 4], things[(i + 2) % 4]],
            "answer": i % 3,
            "domain": "general" if i < 6 else "code",
            "kind": "head" if i % 2 else "rare",
            "seen": i % 4 == 0,
        }
        for i in range(12)
    ]

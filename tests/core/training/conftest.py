"""Tiny models, tokenizers, rows and jobs for the training tests."""

from __future__ import annotations

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from phasegate.core.config.schema import Ref, StepSection, Weight
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.parameters import routers_of
from phasegate.core.training.job import StepJob
from phasegate.core.training.terms import LossSetup, WeightedLoss
from phasegate.registry.plugins import Plugins
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

DOMAINS = ("general", "code", "science")
VOCABULARY, EXPERTS, TOP_K, LAYERS = 48, 4, 2, 2
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<user> {{ m['content'] }} {% else %}<asst> "
    "{% generation %}{{ m['content'] }} <end>{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<asst> {% endif %}"
)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
    # Every trainer collects garbage several times, which costs a quarter of a second over all imported modules.
    gc.freeze()


@pytest.fixture
def domains() -> tuple[str, ...]:
    return DOMAINS


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    """A stock Qwen3-MoE of 2 layers, 4 experts, top-2; equal seeds give equal bits."""

    def make(seed: int = 0, **changes: Any) -> PreTrainedModel:
        options = {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "moe_intermediate_size": 8,
            "intermediate_size": 16,
            "num_experts": EXPERTS,
            "num_experts_per_tok": TOP_K,
            "max_position_embeddings": 64,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,
            "pad_token_id": 0,
        } | changes
        torch.manual_seed(seed)
        return Qwen3MoeForCausalLM(Qwen3MoeConfig(**options))

    return make


@pytest.fixture
def platform_model() -> PreTrainedModel:
    """The platform's own MoE, whose routers have a selection bias."""
    derived = {
        "hidden_size": 16,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "head_dim": 8,
        "moe_intermediate_size": 8,
        "num_experts": EXPERTS,
        "num_experts_per_tok": 1,
        "initializer_range": 0.2,
    }
    registry = Plugins.load(()).components()
    context = ModelContext(
        registry=registry, router=Ref(use="linear"), derived=derived, vocab_size=VOCABULARY, sequence_length=16
    )
    return registry.build("model", "moe", {}, context=context).build(seed=0)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<eos>", "<user>", "<asst>", "<end>", "<unk>", *(f"w{n}" for n in range(VOCABULARY - 6))]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
    )


@pytest.fixture
def causal_rows() -> Callable[..., Dataset]:
    """Packed rows of 12 tokens, two documents each; some rows of unknown domain."""

    def make(count: int, seed: int = 0, length: int = 12) -> Dataset:
        random = np.random.default_rng(seed)
        tokens = random.integers(6, VOCABULARY, (count, length))
        return Dataset.from_dict(
            {
                "input_ids": tokens,
                "position_ids": np.tile(np.arange(length // 2), (count, 2)),
                "labels": tokens,
                "domain": random.integers(-1, len(DOMAINS), count),
            }
        )

    return make


@pytest.fixture
def chat_rows() -> Callable[..., Dataset]:
    """Tokenised conversations of 6 to 14 tokens, the last third spoken by the assistant."""

    def make(count: int, seed: int = 0) -> Dataset:
        random = np.random.default_rng(seed)
        lengths = random.integers(6, 15, count)
        return Dataset.from_dict(
            {
                "input_ids": [random.integers(6, VOCABULARY, n).tolist() for n in lengths],
                "assistant_masks": [[0] * (n - n // 3) + [1] * (n // 3) for n in lengths],
                "domain": random.integers(0, len(DOMAINS), count),
            }
        )

    return make


@pytest.fixture
def pair_rows() -> Callable[..., Dataset]:
    """Preference pairs as messages, answers of one length."""

    def make(count: int, seed: int = 0) -> Dataset:
        random = np.random.default_rng(seed)

        def say(role: str, words: int) -> list[dict[str, str]]:
            return [{"role": role, "content": " ".join(f"w{n}" for n in random.integers(0, 42, words))}]

        return Dataset.from_dict(
            {
                "prompt": [say("user", int(random.integers(2, 6))) for _ in range(count)],
                "chosen": [say("assistant", 3) for _ in range(count)],
                "rejected": [say("assistant", 3) for _ in range(count)],
                "domain": random.integers(-1, len(DOMAINS), count),
            }
        )

    return make


class FakeReplay:
    """Replay rows as a pure function of the step, dealt out over micro-batches and processes."""

    def __init__(self, rows: int, accumulate: int) -> None:
        self.rows, self.accumulate = rows, accumulate

    def batch(self, step: int, micro: int, rank: int, world: int) -> Mapping[str, torch.Tensor]:
        random = torch.Generator().manual_seed(step)
        ids = torch.randint(6, VOCABULARY, (self.rows, 10), generator=random)
        lengths = torch.randint(4, 11, (self.rows, 1), generator=random)
        mask = (torch.arange(10) < lengths).long()
        batch = {
            "input_ids": ids * mask,
            "position_ids": torch.arange(10).expand(self.rows, 10),
            "attention_mask": mask,
            "labels": torch.where(mask.bool(), ids, -100),
            "domain": torch.arange(self.rows) % len(DOMAINS),
        }
        part = slice(micro * world + rank, None, self.accumulate * world)
        return {key: value[part] for key, value in batch.items()}


@pytest.fixture
def make_replay() -> Callable[[int, int], FakeReplay]:
    return FakeReplay


@pytest.fixture
def make_losses(domains: tuple[str, ...]) -> Callable[..., tuple[WeightedLoss, ...]]:
    """Built-in loss terms for a model, through the registry."""

    def make(model: PreTrainedModel, **weights: Weight | float) -> tuple[WeightedLoss, ...]:
        routers = routers_of(model)
        setup = LossSetup(
            model=model,
            domains=domains,
            experts=EXPERTS,
            top_k=int(routers[0][2].top_k),
            layers=len(routers),
            world_size=1,
            accumulate=1,
        )
        registry = Plugins.load(()).components()
        options: dict[str, dict[str, Any]] = {"domain-entropy": {"general_floor": 1.2}}
        chosen = weights or {"balance": Weight(start=0.5, end=0.1), "domain_entropy": 0.3, "z": 0.01}
        names = {key.replace("_", "-"): weight for key, weight in chosen.items()}
        return tuple(
            WeightedLoss(
                name=name,
                loss=registry.build("loss", name, options.get(name, {}), setup=setup),
                weight=weight,
                options=options.get(name, {}),
            )
            for name, weight in names.items()
        )

    return make


@pytest.fixture
def make_job(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, domains: tuple[str, ...]) -> Callable[..., StepJob]:
    """A job with small defaults; ``section`` holds changes to the step's section."""

    def make(model: PreTrainedModel, train: Dataset, section: Mapping[str, Any], **changes: Any) -> StepJob:
        values: dict[str, Any] = {
            "objective": "causal",
            "model": model,
            "tokenizer": tokenizer,
            "train": train,
            "heldout": None,
            "replay": None,
            "section": StepSection(**{"warmup": 0.0, "clip": 0.0, **section}),
            "losses": (),
            "domains": domains,
            "seed": 0,
            "folder": tmp_path / "job",
            "logging_steps": 1,
            "save_steps": 1000,
        }
        return StepJob(**(values | changes))

    return make

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from phasegate.core.config.schema import Ref
from phasegate.core.model.anchors import Guard
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.companions import trunk_digest
from phasegate.core.model.probes import Probes
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.core.model.trit_file import ExpertCodes
from phasegate.registry.components import AnchorSpec
from phasegate.registry.entries import Entry
from phasegate.registry.plugins import Plugins
from phasegate.registry.registry import Registry
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

logging.disable_progress_bar()

TEXTS = (
    "the cat sat on 12 mats , and the dog ate 345 bones .",
    "what is the capital of brum ? the capital of brum is zarin .",
    "o gato come a maçã e a menina bebe água .",
    "def add ( a , b ) : return a + b",
)

NANO = {
    "head_dim": 8,
    "hidden_size": 32,
    "initializer_range": 0.06,
    "moe_intermediate_size": 16,
    "num_attention_heads": 4,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
}

Context = Callable[..., ModelContext]
Build = Callable[..., PreTrainedModel]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Plugins.load(()).components()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 4, 300)


@pytest.fixture(scope="session")
def context(registry: Registry) -> Context:
    def make(router: str = "linear", options: Mapping[str, Any] | None = None, **changes: Any) -> ModelContext:
        derived = {**NANO, **{key: changes.pop(key) for key in tuple(changes) if key in NANO}}
        defaults: dict[str, Any] = {"registry": registry, "vocab_size": 300, "sequence_length": 32}
        return ModelContext(router=Ref(use=router, options=options or {}), derived=derived, **{**defaults, **changes})

    return make


@pytest.fixture(scope="session")
def build(context: Context) -> Build:
    """Build a tiny model: ``build(gate="normalized", num_experts_per_tok=1, seed=3, options={...})``."""

    def make(
        gate: str = "softmax", seed: int = 0, options: Mapping[str, Any] | None = None, **changes: Any
    ) -> PreTrainedModel:
        ready = context(options={"gate": gate}, **changes)
        model: PreTrainedModel = ready.registry.build("model", "moe", options or {}, context=ready).build(seed)
        return model.eval()

    return make


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(5, 290, (2, 16), generator=torch.Generator().manual_seed(7))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneConfig:
    """``at``: where the plane is."""

    at: float = 0.0


class Plane:
    """A safety anchor for tests: vetoes states whose first number is above ``at``."""

    def __init__(self, config: PlaneConfig) -> None:
        self.config = config
        self.weight = torch.tensor([1.0])

    def capture(self, model: Any, material: Any) -> None:
        """Nothing is learnt."""

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[..., 0] * self.weight.to(hidden.device) - self.config.at

    def penalty(self, model: Any, turn: int | None = None) -> torch.Tensor:
        return torch.zeros(())

    def save(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return {"seen": 3}, {"weight": self.weight}

    def restore(self, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        if facts["seen"] != 3:
            raise ValueError("it has seen something else")
        self.weight = tensors["weight"]


@pytest.fixture(scope="session")
def with_plane(registry: Registry) -> Registry:
    """The built-ins and the anchor ``elsewhere:plane``."""
    spec = AnchorSpec(name="plane", target=Plane, config=PlaneConfig, revision=2)
    return Registry((*registry, Entry(dist="elsewhere", version="1", component=spec)))


@pytest.fixture
def make_guard() -> Callable[..., Guard]:
    """A guard over the plane at ``at``; by default it vetoes nothing."""

    def make(model: Any, at: float = 1e9, **changes: Any) -> Guard:
        settings: dict[str, Any] = {
            "reference": "elsewhere:plane",
            "revision": 2,
            "options": {"at": at},
            "anchor": Plane(PlaneConfig(at=at)),
            "digest": trunk_digest(model),
            "refusal": "no .",
        }
        return Guard(**(settings | changes))

    return make


@pytest.fixture
def make_probes() -> Callable[..., Probes]:
    """Probes of layer 1 of a model of width 32 that were fitted to the trunk with this digest."""

    def make(trunk: str) -> Probes:
        return Probes(
            layers=(1,),
            weight=torch.ones(1, 2, 32),
            bias=torch.zeros(1),
            penalties={"a": 2.0},
            position="both",
            pool="mean",
            trunk=trunk,
        )

    return make


@pytest.fixture(scope="session")
def same_codes() -> Callable[..., bool]:
    """Whether two experts are the same codes to the bit."""

    def compare(one: ExpertCodes, other: ExpertCodes) -> bool:
        return one.keys() == other.keys() and all(
            a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
            for key in one
            for a, b in zip(one[key], other[key], strict=True)
        )

    return compare


@pytest.fixture(scope="session")
def reseal() -> Callable[[bytes], bytes]:
    """Data whose last four bytes become the CRC32 of the rest."""
    return lambda data: data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))

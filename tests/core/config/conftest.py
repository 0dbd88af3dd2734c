"""A small registry of stand-in components, and helpers to load experiments written in a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from phasegate import ConfigError, GateSpec, LossSpec, ModelSpec, PhaseSpec, RouterSpec, SourceSpec
from phasegate.core.config.complete import complete
from phasegate.core.config.loading import Loaded, load_experiment
from phasegate.core.config.schema import Experiment
from phasegate.registry.entries import Entry
from phasegate.registry.registry import Registry


@dataclass(frozen=True, kw_only=True)
class GroundConfig:
    length: int = 50


class Ground:
    def __init__(self, config: GroundConfig) -> None:
        self.config = config

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "steps": {
                "learn": {
                    "steps": self.config.length,
                    "rows": derived["rows"],
                    "learning_rate": derived["learning_rate"],
                    "schedule": "linear",
                    "losses": {"even": {"weight": {"start": 0.05, "end": 0.01}}, "small": {"weight": 0.001}},
                    "batches": {"mixture": {"a": 0.75, "b": 0.25}},
                }
            },
            "gates": {"knows": {"use": "quiz", "metric": "acc", "at_least": 0.7, "shots": 3}},
        }


class Polish:
    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "steps": {
                "talk": {"objective": "sft", "steps": 40, "rows": 2 * derived["rows"]},
                "choose": {"objective": "dpo", "steps": 10, "rows": 8},
            },
            "gates": {
                "kept": {
                    "use": "quiz",
                    "metric": "acc",
                    "statistic": "difference",
                    "against": "parent",
                    "at_least": -0.02,
                },
                "better": {
                    "use": "quiz",
                    "metric": "acc/*",
                    "skip": ["acc/odd"],
                    "statistic": "win_rate",
                    "against": "./talk",
                    "at_least": 0.7,
                },
            },
        }


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    tied: bool = True


class Net:
    def __init__(self, config: NetConfig, *, context: Any) -> None:
        if (config.num_experts_per_tok or 0) > (config.num_experts or 0):
            raise ConfigError("model.options.num_experts_per_tok is more than there are experts.")


@dataclass(frozen=True, kw_only=True)
class EvenConfig:
    window: int = 8


@dataclass(frozen=True, kw_only=True)
class QuizConfig:
    shots: int = 0
    documents: int = 10


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    glob: str = "*.txt"
    note: str = ""


def _never(*_: object, **__: object) -> None:
    raise AssertionError("completing an experiment built a component that only a run may build")


SPECS = (
    PhaseSpec(name="ground", target=Ground, config=GroundConfig, provides=("knowledge",)),
    PhaseSpec(name="polish", target=Polish, requires=("knowledge",), provides=("dialogue",)),
    PhaseSpec(name="dream", target=Polish, requires=("sleep",)),
    ModelSpec(name="moe", target=Net, config=NetConfig),
    RouterSpec(name="linear", target=_never),
    LossSpec(name="even", target=_never, config=EvenConfig),
    LossSpec(name="small", target=_never),
    GateSpec(name="quiz", target=_never, config=QuizConfig, metrics=("acc", "acc/*")),
    SourceSpec(name="folder", target=_never, config=FolderConfig, views=("text", "chat", "preference")),
    SourceSpec(name="plain", target=_never, views=("text",)),
)

GOOD = """\
name: trial
size: nano
data:
  sources:
    here: folder
phases:
  ground:
  polish:
"""


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def registry() -> Registry:
    return Registry(tuple(Entry(dist="here", version="1.0", component=spec) for spec in SPECS))


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Loaded]:
    def load(text: str | bytes, *sets: str) -> Loaded:
        path = tmp_path / "trial.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_experiment(str(path), sets)

    return load


@pytest.fixture
def finish(load: Callable[..., Loaded], registry: Registry) -> Callable[..., Experiment]:
    def finish(text: str | bytes, *sets: str) -> Experiment:
        return complete(load(text, *sets), registry)

    return finish


@pytest.fixture
def mistakes(finish: Callable[..., Experiment], tmp_path: Path) -> Callable[..., list[str]]:
    """Return what is wrong with an experiment, one sentence each, without the folder of the file."""

    def mistakes(text: str | bytes, *sets: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            finish(text, *sets)
        return str(caught.value).replace(f"{tmp_path}/", "").split("\n")

    return mistakes

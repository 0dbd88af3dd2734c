"""The draft model that travels with its target: what it is, which target it was distilled from, where it is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...registry.errors import ConfigError, StoreError
from .companions import FOLDER, trunk_digest
from .drafter import DrafterConfig, DrafterForCausalLM, make_drafter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")

_SHAPE = (
    "embedding_size",
    "head_dim",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "vocab_size",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """A draft network with the digest of the target it was distilled from and of the vocabulary that both speak.

    ``proposals`` is how many tokens it proposes before the target looks (gamma). ``facts`` tell how it was made.
    """

    network: DrafterForCausalLM
    trunk: str
    vocabulary: str
    proposals: int = 4
    facts: Mapping[str, Any] = field(default_factory=dict)

    def save(self) -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
        """Facts and tensors; the embedding is the target's and not among them."""
        config = self.network.config.to_dict()
        facts = {
            "made": dict(self.facts),
            "proposals": self.proposals,
            "shape": {name: config[name] for name in _SHAPE},
            "trunk": self.trunk,
            "vocabulary": self.vocabulary,
        }
        return facts, self.network.state_dict()

    @classmethod
    def restore(
        cls, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, registry: Any
    ) -> Self:
        """The draft, bound to the embedding of ``model``. Raises ``ConfigError`` for a target with another vocabulary
        and ``StoreError`` for tensors that are not those of the shape."""
        config = DrafterConfig(**facts["shape"])
        fits(config, model, "The draft model")
        network = make_drafter(config, seed=0)
        try:
            network.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise StoreError(f"The draft model cannot be read: {' '.join(str(error).split())}.") from error
        network.model.embed_tokens.borrow(model.get_input_embeddings())
        return cls(
            network=network.eval(),
            trunk=facts["trunk"],
            vocabulary=facts["vocabulary"],
            proposals=int(facts["proposals"]),
            facts=facts["made"],
        )

    def stale(self, model: PreTrainedModel) -> bool:
        """Whether the target has changed since: its output stays its own, only fewer proposals are accepted."""
        return self.trunk != trunk_digest(model)

    def assistant(self, model: PreTrainedModel, proposals: int | None = None) -> PreTrainedModel:
        """The model to pass to the library's ``generate`` as ``assistant_model``, on the device and in the dtype of
        ``model`` and with its embedding.

        It proposes a constant number of tokens, ``proposals`` if given, and no confidence cuts it off: the library's
        defaults are 20 tokens and a threshold that learns while it runs, which makes a run depend on earlier ones.
        """
        fits(self.network.config, model, "The draft model")
        network = self.network
        if model.dtype != network.dtype:
            network = make_drafter(network.config, seed=0)
            network.load_state_dict(self.network.state_dict())
        network.to(device=model.device, dtype=model.dtype)
        network.model.embed_tokens.borrow(model.get_input_embeddings())
        own = network.generation_config
        own.num_assistant_tokens = proposals or self.proposals
        own.num_assistant_tokens_schedule = "constant"
        own.assistant_confidence_threshold = 0.0
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(own, name, getattr(model.generation_config, name))
        network.eval().prepare()
        return network

    def of(self, model: PreTrainedModel, **changes: Any) -> Self:
        """The same draft as one of ``model`` as it is now."""
        return replace(self, trunk=trunk_digest(model), **changes)


def fits(config: DrafterConfig, model: PreTrainedModel, what: str, vocabulary: tuple[str, str] | None = None) -> None:
    """Raise ``ConfigError`` unless a draft of this configuration speaks the target's vocabulary; ``vocabulary`` holds
    the digests of both, where they are known."""
    count, width = model.get_input_embeddings().weight.shape
    same_vocabulary(what, (config.vocab_size, count), vocabulary)
    if config.embedding_size != width:
        raise ConfigError(
            f"{what} reads embeddings of width {config.embedding_size}, but the target's have width {width}; distil a "
            "draft of its own."
        )


def same_vocabulary(what: str, sizes: tuple[int, int], digests: tuple[str, str] | None = None) -> None:
    """Raise ``ConfigError`` unless draft and target, in this order, have the same vocabulary."""
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"{what} has a vocabulary of {sizes[0]} tokens, but the target's has {sizes[1]}; use a draft that was "
            "distilled with this tokenizer, or leave options.path out to distil a new one."
        )
    if digests is not None and digests[0] != digests[1]:
        raise ConfigError(
            f"{what} has another vocabulary than the target, of the same size ({sizes[0]} tokens); use a draft that "
            "was distilled with this tokenizer, or leave options.path out to distil a new one."
        )


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over which id stands for which token: what draft and target must share."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode("ascii")).hexdigest()


def draft_facts(path: str) -> dict[str, Any]:
    """The facts of the draft model in the folder of a stage checkpoint or export; ``ConfigError`` if it has none."""
    return _read(_home(path) / "draft.json", path, lambda file: dict(json.loads(file.read_text(encoding="utf-8"))))


def draft_tensors(path: str) -> dict[str, torch.Tensor]:
    """The tensors of the draft model in that folder."""
    return _read(_home(path) / "draft.safetensors", path, load_file)


def _home(path: str) -> Path:
    folder = Path(path)
    for home in (folder / FOLDER, folder):
        if (home / "draft.json").is_file():
            return home
    raise ConfigError(
        f"'{path}' holds no draft model (no {FOLDER}/draft.json); give the folder of a stage checkpoint or export that "
        "has one."
    )


def _read(file: Path, path: str, read: Callable[[Path], T]) -> T:
    try:
        return read(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(
            f"The draft model in '{path}' cannot be read ({error}); copy the whole folder again."
        ) from error

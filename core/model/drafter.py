"""The draft network in Hugging Face form: the library's dense Qwen3 between the target's embedding and its transpose.

The widths differ, so a projection P joins them: a token enters as its row of E P, and leaves through (h P^T) E^T.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from .proposing import Proposer, Stencil
from .seeding import seeded


class DrafterConfig(Qwen3Config):
    """A dense Qwen3 configuration, plus the width of the embedding that is borrowed."""

    model_type = "phasegate_drafter"

    embedding_size: int = 64
    tie_word_embeddings: bool = False  # neither end is the network's own


class BorrowedEmbedding(nn.Module):
    """Rows of E P: E, shape (V, d), belongs to another model and is neither trained nor saved here; P, (d, d_draft), is
    the draft's own."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.projection = nn.Parameter(nn.init.orthogonal_(torch.empty(width, hidden)))

    def borrow(self, embedding: nn.Embedding) -> None:
        """Read the rows of this embedding from now on, in place of an earlier one."""
        # Not a submodule: its weights are none of the draft's, and move and change with their own model.
        self.__dict__["_lender"] = embedding

    @property
    def table(self) -> torch.Tensor:
        """E as its owner has it now, without gradient; shape (V, d)."""
        return self.__dict__["_lender"].weight.detach()  # type: ignore[no-any-return]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        # shape: ids (..., T) -> (..., T, d_draft)
        return F.embedding(ids, self.table) @ self.projection


class BorrowedHead(nn.Module):
    """Logits (h P^T) E^T over the same E and P."""

    def __init__(self, embedding: BorrowedEmbedding) -> None:
        super().__init__()
        self.__dict__["_embedding"] = embedding

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        # shape: hidden (..., d_draft) -> (..., V)
        embedding = self.__dict__["_embedding"]
        return F.linear(F.linear(hidden, embedding.projection), embedding.table)


class DrafterForCausalLM(Qwen3ForCausalLM):
    """Proposes tokens for a target whose embedding it borrows; ``forward`` is the library's.

    ``generate`` is the library's too, except where the library's assisted generation asks for candidates: those come
    from a ``Proposer``, which computes the same without preparing a whole generation for every few tokens.
    """

    config: DrafterConfig
    config_class = DrafterConfig
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012
    # What one process trains and every process runs is small: no plan for splitting it.
    _tp_plan: dict[str, str] = {}  # noqa: RUF012
    _pp_plan: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, config: DrafterConfig) -> None:
        # Skips Qwen3ForCausalLM.__init__, which would make a head of its own.
        super(Qwen3ForCausalLM, self).__init__(config)
        self.model = Qwen3Model(config)
        self.model.embed_tokens = BorrowedEmbedding(config.embedding_size, config.hidden_size)
        self.vocab_size = config.vocab_size
        self.lm_head = BorrowedHead(self.model.embed_tokens)
        self._stencil: Stencil | None = None
        self.post_init()

    def prepare(self) -> None:
        """Lay the weights out for proposing, once for all sequences, until they change: training, moving and loading
        undo it; whoever changes weights in any other way calls it again."""
        self._stencil = Stencil(self)

    def train(self, mode: bool = True) -> Self:
        """The module's own, and undoes ``prepare``."""
        self._stencil = None
        super().train(mode)
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own, and undoes ``prepare``."""
        self._stencil = None
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._stencil = None
        super()._apply(*args, **kwargs)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stencil": None}  # a copy has its own weights

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate, or propose candidates where the library's assisted generation asks for them."""
        config = kwargs.get("generation_config")
        if args or not isinstance(config, GenerationConfig) or not _asks_for_candidates(config, kwargs):
            return super().generate(*args, **kwargs)
        past = kwargs.get("past_key_values")
        return (past if isinstance(past, Proposer) else Proposer(self._stencil or Stencil(self))).propose(
            kwargs["input_ids"],
            kwargs["max_new_tokens"],
            processors=kwargs.get("logits_processor") or (),
            sample=bool(config.do_sample),
            stops=config.eos_token_id,
        )


def make_drafter(config: DrafterConfig, seed: int) -> DrafterForCausalLM:
    """A network with random weights that has still to borrow an embedding; global random state stays as it was."""
    with seeded(seed):
        return DrafterForCausalLM(config)


def _asks_for_candidates(config: GenerationConfig, kwargs: dict[str, Any]) -> bool:
    """Whether this is a call of assisted generation that a proposer serves: one whole row, nothing cut off early."""
    if not config.is_assistant or config.assistant_confidence_threshold or kwargs.get("min_new_tokens"):
        return False
    if isinstance(kwargs.get("past_key_values"), Proposer):
        return True
    mask = kwargs.get("attention_mask")
    return len(kwargs["input_ids"]) == 1 and (mask is None or bool(mask.all()))

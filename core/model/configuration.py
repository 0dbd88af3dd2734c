"""The model's configuration in Hugging Face form: Qwen3-MoE's, plus a router by component name."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3MoeConfig


class PhasegateMoeConfig(Qwen3MoeConfig):
    """A Qwen3-MoE configuration whose router is a component, stored by name, never by import path.

    ``router`` is a reference such as ``phasegate:linear`` and ``router_options`` its options (JSON values); both
    are resolved through ``registry.current`` when the model is built. The library's own auxiliary loss is off,
    because under plain ``Trainer`` it is multiplied by accumulation steps and world size.
    """

    model_type = "phasegate_moe"
    # Without these names Trainer.evaluate returns (aux loss, logits, router logits) as predictions.
    keys_to_ignore_at_inference = ["past_key_values", "router_logits", "aux_loss"]  # noqa: RUF012  the library adds to a list

    router: str = "phasegate:linear"
    router_options: dict[str, Any] | None = None
    router_aux_loss_coef: float = 0.0
    output_router_logits: bool = False
    norm_topk_prob: bool = False  # the router's own gate decides; kept so that inherited code finds the field
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self.router_options = {} if self.router_options is None else dict(self.router_options)
        super().__post_init__(**kwargs)

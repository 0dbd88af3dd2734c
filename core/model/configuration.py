"""The model's configuration in Hugging Face form: Qwen3-MoE's, plus router, mixer and quantizer by component name."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3MoeConfig


class PhasegateMoeConfig(Qwen3MoeConfig):
    """A Qwen3-MoE configuration whose router and mixer are components, stored by name, never by import path.

    ``router`` is a reference such as ``phasegate:linear`` and ``router_options`` its options (JSON values); both
    are resolved through ``registry.current`` when the model is built. ``mixer`` likewise takes the place of attention
    in ``mixer_layers``; ``layer_types`` says for every layer which cache and mask it has from the library, and
    ``sliding_attention`` layers look back ``sliding_window`` tokens. ``shared_ffn`` gives, for every layer of a dense
    seed, the layer whose FFN it uses (None: its own), and ``sparse_layers`` the layers that get experts when the seed
    is upcycled (None: the model is no seed). The library's own auxiliary loss is off, because under plain ``Trainer``
    it is multiplied by accumulation steps and world size.
    """

    model_type = "phasegate_moe"
    # Without these names Trainer.evaluate returns (aux loss, logits, router logits) as predictions.
    keys_to_ignore_at_inference = ["past_key_values", "router_logits", "aux_loss"]  # noqa: RUF012  the library adds to a list

    router: str = "phasegate:linear"
    router_options: dict[str, Any] | None = None
    mixer: str = "phasegate:attention"
    mixer_options: dict[str, Any] | None = None
    mixer_layers: list[int] | None = None
    layer_types: list[str] | None = None
    shared_ffn: list[int | None] | None = None
    sparse_layers: list[int] | None = None
    router_aux_loss_coef: float = 0.0
    output_router_logits: bool = False
    norm_topk_prob: bool = False  # the router's own gate decides; kept so that inherited code finds the field
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self.router_options = {} if self.router_options is None else dict(self.router_options)
        self.mixer_options = {} if self.mixer_options is None else dict(self.mixer_options)
        self.mixer_layers = [] if self.mixer_layers is None else list(self.mixer_layers)
        if self.layer_types is None:
            self.layer_types = ["full_attention"] * self.num_hidden_layers
        super().__post_init__(**kwargs)

    @property
    def types(self) -> list[str]:
        """The type of every layer."""
        return self.layer_types or ["full_attention"] * self.num_hidden_layers

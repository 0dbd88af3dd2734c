"""The causal MoE language model: Qwen3-MoE by inheritance, with the router (and its recorder) replaced.

Importing this module registers ``phasegate_moe`` with AutoConfig, AutoModel and AutoModelForCausalLM.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeAttention,
    Qwen3MoeDecoderLayer,
    Qwen3MoeForCausalLM,
    Qwen3MoeModel,
    Qwen3MoePreTrainedModel,
    Qwen3MoeSparseMoeBlock,
)
from transformers.utils.output_capturing import OutputRecorder

from ...registry.current import current
from ...registry.errors import PluginError
from .configuration import PhasegateMoeConfig
from .router import RouterBase, RouterContext


def build_router(config: PhasegateMoeConfig, layer: int) -> RouterBase:
    """Build the configured router for one layer through the current registry (its errors name the near misses)."""
    context = RouterContext(
        hidden_size=config.hidden_size,
        num_experts=config.num_experts,
        top_k=config.num_experts_per_tok,
        layer=layer,
    )
    router = current().build("router", config.router, config.router_options or {}, context=context)
    if not isinstance(router, RouterBase):
        raise PluginError(
            f"The router '{config.router}' built a {type(router).__name__}, whose routing cannot be recorded. "
            "Let it inherit from phasegate.core.model.router.RouterBase."
        )
    return router


class PhasegateMoePreTrainedModel(Qwen3MoePreTrainedModel):
    """What both model classes share: recording of any router, initialisation of any router, fp32 selection bias."""

    config: PhasegateMoeConfig
    config_class = PhasegateMoeConfig
    _can_record_outputs = {  # noqa: RUF012
        "router_logits": OutputRecorder(RouterBase, index=0),
        "hidden_states": Qwen3MoeDecoderLayer,
        "attentions": Qwen3MoeAttention,
    }
    _keep_in_fp32_modules_strict = ["selection_bias"]  # noqa: RUF012

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # The library greps this file for its decorator and would silently run the eager loop.
        return True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, RouterBase):
            module.reset(self.config.initializer_range)
        else:
            super()._init_weights(module)


class PhasegateMoeModel(PhasegateMoePreTrainedModel, Qwen3MoeModel):
    """The decoder stack without a head."""

    def __init__(self, config: PhasegateMoeConfig) -> None:
        super().__init__(config)
        # The trainer writes pad_token_id into the config; a reloaded model must still train like a fresh one.
        self.embed_tokens.padding_idx = None
        for index, layer in enumerate(self.layers):
            if isinstance(layer.mlp, Qwen3MoeSparseMoeBlock):
                layer.mlp.gate = build_router(config, index)
        self.post_init()


class PhasegateMoeForCausalLM(PhasegateMoePreTrainedModel, Qwen3MoeForCausalLM):
    """The language model; ``forward`` and ``generate`` are the library's."""

    def __init__(self, config: PhasegateMoeConfig) -> None:
        # Skips Qwen3MoeForCausalLM.__init__, which would build a whole stock decoder only to drop it.
        super(Qwen3MoeForCausalLM, self).__init__(config)
        self.model = PhasegateMoeModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.router_aux_loss_coef = config.router_aux_loss_coef
        self.num_experts = config.num_experts
        self.num_experts_per_tok = config.num_experts_per_tok
        self.post_init()


def _register() -> None:
    auto: Any
    AutoConfig.register("phasegate_moe", PhasegateMoeConfig, exist_ok=True)
    for auto, model in ((AutoModel, PhasegateMoeModel), (AutoModelForCausalLM, PhasegateMoeForCausalLM)):
        auto.register(PhasegateMoeConfig, model, exist_ok=True)


_register()

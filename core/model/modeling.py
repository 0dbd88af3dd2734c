"""The causal MoE language model: Qwen3-MoE by inheritance, with router and token mixer as components.

Importing this module registers ``phasegate_moe`` with AutoConfig, AutoModel and AutoModelForCausalLM.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import (
    create_causal_mask,
    create_recurrent_attention_mask,
    create_sliding_window_causal_mask,
)
from transformers.modeling_outputs import MoeModelOutputWithPast
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeAttention,
    Qwen3MoeDecoderLayer,
    Qwen3MoeForCausalLM,
    Qwen3MoeModel,
    Qwen3MoePreTrainedModel,
    Qwen3MoeSparseMoeBlock,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...registry.current import current
from ...registry.errors import PluginError
from .configuration import PhasegateMoeConfig
from .mixer import MixerBase, MixerContext
from .quantization import restore_quantizer
from .router import RouterBase, RouterContext

_MASKS = {
    "full_attention": create_causal_mask,
    "linear_attention": create_recurrent_attention_mask,
    "sliding_attention": create_sliding_window_causal_mask,
}


def build_router(config: PhasegateMoeConfig, layer: int, first: RouterBase | None = None) -> RouterBase:
    """Build the configured router for one layer through the current registry (its errors name the near misses);
    ``first`` is that of the model's first routed layer."""
    context = RouterContext(
        hidden_size=config.hidden_size,
        num_experts=config.num_experts,
        top_k=config.num_experts_per_tok,
        layer=layer,
        first=first,
    )
    router = current().build("router", config.router, config.router_options or {}, context=context)
    if not isinstance(router, RouterBase):
        raise PluginError(
            f"The router '{config.router}' built a {type(router).__name__}, whose routing cannot be recorded. "
            "Let it inherit from phasegate.core.model.router.RouterBase."
        )
    return router


def build_mixer(config: PhasegateMoeConfig, layer: int, attention: Qwen3MoeAttention) -> nn.Module:
    """Build the configured mixer for one layer, which may be the library's ``attention`` itself."""
    context = MixerContext(config=config, layer=layer, attention=attention)
    mixer = current().build("mixer", config.mixer, config.mixer_options or {}, context=context)
    if not isinstance(mixer, MixerBase | Qwen3MoeAttention):
        raise PluginError(
            f"The mixer '{config.mixer}' built a {type(mixer).__name__}, which cannot stand in for attention. "
            "Let it inherit from phasegate.core.model.mixer.MixerBase."
        )
    return mixer


class SharedFFN(nn.Module):
    """The FFN of another layer, used again: it has no parameters of its own, so a state dict holds them once."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self._source = (source,)  # in a tuple, so that it is no submodule

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Hidden states (B, T, H) through the other layer's FFN."""
        mixed: torch.Tensor = self._source[0](hidden_states)
        return mixed


class PhasegateMoePreTrainedModel(Qwen3MoePreTrainedModel):
    """What both model classes share: recording and initialisation of any router and mixer, fp32 selection bias."""

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
        elif isinstance(module, MixerBase):
            module.init_weights(self.config.initializer_range)
        else:
            super()._init_weights(module)


class PhasegateMoeModel(PhasegateMoePreTrainedModel, Qwen3MoeModel):
    """The decoder stack without a head; ``inside`` a larger model, which then puts on the quantizer itself."""

    def __init__(self, config: PhasegateMoeConfig, *, inside: bool = False) -> None:
        super().__init__(config)
        # The trainer writes pad_token_id into the config; a reloaded model must still train like a fresh one.
        self.embed_tokens.padding_idx = None
        first: RouterBase | None = None
        mixed, shared = set(config.mixer_layers or ()), config.shared_ffn or [None] * len(self.layers)
        for index, layer in enumerate(self.layers):
            if config.types[index] != "sliding_attention":
                layer.self_attn.sliding_window = None
            if index in mixed:
                layer.self_attn = build_mixer(config, index, layer.self_attn)
            if isinstance(layer.mlp, Qwen3MoeSparseMoeBlock):
                layer.mlp.gate = build_router(config, index, first)
                first = first or layer.mlp.gate
        for layer, source in zip(self.layers, shared, strict=True):
            if source is not None:
                layer.mlp = SharedFFN(self.layers[source].mlp)
        self.post_init()
        if not inside:  # masks and codes go by the names of the whole model
            restore_quantizer(self, current())

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: Any = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> MoeModelOutputWithPast:
        """Final hidden states (B, T, H) of token ids (B, T); the library's, but with a mask for each type of layer."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(seen, seen + inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        types = self.config.types
        masks = attention_mask
        if not isinstance(masks, dict):
            masks = {
                name: _MASKS[name](
                    config=self.config,
                    inputs_embeds=inputs_embeds,
                    attention_mask=attention_mask,
                    past_key_values=past_key_values,
                    position_ids=position_ids,
                )
                for name in dict.fromkeys(types)
            }
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids=position_ids)
        for layer, name in zip(self.layers, types, strict=True):
            hidden_states = layer(
                hidden_states,
                attention_mask=masks[name],
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                position_embeddings=position_embeddings,
                **kwargs,
            )
        return MoeModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states),
            past_key_values=past_key_values,
        )


class PhasegateMoeForCausalLM(PhasegateMoePreTrainedModel, Qwen3MoeForCausalLM):
    """The language model; ``forward`` and ``generate`` are the library's."""

    def __init__(self, config: PhasegateMoeConfig) -> None:
        # Skips Qwen3MoeForCausalLM.__init__, which would build a whole stock decoder only to drop it.
        super(Qwen3MoeForCausalLM, self).__init__(config)
        self.model = PhasegateMoeModel(config, inside=True)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.router_aux_loss_coef = config.router_aux_loss_coef
        self.num_experts = config.num_experts
        self.num_experts_per_tok = config.num_experts_per_tok
        self.post_init()
        restore_quantizer(self, current())


def _register() -> None:
    auto: Any
    AutoConfig.register("phasegate_moe", PhasegateMoeConfig, exist_ok=True)
    for auto, model in ((AutoModel, PhasegateMoeModel), (AutoModelForCausalLM, PhasegateMoeForCausalLM)):
        auto.register(PhasegateMoeConfig, model, exist_ok=True)


_register()

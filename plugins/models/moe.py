"""The platform's own MoE: Qwen3-MoE's decoder with a router component."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ...core.model.builder import ModelContext, ModelFacts, Positions
from ...core.model.counting import count_moe
from ...registry.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...core.model.configuration import PhasegateMoeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeConfig:
    """Sizes of the model; what is None follows from ``size``.

    ``dense_layers`` lists layers (from 0) with one dense FFN of ``intermediate_size`` instead of experts; None makes
    it as wide as the experts that one token passes. ``num_key_value_heads`` None means one per attention head.
    """

    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    moe_intermediate_size: int | None = None
    intermediate_size: int | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    dense_layers: tuple[int, ...] = ()
    initializer_range: float | None = None
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int | None = None
    tie_word_embeddings: bool = True


_DERIVED = (
    "head_dim",
    "hidden_size",
    "initializer_range",
    "moe_intermediate_size",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "num_hidden_layers",
)


class MoeBuilder:
    """Builds ``phasegate_moe`` from options, what the size derives, and the experiment's router.

    Raises ``ConfigError`` for sizes that do not fit together and for a router or option that does not exist.
    """

    def __init__(self, config: MoeConfig, *, context: ModelContext) -> None:
        self.context = context
        options = {field.name: getattr(config, field.name) for field in fields(config)}
        for name in _DERIVED:
            if options[name] is None:
                options[name] = _derived(context, name)
        options["num_key_value_heads"] = options["num_key_value_heads"] or options["num_attention_heads"]
        options["intermediate_size"] = (
            options["intermediate_size"] or options["num_experts_per_tok"] * options["moe_intermediate_size"]
        )
        options["max_position_embeddings"] = options["max_position_embeddings"] or context.sequence_length
        _check(options)
        self.options = options

    def configuration(self) -> PhasegateMoeConfig:
        """The model's configuration in Hugging Face form, with the router by its full name."""
        from ...core.model.configuration import PhasegateMoeConfig

        context, options = self.context, dict(self.options)
        router = context.registry.get("router", context.router.use).ref
        context.registry.config("router", context.router.use, context.router.options)
        dense, theta = options.pop("dense_layers"), options.pop("rope_theta")
        return PhasegateMoeConfig(
            **options,
            vocab_size=context.vocab_size,
            mlp_only_layers=list(dense),
            rope_parameters={"rope_type": "default", "rope_theta": theta},
            router=router,
            router_options=dict(context.router.options),
        )

    def facts(self) -> ModelFacts:
        """Parameters and FLOPs: by arithmetic for the linear router, on the meta device for any other."""
        context = self.context
        if context.registry.get("router", context.router.use).ref == "phasegate:linear":
            router = self.options["num_experts"] * self.options["hidden_size"]
            return count_moe(self.options, context.vocab_size, context.sequence_length, router)
        from ...core.model import modeling  # noqa: F401  registers phasegate_moe
        from ...core.model.facts import facts_of
        from ...registry.current import using

        with using(context.registry):
            return facts_of(self.configuration(), context.sequence_length)

    def positions(self) -> Positions:
        """How many positions the model has before any step stretches its context."""
        options = self.options
        return Positions(length=options["max_position_embeddings"], base=options["rope_theta"], dim=options["head_dim"])

    def build(self, seed: int) -> PreTrainedModel:
        """The model in fp32 on the CPU; equal seeds give equal bits, whatever ran before."""
        import torch
        from transformers import AutoModelForCausalLM

        from ...core.model import modeling  # noqa: F401  registers phasegate_moe
        from ...core.model.seeding import seeded
        from ...registry.current import using

        with using(self.context.registry), seeded(seed):
            return AutoModelForCausalLM.from_config(self.configuration(), dtype=torch.float32)


def _derived(context: ModelContext, name: str) -> Any:
    if name not in context.derived:
        raise ConfigError(f"model.{name} is not given and the size derives none; set it in the experiment.")
    return context.derived[name]


def _check(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            raise ConfigError(f"model.{name} is {value}, but must be positive.")
    heads, groups = options["num_attention_heads"], options["num_key_value_heads"]
    if heads % groups:
        raise ConfigError(
            f"model: {heads} attention heads cannot share {groups} key-value heads evenly; choose "
            "num_key_value_heads that divides num_attention_heads."
        )
    if options["head_dim"] % 2:
        raise ConfigError(f"model.head_dim is {options['head_dim']}, but rotary positions need an even size.")
    if options["num_experts_per_tok"] > options["num_experts"]:
        raise ConfigError(
            f"model: a token cannot pass {options['num_experts_per_tok']} of {options['num_experts']} experts; "
            "lower num_experts_per_tok or raise num_experts."
        )
    layers, dense = options["num_hidden_layers"], set(options["dense_layers"])
    if not dense < set(range(layers)):
        raise ConfigError(
            f"model.dense_layers is {sorted(dense)}, but layers count from 0 to {layers - 1} and at least one "
            "must keep its experts."
        )

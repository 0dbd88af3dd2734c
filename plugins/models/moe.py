"""The platform's own MoE: Qwen3-MoE's decoder with router and token mixer as components, sparse or as a dense seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ...core.model.builder import ModelContext, ModelFacts, Positions
from ...core.model.counting import count_moe
from ...registry.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...core.model.configuration import PhasegateMoeConfig

ATTENTION = "phasegate:attention"

#: One attention layer in four, as the motif PDR, PDR, PDR, GQA has it.
MOTIF = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeConfig:
    """Sizes of the model; what is None follows from ``size``.

    ``hidden_size``, ``num_hidden_layers``, ``num_attention_heads``, ``head_dim``, ``moe_intermediate_size`` (of one
    expert), ``num_experts``, ``num_experts_per_tok``, ``initializer_range``, ``rope_theta``, ``rms_norm_eps``,
    ``max_position_embeddings`` and ``tie_word_embeddings`` mean what they mean in the library's Qwen3-MoE.

    ``dense_layers`` lists layers (from 0) with one dense FFN of ``intermediate_size`` instead of experts; None makes it
    as wide as the experts that one token passes. ``num_key_value_heads`` None means one per attention head.

    ``attention_every`` n keeps attention in every n-th layer, whatever the mixer is (None: every fourth, or the last of
    fewer; 0, for none, where the mixer is attention and no window is given). ``window`` is how many tokens back those
    layers look (None: all). ``start: dense`` builds the seed of an MoE that an ``upcycle`` step makes: the other layers
    use the FFN of a dense layer again, by ``sharing`` that of their own ``block`` of layers or in turn (``modulo``),
    and have one of their own where there are no dense layers.
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
    attention_every: Annotated[int, Field(ge=0)] | None = None
    window: int | None = None
    start: Literal["sparse", "dense"] = "sparse"
    sharing: Literal["block", "modulo"] = "block"
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
    """Builds ``phasegate_moe`` from options, what the size derives, and the experiment's router, mixer and quantizer.

    Raises ``ConfigError`` for sizes that do not fit together and for a component or option that does not exist.
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
        self.mixer = ATTENTION
        if context.mixer is not None and context.mixer.use != "attention":
            self.mixer = context.registry.get("mixer", context.mixer.use).ref
        _check(options)
        self.options = {**options, **_layout(options, self.mixer == ATTENTION)}
        self._check_router()

    def configuration(self) -> PhasegateMoeConfig:
        """The model's configuration in Hugging Face form, with its components by their full names."""
        return self._configuration(self.options)

    def _configuration(self, chosen: Mapping[str, Any]) -> PhasegateMoeConfig:
        from ...core.model.configuration import PhasegateMoeConfig

        context, options = self.context, dict(chosen)
        router = context.registry.get("router", context.router.use).ref
        context.registry.config("router", context.router.use, context.router.options)
        dense, theta = options.pop("dense_layers"), options.pop("rope_theta")
        layers, mixed = options["num_hidden_layers"], options.pop("mixer_layers")
        window, windowed = options.pop("window"), options.pop("windowed")
        start, sharing = options.pop("start"), options.pop("sharing")
        options.pop("attention_every")
        types = ["sliding_attention" if layer in windowed else "full_attention" for layer in range(layers)]
        if context.mixer is not None and self.mixer != ATTENTION:
            context.registry.config("mixer", context.mixer.use, context.mixer.options)
            cache = context.registry.get("mixer", context.mixer.use).component.cache
            types = [cache if layer in mixed else found for layer, found in enumerate(types)]
        seed: dict[str, Any] = {}
        if start == "dense":
            seed = {
                "sparse_layers": [layer for layer in range(layers) if layer not in dense],
                "shared_ffn": _shared(layers, sorted(dense), sharing),
            }
        if context.quantizer is not None:
            quantizer = context.registry.get("quantizer", context.quantizer.use).ref
            context.registry.config("quantizer", context.quantizer.use, context.quantizer.options)
            seed["phasegate_quantizer"] = {"use": quantizer, "options": dict(context.quantizer.options)}
        return PhasegateMoeConfig(
            **options,
            **seed,
            vocab_size=context.vocab_size,
            mlp_only_layers=list(range(layers)) if start == "dense" else list(dense),
            rope_parameters={"rope_type": "default", "rope_theta": theta},
            router=router,
            router_options=dict(context.router.options),
            mixer=self.mixer,
            mixer_options={} if context.mixer is None else dict(context.mixer.options),
            mixer_layers=list(mixed),
            layer_types=types,
            use_sliding_window=bool(windowed),
            sliding_window=window if windowed else None,
        )

    def facts(self) -> ModelFacts:
        """Parameters and FLOPs: by arithmetic for components that tell their size, on the meta device for others."""
        return self._facts(self.options)

    def upcycled(self, experts: int | None = None) -> ModelFacts:
        """Parameters and FLOPs of the model once the seed has got its experts, as many as given."""
        options = {**self.options, "start": "sparse", "num_experts": experts or self.options["num_experts"]}
        return self._facts(options)

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

    def _facts(self, options: dict[str, Any]) -> ModelFacts:
        context, registry = self.context, self.context.registry
        router = registry.config("router", context.router.use, context.router.options)
        own = self.mixer == ATTENTION
        mixer = (
            None if own or context.mixer is None else registry.config("mixer", context.mixer.use, context.mixer.options)
        )
        sizes = {name: options[name] for name in ("hidden_size", "num_experts")}
        routed = options["num_hidden_layers"] - len(set(options["dense_layers"]))
        if hasattr(router, "parameters") and (own or hasattr(mixer, "parameters")):
            return count_moe(
                options,
                context.vocab_size,
                context.sequence_length,
                router.parameters(layers=routed, **sizes),
                None if mixer is None else mixer.parameters(options["hidden_size"]),
            )
        from ...core.model import modeling  # noqa: F401  registers phasegate_moe
        from ...core.model.facts import facts_of
        from ...registry.current import using

        with using(registry):
            return facts_of(self._configuration(options), context.sequence_length)

    def _check_router(self) -> None:
        """Let a router whose options know what they fit say so now, not when the model is built."""
        context = self.context
        config = context.registry.config("router", context.router.use, context.router.options)
        if hasattr(config, "check"):
            config.check(self.options["num_experts"])


def _derived(context: ModelContext, name: str) -> Any:
    if name not in context.derived:
        raise ConfigError(f"model.{name} is not given and the size derives none; set it in the experiment.")
    return context.derived[name]


def _layout(options: dict[str, Any], attention: bool) -> dict[str, Any]:
    """Which layers have the mixer, and which of the others look back over a window only."""
    layers, every = options["num_hidden_layers"], options["attention_every"]
    if every is None:
        every = 0 if attention and options["window"] is None else min(MOTIF, layers)
    if not attention and not 0 < every <= layers:
        raise ConfigError(
            f"model.attention_every is {every}, which leaves no layer of {layers} with attention, and the library's "
            f"cache counts tokens by one; choose 1 to {layers}."
        )
    kept = {layer for layer in range(layers) if every and layer % every == every - 1}
    if options["window"] is not None and not kept:
        raise ConfigError(
            "model.window has no effect with attention_every: 0, which leaves no layer that looks back over a window; "
            "set attention_every, to 1 for all layers, or remove window."
        )
    mixed = [layer for layer in range(layers) if layer not in kept]
    return {
        "attention_every": every,
        "mixer_layers": [] if attention else mixed,
        "windowed": sorted(kept) if options["window"] is not None else [],
    }


def _shared(layers: int, dense: list[int], sharing: str) -> list[int | None] | None:
    """For every layer of a seed the layer whose FFN it uses; None for its own.

    ``block``: the first dense layer from it on, which ends its block of the motif (the last one behind all of them).
    ``modulo``: the n-th routed layer uses the n-th dense one, in turn, as the original has it, which sends layer 40 of
    60 to the FFN of the first block.
    """
    if not dense:
        return None
    routed = [layer for layer in range(layers) if layer not in dense]
    source: list[int | None] = [None] * layers
    for number, layer in enumerate(routed):
        after = next((one for one in dense if one > layer), dense[-1])
        source[layer] = after if sharing == "block" else dense[number % len(dense)]
    return source


def _check(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if name == "attention_every":
            continue
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
    if options["start"] == "dense" and options["intermediate_size"] != options["moe_intermediate_size"]:
        raise ConfigError(
            f"model: experts of width {options['moe_intermediate_size']} cannot be cloned from an FFN of width "
            f"{options['intermediate_size']}; make moe_intermediate_size and intermediate_size equal."
        )

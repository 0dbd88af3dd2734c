"""Stock families of transformers, MoE or dense, random from a configuration or read from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...core.config.paths import is_there
from ...core.model.builder import ModelContext, ModelFacts, Positions
from ...evals.foreign import refuse_code, strictly
from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean, listing

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# How each family spells the sizes that are spelled differently.
_DENSE: dict[str, str | None] = {
    "moe_intermediate_size": "intermediate_size",
    "num_experts": None,
    "num_experts_per_tok": None,
}
_SPELLING: dict[str, dict[str, str | None]] = {
    "llama": _DENSE,
    "mistral": _DENSE,
    "mixtral": {"moe_intermediate_size": "intermediate_size", "num_experts": "num_local_experts"},
    "olmo2": {**_DENSE, "head_dim": None},
    "olmoe": {"moe_intermediate_size": "intermediate_size", "head_dim": None},
    "qwen2": {**_DENSE, "head_dim": None},
    "qwen3": _DENSE,
    "qwen3_moe": {},
}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StockConfig:
    """A family and where its weights come from.

    ``path`` is a local folder or a hub id (``revision`` pins it); None gives random weights, sized by ``size`` and
    ``overrides``. ``overrides`` are fields of the family's own configuration. ``family`` may be left out with a path.
    A dense family becomes an MoE in an ``upcycle`` step.
    """

    family: Literal["llama", "mistral", "mixtral", "olmo2", "olmoe", "qwen2", "qwen3", "qwen3_moe"] | None = None
    path: str | None = None
    revision: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


class StockBuilder:
    """Builds a model of a stock family, unchanged but for its auxiliary loss, which is always off, and for a quantizer.

    Raises ``ConfigError`` for a field the family does not have, a checkpoint of another family or none, a tokenizer
    with more tokens than the checkpoint has embeddings, and a router or mixer component (a stock family has its own).
    """

    def __init__(self, config: StockConfig, *, context: ModelContext) -> None:
        if config.family is None and config.path is None:
            raise ConfigError("The stock model needs model.family or model.path; give one of them.")
        if context.router.use.rpartition(":")[2] != "linear" or context.router.options:
            raise ConfigError(
                f"The stock model keeps its family's own router, so model.router '{context.router.use}' would be "
                "ignored; remove it, or set model.use to moe."
            ).within("router")
        if context.mixer is not None and context.mixer.use.rpartition(":")[2] != "attention":
            raise ConfigError(
                f"The stock model keeps its family's own attention, so model.mixer '{context.mixer.use}' would be "
                "ignored; remove it, or set model.use to moe."
            ).within("mixer")
        self.config, self.context = config, context

    def configuration(self) -> PretrainedConfig:
        """The family's configuration in transformers, overrides applied, auxiliary loss off."""
        path = self.config.path
        configuration = self._random() if path is None else self._published(self._location(path))
        if hasattr(configuration, "router_aux_loss_coef"):
            configuration.router_aux_loss_coef = 0.0
            configuration.output_router_logits = False
        return configuration

    def facts(self) -> ModelFacts:
        """Parameters and FLOPs, counted without allocating memory or reading weights."""
        from ...core.model.facts import facts_of

        return facts_of(self.configuration(), self.context.sequence_length)

    def upcycled(self, experts: int | None = None) -> ModelFacts:
        """The same of the MoE that an upcycling makes of a dense family."""
        from ...core.model.facts import facts_of
        from ...core.model.upcycling import SIBLINGS, sibling_config

        configuration, derived = self.configuration(), self.context.derived
        if configuration.model_type in SIBLINGS:
            number = experts or int(derived["num_experts"])
            configuration = sibling_config(configuration, number, int(derived["num_experts_per_tok"]))
        return facts_of(configuration, self.context.sequence_length)

    def positions(self) -> Positions:
        """How many positions the model has before any step stretches its context, as its configuration says."""
        configuration: Any = self.configuration()
        head = getattr(configuration, "head_dim", None)
        return Positions(
            length=configuration.max_position_embeddings,
            base=configuration.rope_parameters["rope_theta"],
            dim=head or configuration.hidden_size // configuration.num_attention_heads,
        )

    def build(self, seed: int) -> PreTrainedModel:
        """The model in fp32 on the CPU; without a path equal seeds give equal bits, whatever ran before."""
        import torch
        from transformers import AutoModelForCausalLM

        from ...core.model.loading import read_model
        from ...core.model.seeding import seeded

        configuration, path = self.configuration(), self.config.path
        with seeded(seed):
            if path is None:
                model = AutoModelForCausalLM.from_config(configuration, dtype=torch.float32)
            else:
                model = read_model(
                    self._location(path), config=configuration, dtype=torch.float32, revision=self.config.revision
                )
        self._quantize(model)
        return model

    def _quantize(self, model: PreTrainedModel) -> None:
        ref, registry = self.context.quantizer, self.context.registry
        if ref is None:
            return
        from ...core.model.quantization import quantize_experts

        quantizer = registry.build("quantizer", ref.use, ref.options)
        quantize_experts(model, registry.get("quantizer", ref.use).ref, ref.options, quantizer)

    def _random(self) -> PretrainedConfig:
        from transformers import CONFIG_MAPPING

        family = str(self.config.family)
        kind = CONFIG_MAPPING[family]
        sizes: dict[str, Any] = {}
        for name in _DERIVED:
            spelled = _SPELLING[family].get(name, name)
            if spelled is not None and name in self.context.derived:
                sizes[spelled] = self.context.derived[name]
        sizes["num_key_value_heads"] = sizes.get("num_attention_heads")
        sizes["max_position_embeddings"] = self.context.sequence_length
        # The families' token ids belong to their published vocabularies.
        tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        self._check_fields(kind(), family)
        fields = {**sizes, **tokens, "vocab_size": self.context.vocab_size, **self.config.overrides}
        return self._checked(lambda: kind(**fields))

    def _published(self, location: str) -> PretrainedConfig:
        from transformers import AutoConfig

        try:
            refuse_code(location, self.config.revision)
            with strictly():
                found = AutoConfig.from_pretrained(location, revision=self.config.revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model.path '{location}' has no readable model configuration "
                f"({' '.join(str(error).split()).rstrip('.')}); give a folder with config.json or a hub id."
            ) from error
        family = found.model_type
        if family not in _SPELLING or family != (self.config.family or family):
            wanted = self.config.family or ", ".join(_SPELLING)
            raise ConfigError(
                f"model.path '{location}' holds a {family} model, not {wanted}; correct model.family "
                "or choose another checkpoint."
            )
        self._check_fields(found, family)
        # Through the constructor: setting rope fields afterwards would drop rope_theta.
        kind, fields = type(found), {**found.to_dict(), **self.config.overrides}
        fields.pop("auto_map", None)  # of code that stays behind
        configuration = self._checked(lambda: kind(**fields))
        if configuration.vocab_size < self.context.vocab_size:
            raise ConfigError(
                f"The tokenizer has {self.context.vocab_size} tokens, but the checkpoint '{location}' embeds only "
                f"{configuration.vocab_size}; set tokenizer.path to the checkpoint's own tokenizer."
            )
        return configuration

    def _location(self, path: str) -> str:
        try:
            local = (self.context.base or Path()) / Path(path).expanduser()
        except RuntimeError:  # the home of nobody
            return path
        return str(local) if is_there(local) else path

    def _check_fields(self, example: PretrainedConfig, family: str) -> None:
        known = example.to_dict().keys() - {"architectures", "model_type", "transformers_version"}
        for key in self.config.overrides:
            if key not in known:
                hint = did_you_mean(key, known) or f" Its fields are {listing(known)}."
                raise ConfigError(f"model.overrides has '{key}', which {family} does not have.{hint}")

    def _checked(self, make: Callable[[], PretrainedConfig]) -> PretrainedConfig:
        try:
            return make()
        except (TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(
                f"The stock model's fields do not fit together ({text}); correct its overrides."
            ) from error

"""Quantized experts in the forward pass."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.parameters import expert_parameters
from phasegate.core.model.quantization import (
    FIELD,
    IMPLEMENTATION,
    Quantization,
    encode_experts,
    quantization_of,
    quantize_experts,
    restore_quantizer,
    unquantize,
)
from phasegate.core.model.quantizer import Codes
from phasegate.plugins.quantizers.options import TernaryConfig
from phasegate.plugins.quantizers.ternary import Ternary
from phasegate.registry.components import QuantizerSpec
from phasegate.registry.current import using
from phasegate.registry.entries import Entry
from phasegate.registry.errors import ConfigError, StoreError
from phasegate.registry.registry import Registry
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

Build = Callable[..., PreTrainedModel]
Make = Callable[..., PreTrainedModel]

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "initializer_range": 0.06,
    "pad_token_id": 0,
}
FAMILIES: dict[str, tuple[Any, Any]] = {
    "mixtral": (MixtralForCausalLM, MixtralConfig(**SIZES, num_local_experts=5)),
    "olmoe": (OlmoeForCausalLM, OlmoeConfig(**SIZES, num_experts=5, num_experts_per_tok=2)),
    "qwen3_moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(**SIZES, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=8),
    ),
}


class Counting(Ternary):
    """Counts how often weights are quantized."""

    calls = 0

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().quantize(weight)


@pytest.fixture
def make(build: Build) -> Make:
    """A tiny model of a family; equal seeds give equal bits."""

    def built(family: str = "qwen3_moe", seed: int = 0) -> PreTrainedModel:
        if family == "phasegate_moe":
            return build(seed=seed)
        torch.manual_seed(seed)
        kind, config = FAMILIES[family]
        model: PreTrainedModel = kind(copy.deepcopy(config))
        return model.eval()

    return built


def put_on(model: PreTrainedModel, quantizer: Ternary | None = None) -> Quantization:
    options = {"threshold": 0.7}
    return quantize_experts(model, "elsewhere:ternary", options, quantizer or Ternary(TernaryConfig(**options)))


def baked(model: PreTrainedModel) -> PreTrainedModel:
    """A plain copy whose weights are the quantized ones."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name in expert_parameters(twin):
            twin.get_parameter(name).copy_(Ternary(TernaryConfig()).quantize(twin.get_parameter(name)))
    return twin


def logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, use_cache=False)["logits"]
    return found


def gradients(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=ids, labels=ids, use_cache=False)["loss"].backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.fixture
def with_ternary(registry: Registry) -> Registry:
    """The built-ins and the quantizer ``elsewhere:ternary``."""
    spec = QuantizerSpec(name="ternary", target=Ternary, config=TernaryConfig)
    return Registry((*registry, Entry(dist="elsewhere", version="1", component=spec)))


@pytest.mark.parametrize("family", [*FAMILIES, "phasegate_moe"])
def test_the_forward_pass_uses_the_quantized_weights(family: str, make: Make, ids: torch.Tensor) -> None:
    model = make(family)
    wanted, before = logits(baked(model), ids), logits(model, ids)
    put_on(model)
    assert torch.equal(logits(model, ids), wanted)
    assert not torch.allclose(wanted, before)


@pytest.mark.parametrize("family", [*FAMILIES, "phasegate_moe"])
def test_the_state_dict_keeps_the_latent_weights(family: str, make: Make, ids: torch.Tensor) -> None:
    model = make(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    put_on(model)
    logits(model, ids)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("family", [*FAMILIES, "phasegate_moe"])
def test_the_gradient_of_the_latent_weights_is_that_of_the_quantized(
    family: str, make: Make, ids: torch.Tensor
) -> None:
    model = make(family)
    wanted = gradients(baked(model).train(), ids)
    put_on(model.train())
    found = gradients(model, ids)
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())
    assert all(found[name].any() for name in expert_parameters(model))


def test_each_expert_has_its_share_of_its_largest_or_smallest_weights_quantized(make: Make) -> None:
    model = make()
    quantization = put_on(model)
    for order in ("largest", "smallest"):
        quantization.start(order)
        quantization.set_share(0.25)
        for name, weight in quantization.weights():
            mask = quantization.masks[name]
            used = quantization.effective(name, weight).detach()
            assert torch.equal(used[mask], quantization.quantizer.quantize(weight)[mask])
            assert torch.equal(used[~mask], weight.detach()[~mask])
            assert mask.flatten(1).sum(1).tolist() == [weight[0].numel() // 4] * 5
            for one, chosen in zip(weight.detach().abs(), mask, strict=True):
                inside, outside = one[chosen], one[~chosen]
                assert inside.min() >= outside.max() if order == "largest" else inside.max() <= outside.min()


def test_masks_stay_until_the_next_event(make: Make, ids: torch.Tensor) -> None:
    model = make().train()
    quantization = put_on(model)
    quantization.start()
    quantization.set_share(0.5)
    before = {name: mask.clone() for name, mask in quantization.masks.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    gradients(model, ids)
    optimizer.step()
    assert all(torch.equal(quantization.masks[name], mask) for name, mask in before.items())
    quantization.set_share(0.5)
    assert not any(torch.equal(quantization.masks[name], mask) for name, mask in before.items())


def test_a_soft_blend_goes_from_the_latent_to_the_quantized_weights(make: Make, ids: torch.Tensor) -> None:
    model = make()
    latent, quantized = logits(model, ids), logits(baked(model), ids)
    quantization = put_on(model)
    quantization.start("soft")
    assert torch.equal(logits(model, ids), latent)
    quantization.set_share(0.25)
    for name, weight in quantization.weights():
        wanted = 0.75 * weight + 0.25 * quantization.quantizer.quantize(weight)
        torch.testing.assert_close(quantization.effective(name, weight), wanted)
    quantization.set_share(1.0)
    assert torch.equal(logits(model, ids), quantized)


def test_the_gradient_of_a_mixture_passes_unchanged_too(make: Make) -> None:
    quantization = put_on(make())
    name, weight = next(quantization.weights())
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    for order in ("largest", "smallest", "soft"):
        quantization.start(order)
        for share in (0.0, 0.5, 1.0):
            quantization.set_share(share)
            (gradient,) = torch.autograd.grad((quantization.effective(name, weight) * direction).sum(), weight)
            assert torch.equal(gradient, direction)


def test_frozen_weights_have_no_gradient(make: Make) -> None:
    quantization = put_on(make())
    name, weight = next(quantization.weights())
    quantization.start(freeze=True)
    quantization.set_share(0.5)
    (gradient,) = torch.autograd.grad(quantization.effective(name, weight).sum(), weight)
    assert torch.equal(gradient, (~quantization.masks[name]).float())
    quantization.set_share(1.0)
    (gradient,) = torch.autograd.grad(quantization.effective(name, weight).sum(), weight)
    assert not gradient.any()


@pytest.mark.parametrize("order", ["largest", "smallest"])
def test_what_is_frozen_stays_frozen_at_the_next_event(order: Any, make: Make) -> None:
    model = make()
    quantization = put_on(model)
    quantization.start(order, freeze=True)
    quantization.set_share(0.25)
    before = dict(quantization.masks)
    with torch.no_grad():
        for name, weight in quantization.weights():
            weight.mul_(torch.where(before[name], 0.01 if order == "largest" else 100.0, 1.0))
    quantization.set_share(0.5)
    for name, mask in quantization.masks.items():
        assert bool(mask[before[name]].all())
        assert mask.float().mean() == 0.5


def test_what_a_quantizer_loses_is_measured(make: Make) -> None:
    model = make()
    quantization = put_on(model)
    with torch.no_grad():
        for _, weight in quantization.weights():
            # tau = 0.7 * 2.5 = 1.75, so 1 becomes 0; s = (2 + 3 + 4) / 3
            weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).repeat(weight.shape[-1] // 4).expand_as(weight))
    found = quantization.rounding()
    assert found.zeros == 0.25
    assert found.error == pytest.approx((1 + 1 + 0 + 1) / (1 + 4 + 9 + 16))
    quantization.start()
    quantization.set_share(0.25)  # the fours
    found = quantization.rounding()
    assert found.zeros == 0.0
    assert found.error == pytest.approx(1 / 30)
    quantization.start("smallest")
    quantization.set_share(0.25)  # the ones
    found = quantization.rounding()
    assert found.zeros == 1.0
    assert found.error == pytest.approx(1 / 30)
    quantization.start()
    found = quantization.rounding()
    assert (found.zeros, found.error) == (0.0, 0.0)


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_evaluation_quantizes_once_and_again_after_an_optimiser_step(
    options: dict[str, bool], make: Make, ids: torch.Tensor
) -> None:
    model, counting = make(), Counting(TernaryConfig())
    put_on(model, counting)
    first = logits(model, ids)
    logits(model, ids)
    assert counting.calls == 4  # two parameters in each of two layers
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **options)
    gradients(model, ids)
    before = counting.calls
    logits(model, ids)
    optimizer.step()  # a pass without gradients just before: nothing but the step itself tells of the change
    second = logits(model, ids)
    assert counting.calls == before + 8
    plain = copy.deepcopy(model)
    unquantize(plain)
    assert torch.equal(second, logits(baked(plain), ids))
    assert not torch.equal(second, first)


def test_evaluation_sees_every_change_of_share(make: Make, ids: torch.Tensor) -> None:
    model = make()
    quantization = put_on(model)
    full = logits(model, ids)
    quantization.start()
    quantization.set_share(0.5)
    half = logits(model, ids)
    quantization.start("smallest")
    quantization.set_share(0.5)
    other = logits(model, ids)
    quantization.set_share(1.0)
    assert not torch.equal(half, full)
    assert not torch.equal(other, half)
    assert torch.equal(logits(model, ids), full)


def test_evaluation_sees_weights_that_were_loaded(make: Make, ids: torch.Tensor) -> None:
    model, other = make(), make(seed=1)
    put_on(model)
    logits(model, ids)
    for assign in (False, True):
        model.load_state_dict(other.state_dict(), assign=assign)
        assert torch.equal(logits(model, ids), logits(baked(other), ids))
        other = make(seed=2)


def test_training_follows_inference_mode(make: Make, ids: torch.Tensor) -> None:
    model = make()
    put_on(model)
    with torch.inference_mode():
        model(input_ids=ids)
    twin = copy.deepcopy(model)
    found = gradients(model.train(), ids)
    assert all(found[name].any() for name in expert_parameters(model))
    assert torch.equal(logits(twin, ids), logits(model, ids))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", ["phasegate_moe", "qwen3_moe"])
def test_recomputed_activations_give_the_same_gradients(
    family: str, reentrant: bool, make: Make, ids: torch.Tensor
) -> None:
    model = make(family).train()
    quantization = put_on(model)
    quantization.start(freeze=True)
    quantization.set_share(0.5)
    wanted = gradients(model, ids)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    found = gradients(model, ids)
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())


def test_a_copy_has_a_quantizer_of_its_own(make: Make, ids: torch.Tensor) -> None:
    model = make()
    quantization = put_on(model)
    wanted = logits(model, ids)
    twin = copy.deepcopy(model)
    other = quantization_of(twin)
    assert other is not None and other is not quantization
    assert torch.equal(logits(twin, ids), wanted)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2.0)
    other.start("smallest")
    other.set_share(0.5)
    name, weight = next(other.weights())
    assert weight is twin.get_parameter(name)
    assert torch.equal(logits(model, ids), wanted)
    unquantize(twin)
    assert quantization_of(model) is quantization
    assert torch.equal(logits(model, ids), wanted)


def test_models_in_bf16_are_quantized_in_bf16(make: Make, ids: torch.Tensor) -> None:
    model = make().to(torch.bfloat16)
    wanted = logits(baked(model), ids)
    quantization = put_on(model)
    assert torch.equal(logits(model, ids), wanted)
    for order in ("largest", "soft"):
        quantization.start(order)
        quantization.set_share(0.5)
        assert all(quantization.effective(*pair).dtype == torch.bfloat16 for pair in quantization.weights())
        assert all(gradient.dtype == torch.bfloat16 for gradient in gradients(model.train(), ids).values())


def test_autocast_uses_the_quantized_weights(make: Make, ids: torch.Tensor) -> None:
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        wanted = logits(baked(model), ids)
        put_on(model)
        assert torch.equal(logits(model, ids), wanted)


def test_generation_quantizes_once(make: Make, ids: torch.Tensor) -> None:
    model, counting = make("phasegate_moe"), Counting(TernaryConfig())
    plain = baked(model)
    put_on(model, counting)
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), plain.generate(ids, **options))
    assert counting.calls == 4


@pytest.mark.parametrize("family", ["phasegate_moe", "qwen3_moe"])
def test_a_saved_model_is_quantized_again(
    family: str, make: Make, ids: torch.Tensor, with_ternary: Registry, tmp_path: Path
) -> None:
    model = make(family)
    put_on(model)
    model.save_pretrained(tmp_path)
    with using(with_ternary):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    restored = restore_quantizer(loaded, with_ternary)
    assert restored is not None and restored.share == 1.0
    assert restore_quantizer(loaded, with_ternary) is restored
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    assert getattr(loaded.config, FIELD) == {"use": "elsewhere:ternary", "options": {"threshold": 0.7}}


def test_a_saved_model_is_quantized_again_without_its_head_too(
    make: Make, ids: torch.Tensor, with_ternary: Registry, tmp_path: Path
) -> None:
    model = make("phasegate_moe")
    put_on(model)
    with torch.no_grad():
        wanted = model.model(input_ids=ids, use_cache=False).last_hidden_state
    model.save_pretrained(tmp_path)
    with using(with_ternary):
        bare = AutoModel.from_pretrained(tmp_path).eval()
        whole = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(bare(input_ids=ids, use_cache=False).last_hidden_state, wanted)
    assert torch.equal(logits(whole, ids), logits(model, ids))
    for loaded in (bare, whole):  # each by the names of the model that it is
        quantization = quantization_of(loaded)
        assert quantization is not None
        quantization.start()
        quantization.set_share(0.5)
        names = sorted(expert_parameters(loaded))
        assert sorted(encode_experts(loaded)) == sorted(quantization.packed_masks()) == names
    assert quantization_of(whole) is quantization_of(whole.model)


def test_the_codes_are_those_that_the_forward_pass_uses(make: Make, ids: torch.Tensor) -> None:
    model = make()
    put_on(model)
    codes = encode_experts(model)
    assert sorted(codes) == sorted(expert_parameters(model))
    plain = copy.deepcopy(model)
    unquantize(plain)
    with torch.no_grad():
        for name, code in codes.items():
            assert isinstance(code, Codes)
            plain.get_parameter(name).copy_(code.decode())
    assert torch.equal(logits(plain, ids), logits(model, ids))


def test_a_model_without_a_quantizer_has_no_codes(make: Make) -> None:
    with pytest.raises(ConfigError, match="are not quantized"):
        encode_experts(make())


def test_taking_the_quantizer_off_gives_the_latent_weights_back(make: Make, ids: torch.Tensor) -> None:
    model = make()
    before = logits(model, ids)
    put_on(model)
    unquantize(model)
    assert quantization_of(model) is None
    assert torch.equal(logits(model, ids), before)
    assert getattr(model.config, FIELD) is None
    assert model.get_experts_implementation()[""] == "grouped_mm"


def test_the_implementation_without_a_quantizer_changes_nothing(make: Make, ids: torch.Tensor) -> None:
    model = make()
    before = logits(model, ids)
    model.set_experts_implementation(IMPLEMENTATION)
    assert torch.equal(logits(model, ids), before)


def test_a_dense_model_has_nothing_to_quantize() -> None:
    with pytest.raises(ConfigError, match="no stacked experts"):
        put_on(Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)))


def test_masks_take_one_bit_a_weight_and_come_back(make: Make, ids: torch.Tensor) -> None:
    model = make()
    quantization = put_on(model)
    quantization.start()
    quantization.set_share(0.3)
    wanted, packed = logits(model, ids), quantization.packed_masks()
    sizes = {name: math.ceil(weight.numel() / 8) for name, weight in quantization.weights()}
    assert {name: bits.numel() for name, bits in packed.items()} == sizes
    assert {bits.dtype for bits in packed.values()} == {torch.uint8}
    twin = make()
    other = put_on(twin)
    other.start()
    other.restore(0.3, packed)
    assert torch.equal(logits(twin, ids), wanted)


def test_masks_of_other_weights_are_refused(make: Make) -> None:
    quantization = put_on(make())
    quantization.start()
    quantization.set_share(0.3)
    packed = quantization.packed_masks()
    with pytest.raises(StoreError, match="masks"):
        quantization.restore(0.3, {})
    with pytest.raises(StoreError, match="masks"):
        quantization.restore(1.0, packed)
    with pytest.raises(StoreError, match="masks"):
        quantization.restore(0.3, {name: bits[:-1] for name, bits in packed.items()})


@pytest.mark.parametrize("family", ["phasegate_moe", "qwen3_moe"])
def test_an_export_holds_the_values_that_were_computed_with(
    family: str, build: Any, registry: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from phasegate.core.model.exporting import export_model
    from phasegate.core.model.loading import save_model

    model = build() if family == "phasegate_moe" else tiny_stock(len(tokenizer))
    quantize_experts(model, "phasegate:ternary", {}, registry.build("quantizer", "ternary", {}))
    tokens = torch.randint(5, 290, (2, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model.eval()(tokens).logits
    save_model(model, tokenizer, tmp_path / "in")
    report = export_model(tmp_path / "in", tmp_path / "out", registry)
    assert report.model_type == "qwen3_moe" and "quantized" in report.reason
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.equal(plain(tokens).logits, expected)


def tiny_stock(vocabulary: int) -> Any:
    torch.manual_seed(0)
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            head_dim=16, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, tie_word_embeddings=True,
        )
    )  # fmt: skip

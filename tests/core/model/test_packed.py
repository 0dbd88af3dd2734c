"""Packed models: they compute what the quantized model computes, from whole files or not at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.companions import attach, companions_of, trunk_digest
from phasegate.core.model.deltas import pairs_of, write_deltas
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.packed import (
    is_packed,
    load_packed,
    new_folder,
    pack_model,
    read_experts,
    save_packed,
    split_experts,
)
from phasegate.core.model.parameters import expert_parameters, routers_of
from phasegate.core.model.probes import Probes
from phasegate.core.model.quantization import encode_experts, quantization_of, quantize_experts
from phasegate.core.model.quantizer import Codes
from phasegate.core.model.tokenizer import load_tokenizer
from phasegate.registry.errors import ConfigError, StoreError


class Signs:
    """A quantizer for tests: the sign of what is above the mean magnitude of its row, scaled by that in fp16."""

    def encode(self, weight: torch.Tensor) -> Codes:
        mean = weight.abs().mean(-1)
        trits = weight.sign() * (weight.abs() > mean[..., None])
        return Codes(trits=trits.to(torch.int8), scales=mean.to(torch.float16))

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        return self.encode(weight).decode(weight.dtype)


def code(model: Any, per_row: bool = True) -> dict[str, Codes]:
    """Random codes for all experts, which the model then holds."""
    draw = torch.Generator().manual_seed(3)
    found = {}
    for name in expert_parameters(model):
        parameter = model.get_parameter(name)
        count, rows, _ = parameter.shape
        found[name] = Codes(
            trits=torch.randint(-1, 2, parameter.shape, generator=draw, dtype=torch.int8),
            scales=torch.rand(count, rows if per_row else 1, generator=draw).to(torch.float16) / 8,
        )
        parameter.data = found[name].decode(parameter.dtype)
    return found


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


@pytest.fixture
def packed(build: Any, tokenizer: Any, tmp_path: Path) -> Path:
    model = build(seed=1)
    save_packed(model, tokenizer, tmp_path / "packed", code(model))
    return tmp_path / "packed"


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_model_computes_the_same_bits(
    build: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path, dtype: torch.dtype, per_row: bool
) -> None:
    save_model(build(seed=1).to(dtype), tokenizer, tmp_path / "in")
    model = load_model(tmp_path / "in", registry)
    router: Any
    for _, _, router in routers_of(model):
        router.selection_bias.copy_(torch.linspace(-0.3, 0.3, 5))
    save_packed(model, tokenizer, tmp_path / "packed", code(model, per_row))
    loaded = load_packed(tmp_path / "packed", registry)
    state = loaded.state_dict()
    assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == {
        name: tensor.dtype for name, tensor in state.items()
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(loaded, ids), logits(model, ids))


def test_a_packed_model_computes_what_the_quantized_one_does(
    build: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = build(seed=1)
    before = logits(model, ids)
    quantize_experts(model, "signs", {}, Signs())
    save_packed(model, tokenizer, tmp_path / "packed", encode_experts(model))
    loaded = load_packed(tmp_path / "packed", registry)
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    assert not torch.equal(logits(loaded, ids), before)


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen3_moe"])
def test_stock_families_can_be_packed(
    context: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path, family: str
) -> None:
    ready = context()
    model = ready.registry.build("model", "stock", {"family": family}, context=ready).build(0).eval()
    save_packed(model, tokenizer, tmp_path / "packed", code(model))
    assert torch.equal(logits(load_packed(tmp_path / "packed", registry), ids), logits(model, ids))


def test_dense_layers_stay_as_they_are(
    build: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = build(seed=2, options={"dense_layers": [0]})
    save_packed(model, tokenizer, tmp_path / "packed", code(model))
    assert torch.equal(logits(load_packed(tmp_path / "packed", registry), ids), logits(model, ids))
    assert {layer for layer, _ in read_experts(tmp_path / "packed")[0]} == {1}


def test_a_packed_model_is_for_inference_and_has_no_quantizer(
    build: Any, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    model = build(seed=1)
    quantize_experts(model, "signs", {}, Signs())
    save_packed(model, tokenizer, tmp_path / "packed", encode_experts(model))
    loaded = load_packed(tmp_path / "packed", registry)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.config.phasegate_quantizer is None
    assert quantization_of(loaded) is None
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id
    assert {tensor.data_ptr() % 64 for tensor in loaded.parameters()} == {0}


def test_packing_leaves_the_model_as_it_was(build: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = build(seed=1)
    quantize_experts(model, "signs", {}, Signs())
    state = copy.deepcopy(model.state_dict())
    save_packed(model, tokenizer, tmp_path / "packed", encode_experts(model))
    assert model.config.phasegate_quantizer == {"use": "signs", "options": {}}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_random_state_stays_as_it_was(packed: Path, registry: Any) -> None:
    before = torch.get_rng_state()
    load_packed(packed, registry)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_weights_beside_hold_no_expert(packed: Path) -> None:
    from safetensors.torch import load_file

    assert not [name for name in load_file(packed / "model.packed.safetensors") if ".experts." in name]
    names = sorted(path.name for path in (packed / "experts").iterdir())
    assert names == [f"expert_00{expert}.trit" for expert in range(5)]


def test_the_tokenizer_is_packed_too(packed: Path, tokenizer: Any) -> None:
    assert load_tokenizer(packed).get_vocab() == tokenizer.get_vocab()


def test_the_report_states_trits_and_scales_apart(build: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = build(seed=1)
    report = save_packed(model, tokenizer, tmp_path / "packed", code(model))
    # a layer of an expert: (32, 32) = 205 bytes and 32 scales, (32, 16) = 103 bytes and 32 scales
    assert report.weights == 5 * 2 * 1536
    assert report.packed_bits == 8 * (205 + 103) / 1536
    assert report.scale_bits == 16 * 64 / 1536
    assert report.bytes == 5 * (12 + 2 * (2 * 15 + 205 + 103 + 2 * 64) + 4)
    assert report.bytes == sum(path.stat().st_size for path in (tmp_path / "packed" / "experts").iterdir())
    assert (report.fp16_bytes, report.fp32_bytes) == (30720, 61440)


def test_codes_are_split_by_expert_and_come_back_from_the_folder(build: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = build(seed=1)
    codes = code(model)
    save_packed(model, tokenizer, tmp_path / "packed", codes)
    for expert, parts in enumerate(read_experts(tmp_path / "packed")):
        trits, scales = parts[1, 0]
        whole = codes["model.layers.1.mlp.experts.gate_up_proj"]
        assert torch.equal(torch.from_numpy(trits), whole.trits[expert])
        assert torch.equal(torch.from_numpy(scales), whole.scales[expert])


def test_every_damaged_and_every_missing_file_is_an_error(packed: Path, registry: Any) -> None:
    files = sorted(path for path in packed.rglob("*") if path.is_file())
    assert len(files) >= 5 + 4
    for path in files:
        data = path.read_bytes()
        middle = len(data) // 2
        for damaged in (data[:middle], data[:middle] + bytes([data[middle] ^ 0x41]) + data[middle + 1 :], None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            with pytest.raises(StoreError, match=r"packed"):
                load_packed(packed, registry)
        path.write_bytes(data)
    load_packed(packed, registry)


def test_an_expert_under_another_number_is_an_error(packed: Path) -> None:
    experts = packed / "experts"
    (experts / "expert_001.trit").write_bytes((experts / "expert_000.trit").read_bytes())
    with pytest.raises(StoreError, match=r"expert_001.trit' was changed after it was packed"):
        read_experts(packed)


@pytest.mark.parametrize("change", [{"format": 2}, {"experts": 4}])
def test_another_index_is_an_error(packed: Path, registry: Any, change: dict[str, int]) -> None:
    index = json.loads((packed / "packed.json").read_text())
    (packed / "packed.json").write_text(json.dumps(index | change))
    with pytest.raises(StoreError, match=r"packed.json' was changed"):
        load_packed(packed, registry)


def test_only_a_packed_folder_is_packed(packed: Path, build: Any, tokenizer: Any, registry: Any) -> None:
    plain = packed.with_name("plain")
    save_model(build(), tokenizer, plain)
    assert (is_packed(packed), is_packed(plain), is_packed(plain / "none")) == (True, False, False)
    with pytest.raises(StoreError, match="holds no packed model"):
        load_packed(plain, registry)


def test_codes_must_be_those_of_all_experts(build: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = build(seed=1)
    codes = code(model)
    short = dict(list(codes.items())[1:])
    small = codes | {"model.layers.1.mlp.experts.down_proj": codes["model.layers.1.mlp.experts.gate_up_proj"]}
    for wrong in (short, small, codes | {"more": next(iter(codes.values()))}, {}):
        with pytest.raises(ConfigError, match=r"is not quantized as it lies in the model"):
            save_packed(model, tokenizer, tmp_path / "packed", wrong)
    assert list(tmp_path.iterdir()) == []


def test_codes_of_more_than_three_values_are_not_packed(build: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = build(seed=1)
    codes = code(model)
    next(iter(codes.values())).trits[0, 0, 0] = -128
    with pytest.raises(ConfigError, match="codes up to 128, and only ternary ones"):
        save_packed(model, tokenizer, tmp_path / "packed", codes)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_experts_cannot_be_packed(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    with pytest.raises(ConfigError, match="has no experts"):
        save_packed(LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)), tokenizer, tmp_path / "packed", {})


def test_other_parameters_than_stacked_matrices_are_refused() -> None:
    one = Codes(trits=torch.zeros(2, 1, 1, dtype=torch.int8), scales=torch.ones(2, 1, dtype=torch.float16))
    with pytest.raises(ConfigError, match="is no gate_up_proj or down_proj of a layer"):
        split_experts({"model.layers.0.mlp.experts.bias_proj": one})
    with pytest.raises(ConfigError, match="is no gate_up_proj or down_proj of a layer"):
        split_experts({"experts.down_proj": one})
    with pytest.raises(ConfigError, match="two parameters are one matrix"):
        split_experts({f"{part}.layers.0.experts.down_proj": one for part in ("a", "b")})


def test_a_model_with_an_anchor_is_refused(
    build: Any, tokenizer: Any, make_guard: Callable[..., Any], tmp_path: Path
) -> None:
    model = build()
    codes = code(model)
    attach(model, "anchor", make_guard(model))
    with pytest.raises(ConfigError, match=r"has a safety anchor.*export it unpacked"):
        save_packed(model, tokenizer, tmp_path / "packed", codes)
    assert list(tmp_path.iterdir()) == []


def test_probes_of_the_quantized_model_belong_to_the_packed_one(
    make_probes: Callable[..., Probes], build: Any, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    model = build(seed=1)
    quantize_experts(model, "signs", {}, Signs())
    attach(model, "probes", make_probes(trunk_digest(model)))
    save_packed(model, tokenizer, tmp_path / "packed", encode_experts(model))
    loaded = load_packed(tmp_path / "packed", registry)
    assert not companions_of(loaded)["probes"].stale(loaded)
    assert torch.equal(companions_of(loaded)["probes"].weight, torch.ones(1, 2, 32))
    assert not companions_of(model)["probes"].stale(model)


def test_probes_of_other_weights_do_not_belong_to_the_packed_model(
    make_probes: Callable[..., Probes], build: Any, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    model = build(seed=1)
    attach(model, "probes", make_probes(trunk_digest(model)))
    save_packed(model, tokenizer, tmp_path / "packed", code(model))  # which changes the model
    loaded = load_packed(tmp_path / "packed", registry)
    assert companions_of(loaded)["probes"].stale(loaded)


def test_a_missing_companion_is_an_error(
    make_probes: Callable[..., Probes], build: Any, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    model = build(seed=1)
    attach(model, "probes", make_probes(trunk_digest(model)))
    save_packed(model, tokenizer, tmp_path / "packed", code(model))
    (tmp_path / "packed" / "companions" / "probes.json").unlink()
    with pytest.raises(StoreError, match=r"probes.json' cannot be read"):
        load_packed(tmp_path / "packed", registry)


def test_a_folder_that_is_not_empty_is_left_alone(packed: Path, build: Any, tokenizer: Any) -> None:
    model = build()
    before = (packed / "packed.json").read_bytes()
    with pytest.raises(StoreError, match="already exists and is not an empty folder"):
        save_packed(model, tokenizer, packed, code(model))
    assert (packed / "packed.json").read_bytes() == before


def test_nothing_half_written_stays(
    build: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    model = build()
    codes = code(model)
    monkeypatch.setattr("phasegate.core.model.packed.write_expert", fail)
    with pytest.raises(StoreError, match=r"packed' cannot be written: .*No space left"):
        save_packed(model, tokenizer, tmp_path / "packed", codes)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"), new_folder(tmp_path / "file" / "below"):
        pass


def test_a_model_on_disk_without_quantizer_cannot_be_packed(
    build: Any, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    save_model(build(), tokenizer, tmp_path / "in")
    with pytest.raises(ConfigError, match="not quantized"):
        pack_model(tmp_path / "in", tmp_path / "out", registry)
    assert not (tmp_path / "out").exists()


def test_pairs_are_the_neighbours_of_the_first_router_or_all(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    with pytest.raises(ConfigError, match=r"knows no neighbours.*--all-pairs"):
        pairs_of(model)
    assert len(pairs_of(model, all_pairs=True)) == 10
    monkeypatch.setattr(routers_of(model)[0][2], "edges", lambda: torch.tensor([[0, 1], [1, 4]]))
    assert pairs_of(model) == [(0, 1), (1, 4)]
    assert len(pairs_of(model, all_pairs=True)) == 10
    with pytest.raises(ConfigError, match="no experts"):
        pairs_of(torch.nn.Linear(1, 1))


def test_deltas_of_no_pair_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pair of experts"):
        write_deltas([], [], tmp_path / "deltas")
    assert list(tmp_path.iterdir()) == []


def test_weights_in_another_dtype_than_the_rest_come_back_in_it(
    build: Any, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    model = build(seed=1).to(torch.bfloat16)
    model.model.norm.weight.data = torch.linspace(0.9, 1.1, 32)
    save_packed(model, tokenizer, tmp_path / "packed", code(model))
    assert torch.equal(load_packed(tmp_path / "packed", registry).model.norm.weight, torch.linspace(0.9, 1.1, 32))

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.parameters import routers_of
from phasegate.core.model.tokenizer import load_tokenizer
from phasegate.registry.errors import PluginError, StoreError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


@pytest.fixture
def folder(build: Any, tokenizer: Any, tmp_path: Path) -> Path:
    model = build(seed=1)
    for _, _, module in routers_of(model):
        module.selection_bias.copy_(torch.linspace(-0.3, 0.3, 5))
    save_model(model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


def edit_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_comes_back_in_the_same_bits(
    build: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = build(seed=1)
    save_model(model, tokenizer, tmp_path)
    loaded = load_model(tmp_path, registry)
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_loaded_weights_lie_as_aligned_as_built_ones(folder: Path, registry: Any) -> None:
    model = load_model(folder, registry)
    assert {tensor.data_ptr() % 64 for tensor in (*model.parameters(), *model.buffers())} == {0}
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_training_after_a_reload_gives_the_same_bits(
    build: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = build(seed=1)
    save_model(model, tokenizer, tmp_path)
    loaded = load_model(tmp_path, registry)
    for each in (model, loaded):
        optimizer = torch.optim.AdamW(each.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            each(ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_the_selection_bias_is_saved(folder: Path, registry: Any) -> None:
    for _, _, module in routers_of(load_model(folder, registry)):
        assert torch.equal(module.selection_bias, torch.linspace(-0.3, 0.3, 5))


def test_bf16_weights_load_as_bf16_with_their_bias_in_fp32(
    build: Any, tokenizer: Any, registry: Any, tmp_path: Path
) -> None:
    save_model(build().to(torch.bfloat16), tokenizer, tmp_path)
    model = load_model(tmp_path, registry)
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert routers_of(model)[0][2].selection_bias.dtype == torch.float32


def test_stock_families_come_back_in_the_same_bits(
    context: Any, tokenizer: Any, registry: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    for family in ("mixtral", "olmoe", "qwen3_moe"):
        ready = context()
        model = ready.registry.build("model", "stock", {"family": family}, context=ready).build(0)
        save_model(model, tokenizer, tmp_path / family)
        with torch.no_grad():
            assert torch.equal(load_model(tmp_path / family, registry)(ids).logits, model(ids).logits)


def test_the_library_alone_fills_missing_weights_without_an_error(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("model.layers.0.mlp.gate.weight"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.isfinite(model.model.layers[0].mlp.gate.weight).all()


def test_missing_weights_are_an_error_that_names_them(folder: Path, registry: Any) -> None:
    edit_weights(folder, lambda weights: weights.pop("model.layers.0.mlp.gate.weight"))
    with pytest.raises(StoreError, match=r"1 missing weights \(model.layers.0.mlp.gate.weight\)"):
        load_model(folder, registry)


def test_left_over_weights_are_an_error_that_names_them(folder: Path, registry: Any) -> None:
    edit_weights(folder, lambda weights: weights.update({"model.layers.0.mlp.gate.angles": torch.ones(3)}))
    with pytest.raises(StoreError, match=r"1 unexpected weights \(model.layers.0.mlp.gate.angles\)"):
        load_model(folder, registry)


def test_weights_of_another_shape_are_an_error(folder: Path, registry: Any) -> None:
    edit_weights(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(3)}))
    with pytest.raises(StoreError, match=r"model"):
        load_model(folder, registry)


def test_a_damaged_file_is_an_error(folder: Path, registry: Any) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"cannot be read"):
        load_model(folder, registry)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path, registry: Any) -> None:
    with pytest.raises(StoreError, match=r"holds no model"):
        load_model(tmp_path, registry)


def test_a_model_whose_router_is_not_loaded_names_it(folder: Path, registry: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["router"] = "phasegate-lego:switch"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PluginError, match=r"phasegate-lego:switch"):
        load_model(folder, registry)


def test_a_saved_model_generates_until_the_end_token(folder: Path, registry: Any, tokenizer: Any) -> None:
    config = load_model(folder, registry).generation_config
    assert tokenizer.convert_ids_to_tokens(config.eos_token_id) == ["<end>", "<eos>"]
    assert config.pad_token_id == tokenizer.pad_token_id


def test_the_tokenizer_is_saved_beside_the_model(folder: Path, tokenizer: Any) -> None:
    loaded = load_tokenizer(folder)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.chat_template == tokenizer.chat_template


def test_a_copy_of_a_loaded_model_is_independent(folder: Path, registry: Any, ids: torch.Tensor) -> None:
    model = load_model(folder, registry)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        before = model(ids).logits
        for parameter in copied.parameters():
            parameter.zero_()
        assert torch.equal(model(ids).logits, before)
        assert not copied(ids).logits.any()


def test_a_folder_that_cannot_be_written_is_an_error(build: Any, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written"):
        save_model(build(), tokenizer, tmp_path / "file" / "below")

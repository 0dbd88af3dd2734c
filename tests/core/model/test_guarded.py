"""A model with an anchor leaves the house with it, or with its absence said aloud."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Guard
from phasegate.core.model.companions import DIGEST, FIELD, attach, companions_of, trunk_digest
from phasegate.core.model.draft import Draft
from phasegate.core.model.drafter import DrafterConfig, make_drafter
from phasegate.core.model.exporting import export_model
from phasegate.core.model.guarded import is_guarded
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.probes import Probes
from phasegate.core.model.speaker import Speaker
from phasegate.core.model.tokenizer import load_tokenizer
from phasegate.registry.errors import StoreError
from phasegate.registry.registry import Registry
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3MoeForCausalLM

Save = Callable[..., Path]


@pytest.fixture
def save(build: Any, tokenizer: Any, make_guard: Callable[..., Guard], tmp_path: Path) -> Save:
    """Save a tiny model with an anchor."""

    def make(model: Any = None) -> Path:
        model = build() if model is None else model
        attach(model, "anchor", make_guard(model, at=0.5))
        save_model(model, tokenizer, tmp_path / "in")
        return tmp_path / "in"

    return make


@pytest.mark.parametrize("reader", [AutoConfig, AutoModelForCausalLM, Qwen3MoeForCausalLM])
def test_the_library_refuses_a_guarded_export(save: Save, with_plane: Registry, tmp_path: Path, reader: Any) -> None:
    report = export_model(save(), tmp_path / "out", with_plane)
    assert (report.model_type, report.guarded, report.needs_import) == ("phasegate_guarded", True, None)
    with pytest.raises((OSError, ValueError), match=r"phasegate_guarded|no file named model.safetensors"):
        reader.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen3_moe", None])
def test_a_guarded_export_is_loaded_whole(
    save: Save,
    context: Any,
    build: Any,
    with_plane: Registry,
    ids: torch.Tensor,
    tmp_path: Path,
    family: str | None,
) -> None:
    ready = context()
    model = (
        build()
        if family is None
        else ready.registry.build("model", "stock", {"family": family}, context=ready).build(0)
    )
    export_model(save(model), tmp_path / "out", with_plane)
    again = load_model(tmp_path / "out", with_plane)
    assert companions_of(again)["anchor"].options == {"at": 0.5}
    assert not companions_of(again)["anchor"].stale(again)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits, atol=1e-6, rtol=0)
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_a_guarded_model_that_no_stock_family_computes_keeps_its_type_inside(
    save: Save, build: Any, with_plane: Registry, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = build(gate="straight-through")
    assert export_model(save(model), tmp_path / "out", with_plane).guarded
    again = load_model(tmp_path / "out", with_plane)
    assert again.config.model_type == "phasegate_moe"
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


def test_an_export_of_a_guarded_export_is_guarded(save: Save, with_plane: Registry, tmp_path: Path) -> None:
    export_model(save(), tmp_path / "out", with_plane)
    assert export_model(tmp_path / "out", tmp_path / "further", with_plane).guarded
    assert is_guarded(tmp_path / "further")


def test_an_anchor_that_is_dropped_leaves_a_stock_model_and_a_word(
    save: Save, with_plane: Registry, tmp_path: Path
) -> None:
    report = export_model(save(), tmp_path / "out", with_plane, drop_anchor=True)
    assert (report.model_type, report.dropped, report.guarded) == ("qwen3_moe", True, False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (type(model).__name__, companions_of(model)) == ("Qwen3MoeForCausalLM", {})
    assert not (tmp_path / "out" / "companions").exists()
    assert not getattr(model.config, FIELD, None)


def test_dropping_what_is_not_there_says_nothing_was_dropped(
    build: Any, tokenizer: Any, registry: Registry, tmp_path: Path
) -> None:
    save_model(build(), tokenizer, tmp_path / "in")
    assert not export_model(tmp_path / "in", tmp_path / "out", registry, drop_anchor=True).dropped


def test_a_model_whose_anchor_cannot_be_put_in_place_is_not_exported(
    save: Save, registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="elsewhere:plane"):
        export_model(save(), tmp_path / "out", registry)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["outer", "inner", "both"])
def test_an_anchor_taken_off_the_list_of_a_guarded_export_is_an_error(
    save: Save, with_plane: Registry, tmp_path: Path, part: str
) -> None:
    export_model(save(), tmp_path / "out", with_plane)
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if part in ("outer", "both"):
        config[FIELD] = None
    if part in ("inner", "both"):
        config["model"] |= {FIELD: None, DIGEST: None}
        shutil.rmtree(tmp_path / "out" / "companions")
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(StoreError, match=r"exported with a safety anchor, and its config.json no longer says so"):
        load_model(tmp_path / "out", with_plane)


@pytest.mark.parametrize("name", ["anchor.json", "anchor.safetensors", "index.json"])
def test_a_guarded_export_with_a_changed_anchor_is_an_error(
    save: Save, with_plane: Registry, tmp_path: Path, name: str
) -> None:
    export_model(save(), tmp_path / "out", with_plane)
    path = tmp_path / "out" / "companions" / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(StoreError):
        load_model(tmp_path / "out", with_plane)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_type": "phasegate_guarded"}'])
def test_a_broken_configuration_is_an_error(save: Save, with_plane: Registry, tmp_path: Path, content: str) -> None:
    export_model(save(), tmp_path / "out", with_plane)
    (tmp_path / "out" / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(StoreError):
        load_model(tmp_path / "out", with_plane)


def test_the_tokenizer_of_a_guarded_export_is_read_in_silence(
    save: Save, tokenizer: Any, with_plane: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export_model(save(), tmp_path / "out", with_plane)
    again = load_tokenizer(tmp_path / "out")
    assert again("the cat").input_ids == tokenizer("the cat").input_ids
    assert again.chat_template == tokenizer.chat_template
    assert caplog.records == []


def test_a_failed_guarded_export_leaves_nothing_behind(
    save: Save, with_plane: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise OSError("no space left on device")

    folder = save()
    monkeypatch.setattr("phasegate.core.model.loading.hide", fail)
    with pytest.raises(StoreError, match="no space left"):
        export_model(folder, tmp_path / "out", with_plane)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("anchor", [False, True])
def test_probes_and_draft_go_along_with_an_export(
    build: Any,
    tokenizer: Any,
    make_guard: Callable[..., Guard],
    with_plane: Registry,
    tmp_path: Path,
    anchor: bool,
) -> None:
    model = build()
    probes = Probes(
        layers=(1, 2),
        weight=torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(1)),
        bias=torch.zeros(2),
        penalties={"general": 2.0},
        position="both",
        pool="mean",
        trunk=trunk_digest(model),
    )
    shape = {"vocab_size": 300, "embedding_size": 32, "hidden_size": 16, "intermediate_size": 32, "head_dim": 8}
    config = DrafterConfig(**shape, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
    attach(model, "probes", probes)
    attach(model, "draft", Draft(network=make_drafter(config, seed=0), trunk=trunk_digest(model), vocabulary=""))
    if anchor:
        attach(model, "anchor", make_guard(model, every=2, running=1e9))
    save_model(model, tokenizer, tmp_path / "in")
    export_model(tmp_path / "in", tmp_path / "out", with_plane)
    said = []
    for folder in ("in", "out"):
        speaker = Speaker(load_model(tmp_path / folder, with_plane), load_tokenizer(tmp_path / folder))
        assert speaker.stale() == ()
        options: dict[str, Any] = {"text": "the cat", "max_new_tokens": 8, "do_sample": False, "confidence": True}
        said += [speaker.generate(**options), speaker.generate(**options, speculative=True)]
    assert len({one.texts for one in said}) == 1
    for one in said[1:]:
        torch.testing.assert_close(one.confidence, said[0].confidence, atol=1e-5, rtol=0)
    if not anchor:  # who knows nothing of probes still reads the model
        assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "out")).__name__ == "Qwen3MoeForCausalLM"

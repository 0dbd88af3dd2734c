"""What travels with a model: saved with it, loaded with it, and never lost without a word."""

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
from phasegate.core.model.exporting import export_model
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.parameters import routers_of
from phasegate.registry.errors import StoreError
from phasegate.registry.registry import Registry


@pytest.fixture
def checkpoint(build: Any, tokenizer: Any, make_guard: Callable[..., Guard], tmp_path: Path) -> Path:
    """A checkpoint with an anchor beside it."""
    model = build()
    attach(model, "anchor", make_guard(model, at=0.5, every=3))
    save_model(model, tokenizer, tmp_path / "in")
    return tmp_path / "in"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_companion_is_loaded_with_its_model(checkpoint: Path, with_plane: Registry) -> None:
    model = load_model(checkpoint, with_plane)
    guard = companions_of(model)["anchor"]
    assert (guard.reference, guard.every, guard.options) == ("elsewhere:plane", 3, {"at": 0.5})
    assert not guard.stale(model)


def test_saving_again_gives_the_same_bytes(
    checkpoint: Path, tokenizer: Any, with_plane: Registry, tmp_path: Path
) -> None:
    save_model(load_model(checkpoint, with_plane), tokenizer, tmp_path / "again")
    for name in ("config.json", *(f"companions/{part.name}" for part in (checkpoint / "companions").iterdir())):
        assert (tmp_path / "again" / name).read_bytes() == (checkpoint / name).read_bytes()


def test_a_model_without_companions_has_no_folder_for_them(build: Any, tokenizer: Any, tmp_path: Path) -> None:
    save_model(build(), tokenizer, tmp_path / "in")
    assert not (tmp_path / "in" / "companions").exists()


def test_saving_takes_away_what_an_earlier_model_left(build: Any, tokenizer: Any, checkpoint: Path) -> None:
    save_model(build(), tokenizer, checkpoint)
    assert not (checkpoint / "companions").exists()


def test_attaching_nothing_takes_a_companion_away(build: Any, make_guard: Callable[..., Guard]) -> None:
    model = build()
    attach(model, "anchor", make_guard(model))
    attach(model, "anchor", None)
    assert (companions_of(model), getattr(model.config, FIELD)) == ({}, None)


@pytest.mark.parametrize("name", ["anchor.json", "anchor.safetensors", "index.json"])
def test_a_missing_file_is_an_error(checkpoint: Path, with_plane: Registry, name: str) -> None:
    (checkpoint / "companions" / name).unlink()
    with pytest.raises(StoreError, match=r"cannot be read|changed"):
        load_model(checkpoint, with_plane)


def test_a_missing_folder_is_an_error(checkpoint: Path, with_plane: Registry) -> None:
    shutil.rmtree(checkpoint / "companions")
    with pytest.raises(StoreError, match=r"was saved with anchor, but .* cannot be read"):
        load_model(checkpoint, with_plane)


@pytest.mark.parametrize("name", ["anchor.json", "anchor.safetensors", "index.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "longer"])
def test_a_changed_file_is_an_error(checkpoint: Path, with_plane: Registry, name: str, damage: str) -> None:
    path = checkpoint / "companions" / name
    data = path.read_bytes()
    damaged = {"cut": data[:-3], "flipped": data[:-1] + bytes([data[-1] ^ 1]), "longer": data + b" "}
    path.write_bytes(damaged[damage])
    with pytest.raises(StoreError, match=r"cannot be read|changed"):
        load_model(checkpoint, with_plane)


def test_new_digests_in_the_index_do_not_hide_a_change(checkpoint: Path, with_plane: Registry) -> None:
    import hashlib

    home = checkpoint / "companions"
    edit(home / "anchor.json", lambda facts: facts.update(refusal="of course !"))
    new = hashlib.sha256((home / "anchor.json").read_bytes()).hexdigest()
    edit(home / "index.json", lambda index: index["anchor"].update(facts=new))
    with pytest.raises(StoreError, match="changed afterwards"):
        load_model(checkpoint, with_plane)


@pytest.mark.parametrize("names", [None, [], ["probes"], ["anchor", "probes"]])
def test_another_list_in_the_configuration_is_an_error(checkpoint: Path, with_plane: Registry, names: Any) -> None:
    edit(checkpoint / "config.json", lambda config: config.update({FIELD: names}))
    with pytest.raises(StoreError, match=r"was saved with anchor beside it, and its config.json"):
        load_model(checkpoint, with_plane)


def test_a_configuration_without_the_fields_is_an_error(checkpoint: Path, with_plane: Registry) -> None:
    edit(checkpoint / "config.json", lambda config: (config.pop(FIELD), config.pop(DIGEST)))
    with pytest.raises(StoreError, match="changed afterwards"):
        load_model(checkpoint, with_plane)


def test_who_takes_list_and_folder_away_in_agreement_is_not_found_out(checkpoint: Path, with_plane: Registry) -> None:
    # Digests are no signatures. A stage in the store has its manifest beside, and an export its model type.
    edit(checkpoint / "config.json", lambda config: (config.pop(FIELD), config.pop(DIGEST)))
    shutil.rmtree(checkpoint / "companions")
    assert companions_of(load_model(checkpoint, with_plane)) == {}


def test_a_companion_of_an_unknown_kind_is_an_error(checkpoint: Path, with_plane: Registry) -> None:
    import hashlib

    home = checkpoint / "companions"
    for suffix in ("json", "safetensors"):
        shutil.copy(home / f"anchor.{suffix}", home / f"oracle.{suffix}")
    edit(home / "index.json", lambda index: index.update(oracle=index["anchor"]))
    digest = hashlib.sha256((home / "index.json").read_bytes()).hexdigest()
    edit(checkpoint / "config.json", lambda config: config.update({FIELD: ["anchor", "oracle"], DIGEST: digest}))
    with pytest.raises(StoreError, match="knows no companion 'oracle'"):
        load_model(checkpoint, with_plane)


def test_a_model_that_lost_its_companion_is_not_saved(
    checkpoint: Path, tokenizer: Any, with_plane: Registry, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(checkpoint)  # the library knows of no companions
    with pytest.raises(StoreError, match="was read without its anchor, which its configuration lists"):
        save_model(bare, tokenizer, tmp_path / "out")


def test_the_digest_of_a_model_is_that_of_its_stock_export(
    build: Any, tokenizer: Any, registry: Registry, tmp_path: Path
) -> None:
    model = build()
    save_model(model, tokenizer, tmp_path / "in")
    report = export_model(tmp_path / "in", tmp_path / "out", registry)
    assert report.model_type == "qwen3_moe"
    assert trunk_digest(load_model(tmp_path / "out", registry)) == trunk_digest(model)


def test_the_digest_sees_every_weight_and_a_bias_that_is_used(build: Any) -> None:
    model = build()
    before = trunk_digest(model)
    routers_of(model)[0][2].selection_bias[1] = 0.5
    biased = trunk_digest(model)
    routers_of(model)[0][2].selection_bias[1] = 0.0
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj[2, 0, 0] += 1e-6
    assert len({before, biased, trunk_digest(model)}) == 3

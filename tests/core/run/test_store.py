"""The store: a stage is there whole or not at all, found by recipe, and damage has a name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from phasegate.core.run.fingerprint import Recipe, recipe_of
from phasegate.core.run.store import Stage, Store
from phasegate.registry.errors import StoreError

WEIGHTS = b"weights" * 100


def recipe(seed: int = 0) -> Recipe:
    return recipe_of({"phase": "foundation", "seed": seed})


def make(store: Store, wanted: Recipe, weights: bytes = WEIGHTS) -> Stage:
    with store.single_flight(wanted):
        work = store.begin(wanted)
        work.metrics.write_text('{"step": 1}\n')
        with store.draft(work) as draft:
            (draft.checkpoint / "model.safetensors").write_bytes(weights)
            (draft.evidence / "gates.json").write_text("{}")
            return store.commit(draft, {"verdicts": {"plateau": "pass"}})


def raising(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def visible(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.iterdir() if not path.name.startswith("."))


def test_a_committed_stage_is_found_by_its_recipe_with_everything_in_it(store: Store) -> None:
    make(store, recipe())
    stage = store.find(recipe())
    assert stage is not None
    assert stage.folder == store.root / recipe().name
    assert (stage.checkpoint / "model.safetensors").read_bytes() == WEIGHTS
    assert (stage.evidence / "gates.json").read_text() == "{}"
    assert stage.metrics.read_text() == '{"step": 1}\n'
    assert stage.manifest["verdicts"] == {"plateau": "pass"}
    assert stage.recipe == recipe() and stage.digest == recipe().digest


def test_the_manifest_holds_size_and_sha256_of_every_file(store: Store) -> None:
    files = make(store, recipe()).manifest["files"]
    assert files["checkpoint/model.safetensors"] == {"bytes": 700, "sha256": hashlib.sha256(WEIGHTS).hexdigest()}
    assert sorted(files) == ["checkpoint/model.safetensors", "evidence/gates.json", "metrics.jsonl"]


def test_another_recipe_finds_nothing(store: Store) -> None:
    make(store, recipe(0))
    assert store.find(recipe(1)) is None


def test_an_empty_or_absent_store_has_no_stages(store: Store) -> None:
    assert store.find(recipe()) is None and store.list() == ()
    assert not store.root.exists()


def test_all_stages_are_listed_and_got_by_name(store: Store) -> None:
    names = sorted(make(store, recipe(seed)).name for seed in (0, 1, 2))
    assert [stage.name for stage in store.list()] == names
    assert store.get(names[1]).name == names[1]


@pytest.mark.parametrize("name", ["foundation-000000000000", "../store", ""])
def test_an_unknown_stage_name_is_told_with_the_known_ones(store: Store, name: str) -> None:
    known = make(store, recipe()).name
    with pytest.raises(StoreError, match=known):
        store.get(name)


def test_a_commit_leaves_neither_work_nor_drafts(store: Store) -> None:
    make(store, recipe())
    assert list((store.root / ".work").iterdir()) == []
    assert visible(store) == [recipe().name]
    assert not [path for path in store.root.iterdir() if path.name.startswith((".draft", ".trash"))]


def test_work_is_kept_between_attempts(store: Store) -> None:
    first = store.begin(recipe())
    (first.folder / "checkpoint-10").mkdir()
    second = store.begin(recipe())
    assert first.fresh and not second.fresh
    assert (second.folder / "checkpoint-10").is_dir()


def test_work_of_another_recipe_under_this_name_is_refused_and_stays(store: Store) -> None:
    work = store.begin(recipe())
    (work.folder / "recipe.json").write_text(json.dumps({"phase": "foundation", "seed": 7}))
    with pytest.raises(StoreError, match="seed: 7 -> 0"):
        store.begin(recipe())
    assert json.loads((work.folder / "recipe.json").read_text())["seed"] == 7


@pytest.mark.parametrize("content", ["{", "[1]", '{"seed": NaN}', "\x00\x01"])
def test_work_with_an_unreadable_recipe_is_refused_and_stays(store: Store, content: str) -> None:
    work = store.begin(recipe())
    (work.folder / "recipe.json").write_text(content)
    with pytest.raises(StoreError, match="move"):
        store.begin(recipe())
    assert (work.folder / "recipe.json").read_text() == content


def test_a_foreign_work_folder_is_refused_and_stays(store: Store) -> None:
    folder = store.root / ".work" / recipe().name
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="was not made by a run"):
        store.begin(recipe())
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_foreign_folder_at_the_stage_s_place_is_refused_and_stays(store: Store) -> None:
    folder = store.root / recipe().name
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="was not made by a run"):
        make(store, recipe())
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        Store(tmp_path / "store")


def test_two_recipes_with_one_folder_name_are_told_apart(store: Store) -> None:
    stage = make(store, recipe(0))
    twin = Recipe(mapping={"phase": "foundation", "seed": 1}, digest=recipe(0).digest)
    with pytest.raises(StoreError, match="seed: 0 -> 1"):
        store.find(twin)
    assert store.find(recipe(0)) == stage


def test_a_tampered_recipe_is_told_as_a_difference(store: Store) -> None:
    stage = make(store, recipe())
    manifest = {**stage.manifest, "recipe": {"phase": "foundation", "seed": 5}}
    (stage.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="seed: 5 -> 0"):
        store.find(recipe())


def test_a_manifest_changed_after_the_commit_is_refused(store: Store) -> None:
    stage = make(store, recipe())
    manifest = {**stage.manifest, "verdicts": {"plateau": "fail"}}
    (stage.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="was changed after"):
        store.find(recipe())


@pytest.mark.parametrize("content", ["", "{", '{"format": 2}', '{"format": 1, "recipe": 3}'])
def test_an_unreadable_manifest_is_named(store: Store, content: str) -> None:
    stage = make(store, recipe())
    (stage.folder / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        store.find(recipe())


def test_a_whole_stage_verifies(store: Store) -> None:
    stage = make(store, recipe())
    before = (stage.checkpoint / "model.safetensors").read_bytes()
    store.verify(stage)
    assert (stage.checkpoint / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(WEIGHTS[:-1]), "has 699 bytes instead of 700"),
        (lambda path: path.write_bytes(bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]), "has other content"),
        (lambda path: path.unlink(), "is missing"),
    ],
    ids=["truncated", "bit flipped", "missing"],
)
def test_damage_is_found_and_the_file_named(store: Store, damage: Callable[[Path], object], told: str) -> None:
    stage = make(store, recipe())
    damage(stage.checkpoint / "model.safetensors")
    with pytest.raises(StoreError, match=rf"model\.safetensors {told}"):
        store.verify(stage)


def test_a_folder_without_its_mark_is_never_read_and_never_in_the_way(store: Store) -> None:
    stage = make(store, recipe())
    (stage.folder / "COMPLETE").unlink()
    assert store.find(recipe()) is None and store.list() == ()
    again = make(store, recipe(), weights=b"new")
    assert (again.checkpoint / "model.safetensors").read_bytes() == b"new"
    store.verify(again)


def test_a_second_commit_of_one_recipe_keeps_the_first(store: Store) -> None:
    first = make(store, recipe())
    second = make(store, recipe(), weights=b"late")
    assert second == first
    assert (second.checkpoint / "model.safetensors").read_bytes() == WEIGHTS


def test_a_draft_whose_body_fails_is_gone_and_the_work_stays(store: Store) -> None:
    work = store.begin(recipe())
    with pytest.raises(KeyboardInterrupt), store.draft(work) as draft:
        (draft.checkpoint / "half").write_bytes(b"x")
        raise KeyboardInterrupt
    assert visible(store) == [] and not draft.folder.exists()
    assert not store.begin(recipe()).fresh


def test_leftover_drafts_of_a_killed_process_are_removed(store: Store) -> None:
    left = store.root / f".draft-{recipe().name}-0000"
    left.mkdir(parents=True)
    make(store, recipe())
    assert not left.exists()


def test_drafts_of_other_stages_are_left_alone(store: Store) -> None:
    other = store.root / f".draft-{recipe(1).name}-0000"
    other.mkdir(parents=True)
    make(store, recipe(0))
    assert other.exists()


def test_links_do_not_enter_a_stage(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    work = store.begin(recipe())
    with pytest.raises(StoreError, match="no plain file"), store.draft(work) as draft:
        (draft.checkpoint / "link").symlink_to(tmp_path / "elsewhere")
        store.commit(draft, {})
    assert store.find(recipe()) is None


def test_facts_cannot_replace_the_manifest_s_own_keys(store: Store) -> None:
    work = store.begin(recipe())
    with store.draft(work) as draft, pytest.raises(ValueError, match="recipe"):
        store.commit(draft, {"recipe": {}})
    assert store.find(recipe()) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", range(1, 9))
def test_a_disk_that_fills_up_at_any_sync_leaves_no_stage_and_keeps_the_work(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, call: int
) -> None:
    work = store.begin(recipe())
    (work.folder / "state").write_text("kept")
    real, calls = os.fsync, iter(range(1, 100))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: raising(number)() if next(calls) == call else real(fd))
        with pytest.raises(StoreError, match="the disk is full"):
            make(store, recipe())
    assert store.find(recipe()) is None
    assert (store.begin(recipe()).folder / "state").read_text() == "kept"
    store.verify(make(store, recipe()))


def test_a_full_disk_that_a_library_reports_in_its_own_words_is_recognised(store: Store) -> None:
    work = store.begin(recipe())
    with pytest.raises(StoreError, match="the disk is full"), store.draft(work):
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert visible(store) == []


def test_a_library_s_other_errors_pass_unchanged(store: Store) -> None:
    work = store.begin(recipe())
    with pytest.raises(ValueError, match=r"^unrelated$"), store.draft(work):
        raise ValueError("unrelated")
    assert visible(store) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_read_only_store_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(Path, "mkdir", raising(number))
    for attempt in (lambda: store.begin(recipe()), lambda: store.single_flight(recipe()).__enter__()):
        with pytest.raises(StoreError, match=r"^cannot write .* read-only for this user") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_a_finished_stage_can_be_used_from_a_read_only_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(store, recipe())
    for name in ("mkdir", "rename", "replace", "touch", "unlink", "write_bytes", "write_text"):
        monkeypatch.setattr(Path, name, raising(errno.EROFS))
    stage = store.find(recipe())
    assert stage == made
    store.verify(made)


def test_the_page_about_the_store_shows_code_that_runs() -> None:
    page = Path(__file__).parents[3] / "docs" / "store.md"
    code = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, str(page), "exec"), names)
    assert isinstance(names["stage"], Stage)

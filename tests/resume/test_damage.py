"""What was damaged is named before it is used, in a sentence, and stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.registry.sealed import seal

from .harness import Forge, Life, Whole, differences

Left = Callable[[str, Path], Forge]

CHECKPOINT = "attempt-0/pretrain/trainer/checkpoint-6"
#: Every kind of file that a run keeps between attempts: when it is there, and what the message says beside its name.
FILES: dict[str, tuple[str, str]] = {
    f"{CHECKPOINT}/model.safetensors": ("training", "move the checkpoint's folder away"),
    f"{CHECKPOINT}/optimizer.pt": ("training", "move the checkpoint's folder away"),
    f"{CHECKPOINT}/scheduler.pt": ("training", "move the checkpoint's folder away"),
    f"{CHECKPOINT}/rng_state.pth": ("training", "move the checkpoint's folder away"),
    f"{CHECKPOINT}/trainer_state.json": ("training", "move the checkpoint's folder away"),
    f"{CHECKPOINT}/phasegate_state.json": ("training", "move the checkpoint's folder away"),
    f"{CHECKPOINT}/phasegate_losses.safetensors": ("training", "move the checkpoint's folder away"),
    f"{CHECKPOINT}/COMPLETE": ("training", "move the checkpoint's folder away"),
    "tokenizer/tokenizer.json": ("training", "the tokenizer of the unfinished stage"),
    "tokenizer/DONE.json": ("training", "the tokenizer of the unfinished stage"),
    "recipe.json": ("training", "move"),
    "provenance.json": ("training", ""),
    "attempt-0/pretrain/model/model.safetensors": ("committed", "the finished step 'pretrain'"),
    "attempt-0/pretrain/model/config.json": ("committed", "the finished step 'pretrain'"),
    "attempt-0/pretrain/DONE.json": ("committed", "the finished step 'pretrain'"),
    "attempt-0/evidence/verdicts.json": ("committed", "the evidence of attempt 0"),
    "attempt-0/decision.json": ("committed", "the evidence of attempt 0"),
}
FAST = {(f"{CHECKPOINT}/optimizer.pt", "flipped"), ("attempt-0/pretrain/model/model.safetensors", "flipped")}
DAMAGES = [
    pytest.param(name, how, marks=() if (name, how) in FAST else pytest.mark.slow)
    for name in FILES
    for how in ("flipped", "truncated")
]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
        return
    # In a JSON file a digit, so that it stays JSON.
    digits = [place for place, byte in enumerate(content) if byte in b"01234567"]
    place = digits[len(digits) // 2] if path.suffix == ".json" and digits else len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)


def listing(folder: Path) -> dict[str, str]:
    """Digests of all that a run may not touch."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }


def refused(forge: Forge) -> Life:
    """Run, and hold the store against what it was before."""
    before = listing(forge.store)
    code, life = forge.run()
    assert code == 2, life.said()[-3000:]
    assert "Traceback" not in life.said()
    assert listing(forge.store) == before
    return life


@pytest.mark.parametrize(("name", "how"), DAMAGES)
def test_a_damaged_file_is_named_before_it_is_used(name: str, how: str, left: Left, tmp_path: Path) -> None:
    when, told = FILES[name]
    forge = left(when, tmp_path)
    damage(forge.work / name, how)
    error = "".join(refused(forge).error().split())
    assert "".join(told.split()) in error
    # These two are held against what the run says itself, and the folder and the difference are named.
    compared = name in {"provenance.json", "recipe.json"} and how == "flipped"
    named = forge.work.name if compared else name
    assert named in error, error


@pytest.mark.slow
def test_a_checkpoint_that_was_moved_away_leaves_the_one_before_it(left: Left, first: Whole, tmp_path: Path) -> None:
    forge = left("training", tmp_path)
    damage(forge.work / CHECKPOINT / "optimizer.pt", "flipped")
    refused(forge)
    (forge.work / CHECKPOINT).rename(tmp_path / "away")
    forge.finish()
    assert differences(first.forge.folder, forge.folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["checkpoint/model.safetensors", "checkpoint/tokenizer.json", "evidence/verdicts.json"]
)
def test_a_damaged_stage_is_named_before_the_next_phase_starts_from_it(name: str, short: Whole, tmp_path: Path) -> None:
    forge = short.twin(tmp_path)
    code, _ = forge.run({"at": "phasegate.core.run.loop:run_phase", "call": 2, "do": "kill"})
    assert code < 0
    (stage,) = [path.parent for path in forge.store.glob("*/COMPLETE")]
    damage(stage / name, "flipped")
    error = refused_above(forge).error()
    assert f"stage {stage.name} is damaged" in error and name in "".join(error.split())


def refused_above(forge: Forge) -> Life:
    """Run, and hold the committed stages against what they were before."""
    (stage,) = [path.parent for path in forge.store.glob("*/COMPLETE")]
    before = listing(stage)
    code, life = forge.run()
    assert code == 2 and "Traceback" not in life.said(), life.said()[-3000:]
    assert listing(stage) == before
    return life


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return (os.system, (self.command,))


@pytest.mark.parametrize(
    "name",
    [
        "rng_state.pth",
        pytest.param("optimizer.pt", marks=pytest.mark.slow),
        pytest.param("scheduler.pt", marks=pytest.mark.slow),
    ],
)
def test_a_malicious_pickle_with_the_right_digests_executes_nothing(name: str, left: Left, tmp_path: Path) -> None:
    forge = left("training", tmp_path)
    folder, mark = forge.work / CHECKPOINT, tmp_path / "executed"
    torch.save({"python": Malice(f"touch {mark}"), "state": {}, "param_groups": []}, folder / name)
    facts = json.loads((folder / "COMPLETE").read_text())["facts"]
    seal(folder / "COMPLETE", facts, [path for path in folder.iterdir() if path.name != "COMPLETE"])
    life = refused(forge)
    assert not mark.exists()
    assert "holds objects that are never loaded" in life.error()


@pytest.mark.slow
def test_two_processes_on_one_run_wait_for_each_other_and_end_in_the_same_bits(first: Whole, tmp_path: Path) -> None:
    forge = first.twin(tmp_path)
    one, other = forge.start(), forge.start()
    assert (one.wait(), other.wait()) == (0, 0)
    assert "is working on stage foundation-" in " ".join(one.said().split())
    assert differences(first.forge.folder, forge.folder) == []

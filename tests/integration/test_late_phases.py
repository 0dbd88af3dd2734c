"""Phases 4 to 6 in a whole run: what trains and what does not, reuse, resume, and what travels with the model."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Platform = Callable[..., int]
Tensors = dict[str, torch.Tensor]
LATE = ("safety", "metacognition", "optimization")


def stages(store: Path) -> dict[str, Path]:
    return {path.parent.name.rsplit("-", 1)[0]: path.parent for path in store.glob("*/COMPLETE")}


def weights(stage: Path) -> Tensors:
    return dict(load_file(stage / "checkpoint" / "model.safetensors"))


def moved(before: Tensors, after: Tensors) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def bits(folder: Path) -> dict[str, str]:
    """Digests of all that a repeat must reproduce; what was timed is left out."""
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in {".safetensors", ".jsonl"}]
    kept += sorted((folder / "checkpoint").rglob("*.json"))
    timed = {path for path in kept if "evidence" in path.parts and any(part.startswith("draft") for part in path.parts)}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in kept
        if path not in timed
    }


def values(stage: Path) -> dict[str, float]:
    rows = json.loads((stage / "evidence" / "verdicts.json").read_text())
    return {f"{row['criterion']}:{row['metric']}": row["value"] for row in rows if row["metric"] != "speedup"}


def test_six_phases_move_what_they_may_move_and_carry_their_companions(
    six: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(six)) == 0
    made = stages(tmp_path / "store")
    assert set(made) == {"foundation", "specialization", "alignment", *LATE}

    before, after = weights(made["alignment"]), weights(made["safety"])
    assert not [name for name in moved(before, after) if ".gate." in name]
    for name in before:
        if ".experts." in name:
            assert torch.equal(before[name][:-1], after[name][:-1]), name
    assert any(".experts." in name for name in moved(before, after)), "the generalist trains"

    assert moved(weights(made["safety"]), weights(made["metacognition"])) == set()

    last = moved(weights(made["metacognition"]), weights(made["optimization"]))
    assert last and not [name for name in last if ".gate." in name]

    def companions(phase: str) -> set[str]:
        return set(json.loads((made[phase] / "checkpoint" / "companions" / "index.json").read_text()))

    assert companions("safety") == {"anchor"}
    assert companions("metacognition") == {"anchor", "probes"}
    assert companions("optimization") == {"anchor", "draft", "probes"}

    config = json.loads((made["optimization"] / "checkpoint" / "config.json").read_text())
    assert config["max_position_embeddings"] == 4 * 48
    for phase in made:
        assert (made[phase] / "evidence" / "changes.json").is_file()

    capsys.readouterr()
    assert platform("train", str(six)) == 0
    assert "0 phases trained, 6 taken from the store" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("at", [("refuse", 3), ("quadruple", 2), ("draft", 2)])
def test_a_late_phase_that_is_stopped_and_run_again_ends_in_the_same_bits(
    at: tuple[str, int], six: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phasegate.core.cli.watching import Watch
    from transformers import TrainerCallback

    assert platform("train", str(six), "--store", "whole") == 0

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at[1] - 1:
                signal.raise_signal(signal.SIGTERM)

    def interrupting(self: Watch, step: str, tokens: float) -> tuple[Any, ...]:
        return (Stop(),) if step == at[0] else ()

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "callbacks", interrupting)
        assert platform("train", str(six), "--store", "broken") == 143
    assert len(stages(tmp_path / "broken")) < 6
    assert platform("train", str(six), "--store", "broken") == 0
    whole, again = stages(tmp_path / "whole"), stages(tmp_path / "broken")
    for phase in LATE:
        expected, found = bits(whole[phase]), bits(again[phase])
        assert [path for path in expected if found.get(path) != expected[path]] == []
        assert values(whole[phase]) == values(again[phase])


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["softmax", "straight-through"])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_late_phases_go_through_with_every_gate_and_precision(
    gate: str, top_k: int, precision: str, six: Path, platform: Platform, tmp_path: Path
) -> None:
    settings = (
        f"--set=model.router={{use: linear, gate: {gate}}}",
        f"--set=model.num_experts_per_tok={top_k}",
        f"--set=precision={precision}",
        "--set=order=foundation>alignment>safety>metacognition>optimization",
    )
    assert platform("train", str(six), *settings) == 0
    made = stages(tmp_path / "store")
    assert all(tensor.isfinite().all() for tensor in weights(made["optimization"]).values())
    assert moved(weights(made["safety"]), weights(made["metacognition"])) == set()

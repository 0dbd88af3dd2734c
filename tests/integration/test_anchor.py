"""An anchor through a whole run: captured, held in place, measured, resumed, exported, and in force at the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import phasegate
import pytest

Platform = Callable[..., int]

GUARDED = """
name: guarded
size: nano
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, head_dim: 16, moe_intermediate_size: 16,
        num_experts: 6}
tokenizer: {vocab_size: 600, documents: 400}
data:
  sequence_length: 48
  sources:
    world: {use: microworld, head: 4, rare: 1, contested: 1, unknown: 2, hard: 1, training_documents: 900, chats: 240,
            pairs: 120, heldout_chats: 24, heldout_pairs: 16, needles: 20}
run: {logging_steps: 2, save_every: 0.5, threads: 1}
phases:
  foundation:
    steps:
      pretrain: {steps: 4, rows: 4}
      watch: {objective: anchor, steps: 1, rows: 16, anchor: half-space,
              options: {false_positives: 0.1, every: 4, prompts: 400}}
      more: {objective: sft, view: chat, steps: 4, rows: 4, losses: {anchor: {use: anchor, weight: 0.5}}}
    gates:
      knowledge: null
      load-low: null
      load-high: null
      plateau: null
      watched: {use: anchor, metric: detected, at_least: 0.0, answers: 0, documents: 30}
      let-through: {use: anchor, metric: "false_positive_rate/*", at_most: 1.0, answers: 12, documents: 30}
    policy: {extensions: 0}
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Path:
    path = tmp_path / "guarded.yaml"
    path.write_text(GUARDED, encoding="utf-8")
    return path


def stage(store: Path) -> Path:
    (complete,) = store.glob("*/COMPLETE")
    return complete.parent


def bits(folder: Path) -> dict[str, str]:
    """Digests of the model, of what travels with it, and of what was logged and judged."""
    kept = [path for path in folder.rglob("*") if path.suffix in {".safetensors", ".jsonl"}]
    kept += [folder / "evidence" / "verdicts.json", *folder.rglob("companions/*")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def test_an_anchor_is_captured_held_measured_and_exported(
    guarded: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(guarded)) == 0
    made = stage(tmp_path / "store")
    rows = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    rates = next(row for row in rows if row["at"] == "watch")
    assert {"anchor/detected", "anchor/false_positive_rate", "anchor/false_positive_rate/high"} <= set(rates)
    penalties = [row["loss/anchor"] for row in rows if "loss/anchor" in row]
    assert len(penalties) == 2 and penalties[0] < penalties[1]
    assert platform("export", str(made), "out") == 0
    with pytest.warns(UserWarning, match="anchor of the model"):  # it was trained on after the capture
        speaker = phasegate.load(tmp_path / "out")
    assert speaker.companions["anchor"].refusal
    assert len(speaker.generate(text=["hello", "the city of"], max_new_tokens=4).texts) == 2


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in the capture", "after it"])
def test_a_run_that_was_killed_ends_in_the_same_bits(
    where: str, guarded: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert platform("train", str(guarded), "--store", "whole") == 0

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "in the capture":
            patch.setattr("phasegate.plugins.anchors.half_space.threshold_for", killed)
        else:
            patch.setattr("phasegate.plugins.losses.anchor.AnchorPenalty.__call__", killed)
        with pytest.raises((KeyboardInterrupt, AssertionError)):
            assert platform("train", str(guarded), "--store", "broken") == 0
    assert platform("train", str(guarded), "--store", "broken") == 0
    assert bits(stage(tmp_path / "broken")) == bits(stage(tmp_path / "whole"))


def test_the_loss_without_a_captured_anchor_is_refused_in_the_plan(
    guarded: Path, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    text = guarded.read_text(encoding="utf-8")
    start, end = text.index("      watch:"), text.index("      more:")
    guarded.write_text(text[:start] + text[end:], encoding="utf-8")
    assert platform("plan", str(guarded)) == 2
    assert "holds a safety anchor in place, but no earlier step captures one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("false_positives: 0.1", "false_positives: 0.001"), "would set its thresholds on"),
        (("every: 4", "harmful: [evil]"), "draws no prompts to refuse"),
        (("every: 4", "evry: 4"), "Did you mean 'every'"),
        (("anchor: half-space", "anchor: half-spce"), "Did you mean 'half-space'"),
    ],
)
def test_what_would_fail_later_is_refused_before_anything_is_trained(
    change: tuple[str, str],
    told: str,
    guarded: Path,
    platform: Platform,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    guarded.write_text(guarded.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    assert platform("train", str(guarded)) == 2
    assert told in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("*/checkpoint"))

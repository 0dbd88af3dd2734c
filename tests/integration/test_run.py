"""A whole run: phases are trained, measured, committed, reused, stopped and resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Platform = Callable[..., int]


def stages(store: Path) -> dict[str, Path]:
    return {path.parent.name.rsplit("-", 1)[0]: path.parent for path in store.glob("*/COMPLETE")}


def bits(folder: Path) -> dict[str, str]:
    """Digests of everything in a stage that a repeat must reproduce: models, metrics, evidence."""
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in {".safetensors", ".jsonl"}]
    kept += [folder / "evidence" / "verdicts.json"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def test_three_phases_are_trained_judged_and_committed_and_a_second_run_trains_nothing(
    tiny: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(tiny)) == 0
    made = stages(tmp_path / "store")
    assert set(made) == {"foundation", "specialization", "alignment"}
    verdicts = json.loads((made["alignment"] / "evidence" / "verdicts.json").read_text())
    assert {row["criterion"] for row in verdicts} == {"format", "knowledge-kept", "preference", "judge", "load-low"}
    assert (made["alignment"] / "steps" / "sft" / "model.safetensors").is_file()
    facts = json.loads((made["specialization"] / "manifest.json").read_text())["facts"]
    assert facts["attempts"][0]["bump"]["specialize"]["before"] > 0
    assert not (tmp_path / "store" / ".work" / made["alignment"].name).exists()

    def refuse(*_: Any) -> None:
        raise AssertionError("a second run trained something")

    monkeypatch.setattr("phasegate.core.run.objectives.train_step", refuse)
    capsys.readouterr()
    assert platform("train", str(tiny)) == 0
    assert "0 phases trained, 3 taken from the store" in capsys.readouterr().out


@pytest.mark.parametrize("at", [("pretrain", 5), ("sft", 4), ("dpo", 2)])
def test_a_run_that_is_stopped_and_run_again_ends_in_the_same_bits(
    at: tuple[str, int], tiny: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert platform("train", str(tiny), "--store", "whole") == 0
    from phasegate.core.cli.watching import Watch
    from transformers import TrainerCallback

    class Stop(TrainerCallback):  # type: ignore[misc]
        def __init__(self, raise_signal: Callable[[], None]) -> None:
            self.raise_signal = raise_signal

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at[1] - 1:
                self.raise_signal()

    def interrupting(self: Watch, step: str, tokens: float) -> tuple[Any, ...]:
        import signal

        return (Stop(lambda: signal.raise_signal(signal.SIGTERM)),) if step == at[0] else ()

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "callbacks", interrupting)
        assert platform("train", str(tiny), "--store", "broken") == 143
    assert len(stages(tmp_path / "broken")) < 3
    assert platform("train", str(tiny), "--store", "broken") == 0
    whole, again = stages(tmp_path / "whole"), stages(tmp_path / "broken")
    for name, folder in whole.items():
        expected, found = bits(folder), bits(again[name])
        assert [path for path in expected if found.get(path) != expected[path]] == []


def test_a_failed_gate_stops_the_run_with_3_and_warn_goes_on_from_there_without_training_it_again(
    tiny: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ("--set", "order=foundation>specialization", "--set", "phases.foundation.gates.knowledge.at_least=0.99")
    assert platform("train", str(tiny), *order) == 3
    stopped = capsys.readouterr()
    assert "phase 'foundation' ended the run: a criterion failed" in stopped.err
    assert set(stages(tmp_path / "store")) == {"foundation"}
    assert platform("train", str(tiny), *order) == 3
    assert platform("train", str(tiny), *order, "--gates", "warn") == 0
    assert "1 phases trained, 1 taken from the store" in capsys.readouterr().out
    assert set(stages(tmp_path / "store")) == {"foundation", "specialization"}


@pytest.mark.parametrize("action,steps", [("extend", 3), ("rollback", 9)])
def test_a_failed_phase_is_repeated_as_often_as_its_policy_allows(
    action: str, steps: int, tiny: Path, platform: Platform, tmp_path: Path
) -> None:
    code = platform(
        "train",
        str(tiny),
        "--set=order=foundation",
        "--set=phases.foundation.gates.knowledge.at_least=0.99",
        f"--set=phases.foundation.policy.on_fail={action}",
        "--set=phases.foundation.policy.extensions=1",
        "--set=phases.foundation.policy.extend_by=0.34",
        "--set=phases.foundation.policy.then=advance",
    )
    assert code == 0
    facts = json.loads((stages(tmp_path / "store")["foundation"] / "manifest.json").read_text())["facts"]
    assert [attempt["kind"] for attempt in facts["attempts"]] == ["train", action]
    assert facts["attempts"][1]["steps"] == {"pretrain": steps}
    assert facts["outcome"] == "fail" and facts["decision"]["action"] == "advance"


def test_a_phase_whose_entry_criterion_fails_is_not_entered(
    tiny: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = "{known: {use: choice, metric: acc, at_least: 0.99, documents: 20}}"
    arguments = ("--set=order=foundation>specialization", f"--set=phases.specialization.entry={entry}")
    assert platform("train", str(tiny), *arguments) == 3
    assert "phase 'specialization' was not entered" in capsys.readouterr().err
    assert set(stages(tmp_path / "store")) == {"foundation"}


def test_a_stage_whose_checkpoint_was_damaged_is_named_and_never_trained_from(
    tiny: Path, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(tiny), "--set=order=foundation") == 0
    model = stages(tmp_path / "store")["foundation"] / "checkpoint" / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    assert platform("train", str(tiny), "--set=order=foundation>specialization") == 2
    assert "model.safetensors has other content than was written" in capsys.readouterr().err


def test_changed_plugin_code_is_refused_unless_it_is_allowed(
    tiny: Path, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("train", str(tiny), "--set=order=foundation") == 0
    from phasegate.registry.plugins import Plugins

    original = Plugins.provenance

    def changed(self: Plugins, used: Any = ()) -> dict[str, Any]:
        manifest = original(self, used)
        manifest["dists"]["phasegate"]["code"] = "sha256:0"
        return manifest

    monkeypatch.setattr(Plugins, "provenance", changed)
    assert platform("train", str(tiny), "--set=order=foundation") == 2
    assert "was made with other plugin code" in capsys.readouterr().err
    assert platform("train", str(tiny), "--set=order=foundation", "--allow-plugin-drift") == 0


def test_one_seed_gives_one_model_and_another_seed_another(tiny: Path, platform: Platform, tmp_path: Path) -> None:
    for store, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert platform("train", str(tiny), "--set=order=foundation", "--store", store, f"--set=seed={seed}") == 0
    models = [bits(stages(tmp_path / store)["foundation"])["checkpoint/model.safetensors"] for store in "abc"]
    assert models[0] == models[1] != models[2]


def test_an_exported_stage_is_a_stock_model(tiny: Path, platform: Platform, tmp_path: Path) -> None:
    assert platform("train", str(tiny), "--set=order=foundation") == 0
    name = stages(tmp_path / "store")["foundation"].name
    assert platform("export", name, "exported") == 0
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["model_type"] == "qwen3_moe"
    assert platform("export", name, "exported") == 2
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    assert platform("export", str(run), "from-run") == 0


def test_a_folder_that_is_no_run_is_not_exported(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "holiday").mkdir()
    assert platform("export", "holiday", "exported") == 2
    assert "holiday is not a run folder" in capsys.readouterr().err

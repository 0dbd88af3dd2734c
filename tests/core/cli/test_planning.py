"""The plan as a command: what it prints, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.cli.app import main


def light_plan(preset: str, folder: Path) -> Any:
    """The plan of a preset as JSON data, from a process that has imported nothing heavy when it ends."""
    code = (
        "import sys\n"
        "from phasegate.core.cli.app import main\n"
        f"try:\n    main(['plan', '{preset}', '--json'])\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plan_of_the_preset_counts_its_cost_and_imports_neither_torch_nor_datasets(tmp_path: Path) -> None:
    plan = light_plan("ncas-nano", tmp_path)
    # 1536 x 64 embeddings; 3 layers of 4 x 64 x 64 attention and 9 x 3 x 64 x 64 experts, 9 x 64 router, norms.
    assert plan["parameters"]["total"] == 98_304 + 3 * (16_384 + 110_592 + 576 + 160) + 64
    names = ["foundation", "specialization", "alignment", "safety", "metacognition", "optimization"]
    assert [stage["phase"] for stage in plan["stages"]] == names
    assert not any(stage["cached"] for stage in plan["stages"])
    budget = plan["budget"]
    assert [phase["phase"] for phase in budget["phases"]] == [stage["phase"] for stage in plan["stages"]]
    assert sum(phase["tokens"] for phase in budget["phases"]) == budget["tokens"] == plan["tokens"]
    assert sum(phase["share"] for phase in budget["phases"]) == pytest.approx(1.0)
    # foundation: 1800 steps of 16 rows of 64 tokens, each at six times the weights it meets and 12 * 3 * 64 * 64
    first = budget["phases"][0]
    assert first["tokens"] == 1800 * 16 * 64
    met = 3 * (16_384 + 3 * 64 * 64 + 9 * 64) + 1536 * 64
    assert first["training_flops"] == first["tokens"] * (6 * met + 12 * 3 * 64 * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_a_trillion_parameters_allocates_and_imports_nothing_heavy_either(tmp_path: Path) -> None:
    plan = light_plan("perspective-paper", tmp_path)
    assert [stage["phase"] for stage in plan["stages"]] == [
        "seed",
        "experts",
        "differentiation",
        "ternary",
        "manifold",
    ]
    experts = [stage["parameters"]["by_role"].get("experts", 0) for stage in plan["stages"]]
    assert experts == [0, *4 * [128 * 60 * 3 * 4096 * 11008]]
    hardware = plan["budget"]["hardware"]
    assert (hardware["device"], hardware["devices"], hardware["price_per_device_hour"]) == ("a100", 32, 3)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_device_is_a_mistake_with_its_place_and_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["plan", "ncas-nano", "--set", "hardware.device=h20"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --set hardware.device=h20: there is no device 'h20'. Did you mean 'h200'?")
    assert error.count("\n") == 1


def test_hours_and_cost_follow_the_hardware_of_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for devices in (1, 2):
        with pytest.raises(SystemExit):
            main(
                [
                    "plan",
                    "ncas-nano",
                    "--json",
                    "--set",
                    f"hardware={{device: cpu, devices: {devices}, utilization: 0.4, price: 1.5}}",
                ]
            )
        found.append(json.loads(capsys.readouterr().out)["budget"])
    one, two = found
    assert one["hours"] == pytest.approx(one["flops"] / (0.4 * 0.1e12) / 3600)
    assert two["hours"] == pytest.approx(one["hours"] / 2)
    assert two["cost"] == pytest.approx(one["cost"]) == pytest.approx(one["hours"] * 1.5)
    assert (one["hardware"]["price_per_device_hour"], one["hardware"]["price_assumed"]) == (1.5, False)

"""Every published class of bug is caught by the proof that names it, and by none that has nothing to do with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

Failing = Callable[..., set[str]]


def beside(name: str) -> Any:
    """A module of this folder, which is no package."""
    spec = spec_from_file_location(f"verify_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plants = beside("plants")
BUGS = {**plants.PUBLISHED, **plants.FURTHER}
QUICK = {"auxiliary loss computed but not added", "sampler order repeated after resume"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BUGS])
def test_a_planted_bug_is_caught_by_the_proofs_that_name_it(
    name: str, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = BUGS[name]
    bug.plant(monkeypatch)
    assert failing(*bug.overrides) == set(bug.caught_by)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", sorted({bug.overrides for bug in BUGS.values()}))
def test_without_a_bug_every_proof_of_the_same_experiment_holds(overrides: tuple[str, ...], failing: Failing) -> None:
    assert failing(*overrides) == set()


def test_a_key_that_nothing_reads_is_named(small: Path) -> None:
    from phasegate.core.verify.verify import verify

    idle = "phases.foundation.policy={on_fail: advance, extend_by: 0.5}"
    (found,) = [proof for proof in verify(str(small), (plants.ONE, idle)) if proof.outcome == "fails"]
    assert found.name == "given key is read" and "policy.extend_by" in found.reason


def test_the_page_has_the_table_of_bugs_and_every_proof() -> None:
    text = (Path(__file__).parents[3] / "docs" / "verify.md").read_text(encoding="utf-8")
    for name, bug in plants.PUBLISHED.items():
        assert f"| {name} | {', '.join(bug.caught_by)} |" in text
    assert f"It catches {len(plants.PUBLISHED)} of {len(plants.PUBLISHED)}." in text
    caught = {proof for bug in BUGS.values() for proof in bug.caught_by}
    told = text[text.index("| proof |") : text.index("What has nothing to show")]
    assert [proof for proof in sorted(caught) if proof not in told] == []


Platform = Callable[..., int]


def test_the_command_prints_a_line_a_proof_and_stops_at_the_first_that_fails(
    small: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("verify", str(small), "--set", plants.ONE, "--workers", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("holds ", "skipped ")) for line in lines[:-1])
    assert lines[-1].startswith(f"{sum(line.startswith('holds') for line in lines)} proofs hold, 0 fail")
    plants.not_added(monkeypatch)
    assert platform("verify", str(small), "--set", plants.ONE, "--workers", "1") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("fails    loss term is in the gradient: foundation/pretrain: balance")


def test_a_mistake_in_the_experiment_is_exit_code_2(
    small: Path, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform("verify", str(small), "--set", "model.router=linnear") == 2
    assert "Did you mean 'linear'" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_make_the_proofs_of_one(small: Path) -> None:
    command = [sys.executable, "-m", "phasegate.core.cli.app", "verify", str(small), "--set", plants.ONE]
    said = [
        subprocess.run([*command, "--workers", count], capture_output=True, text=True, check=True).stdout
        for count in ("1", "2")
    ]
    assert said[0] == said[1] and "loss term is in the gradient" in said[0]

"""A third-party plugin in a real run: every hook is called, in order, with what it promises."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Platform = Callable[..., int]

PLUGIN = '''
from phasegate import LossSpec, hookimpl

calls = []


@hookimpl
def phasegate_components():
    """One loss."""
    yield LossSpec(name="nothing", target="phasegate_watcher.losses:Nothing", summary="Adds nothing.")


@hookimpl
def phasegate_on_start(ctx):
    calls.append("start")


@hookimpl
def phasegate_before_phase(ctx):
    calls.append(f"before {ctx.name}")


@hookimpl(wrapper=True)
def phasegate_run_phase(ctx):
    calls.append("run")
    result = yield
    calls.append(f"ran {result.steps}")
    return result


@hookimpl
def phasegate_on_step(ctx):
    assert ctx.loss.requires_grad is False and ctx.loss.dim() == 0
    calls.append(f"step {ctx.global_step}")


@hookimpl
def phasegate_on_gate(ctx):
    calls.append(f"gate {ctx.judgement.criterion} {ctx.when}")


@hookimpl
def phasegate_after_phase(ctx):
    assert ctx.model is not None and ctx.result.steps == 3
    calls.append("after")


@hookimpl
def phasegate_on_save(ctx):
    assert (ctx.folder / "checkpoint" / "model.safetensors").exists()
    (ctx.folder / "note.txt").write_text("from the watcher")
    calls.append("save")


@hookimpl
def phasegate_on_end(ctx):
    calls.append("end" if ctx.error is None else f"end after {type(ctx.error).__name__}")
'''

LOSS = """
class Nothing:
    def __init__(self, setup):
        pass

    def __call__(self, ctx):
        return ctx.records[0].logits.sum() * 0.0

    def after_step(self):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""


@pytest.fixture
def watcher(install_plugin: Any) -> list[str]:
    """A distribution ``phasegate-watcher`` that is installed as far as metadata can tell; its list of calls."""
    install_plugin("phasegate-watcher", PLUGIN, files={"losses.py": LOSS})
    calls: list[str] = importlib.import_module("phasegate_watcher.plugin").calls
    return calls


ONE = ("--set=order=foundation", "--set=phases.foundation.steps.pretrain.steps=3")


def test_every_hook_of_an_enabled_plugin_is_called_in_order(
    watcher: list[str], tiny: Path, platform: Platform, tmp_path: Path
) -> None:
    extra = "--set=phases.foundation.steps.pretrain.losses={watcher: {use: nothing, weight: 1.0}}"
    assert platform("train", str(tiny), *ONE, extra, "--plugins", "phasegate-watcher") == 0
    gates = [f"gate {name} completion" for name in ("knowledge", "load-low", "load-high")]
    steps = ["step 1", "step 2", "step 3"]
    assert watcher == ["start", "before foundation", "run", *steps, *gates, "ran 3", "after", "save", "end"]
    (note,) = (tmp_path / "store").glob("foundation-*/note.txt")
    assert note.read_text() == "from the watcher"


def test_a_plugin_that_is_installed_but_not_named_is_never_called(
    watcher: list[str], tiny: Path, platform: Platform
) -> None:
    assert platform("train", str(tiny), *ONE) == 0
    assert watcher == []


def test_the_end_hook_hears_of_a_stopped_run(watcher: list[str], tiny: Path, platform: Platform) -> None:
    bound = "--set=phases.foundation.gates.knowledge.at_least=0.99"
    assert platform("train", str(tiny), *ONE, bound, "--plugins", "phasegate-watcher") == 3
    assert watcher[-1] == "end after GateStop"


def test_a_required_plugin_cannot_be_dropped_from_the_command_line(
    watcher: list[str], tiny: Path, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text("require: [phasegate-watcher]\n" + tiny.read_text())
    assert platform("train", str(tiny), *ONE, "--plugins", "no:phasegate-watcher") == 2
    assert "phasegate-watcher" in capsys.readouterr().err
    assert watcher == []

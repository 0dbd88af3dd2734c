"""The fixtures of the kit: plugins without pip, isolated managers, recorded hooks, and a run in one call."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import phasegate.testing
import pytest
from phasegate.registry.discovery import find
from phasegate.registry.hookspecs import hookimpl
from phasegate.registry.plugins import Plugins

LEGO = """
    from phasegate import LossSpec, hookimpl
    from .parts import VALUE

    @hookimpl
    def phasegate_components():
        yield LossSpec(name="none", target="phasegate_lego.parts:Nothing", summary="Adds nothing.")

    @hookimpl
    def phasegate_on_step(ctx):
        return VALUE
"""
PARTS = """
    VALUE = 7

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
STEP = "phases.foundation.steps.pretrain"


def test_a_fake_distribution_is_found_loaded_and_forgotten(install_plugin: Any) -> None:
    install_plugin("phasegate-lego", LEGO, files={"parts.py": PARTS}, version="1.2")
    (found,) = [plugin for plugin in find() if plugin.dist == "phasegate-lego"]
    assert (found.name, found.version, found.refusal) == ("phasegate-lego:lego", "1.2", None)
    assert "phasegate_lego" not in sys.modules
    Plugins.load(["lego"])
    assert sys.modules["phasegate_lego.parts"].VALUE == 7


def test_nothing_of_it_is_left_for_the_next_test() -> None:
    assert [plugin.dist for plugin in find() if plugin.dist == "phasegate-lego"] == []
    assert "phasegate_lego" not in sys.modules


def test_managers_are_isolated(install_plugin: Any, plugins: Any) -> None:
    install_plugin("phasegate-lego", LEGO, files={"parts.py": PARTS})
    with_it, without = plugins("phasegate-lego"), plugins()
    assert with_it.order == ("phasegate:builtin", "phasegate-lego:lego")
    assert without.order == ("phasegate:builtin",)


def test_an_object_with_hooks_is_a_plugin(plugins: Any) -> None:
    one, other = ModuleType("one"), ModuleType("other")

    @hookimpl
    def phasegate_on_step(ctx: Any) -> str:
        return f"one saw {ctx}"

    one.phasegate_on_step = phasegate_on_step  # type: ignore[attr-defined]
    loaded = plugins(one, other)
    assert loaded.order == ("phasegate:builtin", "object-1:given", "object-2:given")
    assert loaded.hook.phasegate_on_step(ctx="it") == ["one saw it"]


def test_an_object_with_a_misspelt_hook_is_refused_as_any_plugin(plugins: Any) -> None:
    module = ModuleType("odd")
    module.phasegate_onstep = lambda ctx: None  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="phasegate_onstep looks like a hook"):
        plugins(module)


def test_the_calls_of_a_manager_are_recorded(install_plugin: Any, plugins: Any, record_hooks: Any) -> None:
    install_plugin("phasegate-lego", LEGO, files={"parts.py": PARTS})
    loaded = plugins("lego")
    calls = record_hooks(loaded)
    loaded.hook.phasegate_on_step(ctx="a step")
    loaded.hook.phasegate_on_end(ctx="the end")
    assert [(call.hook, call.ctx, call.owners) for call in calls] == [
        ("on_step", "a step", ("phasegate-lego:lego",)),
        ("on_end", "the end", ()),
    ]


def test_a_nano_run_trains_in_one_call_and_gives_its_record(nano_run: Any) -> None:
    found = nano_run()
    assert (found.code, found.stderr) == (0, "")
    assert "1 phases trained" in found.stdout
    assert [stage["phase"] for stage in found.stages] == ["foundation"]
    assert [row["step"] for row in found.metrics["foundation"] if "loss/task" in row] == [1, 2]
    assert found.manifest["experiment"] == "nano"
    assert found.plan
    assert (found.folders["foundation"] / "checkpoint" / "model.safetensors").is_file()


def test_a_warm_nano_run_takes_less_than_two_seconds_of_this_process(nano_run: Any) -> None:
    nano_run()
    begin = time.process_time()
    assert nano_run(overrides=["seed=1"]).code == 0
    assert time.process_time() - begin < 2.0


def test_a_nano_run_takes_plugins_overrides_and_more_phases(
    install_plugin: Any, nano_run: Any, record_hooks: Any
) -> None:
    install_plugin("phasegate-lego", LEGO, files={"parts.py": PARTS})
    calls = record_hooks()
    losses = {"none": {"use": "none", "weight": 1.0}}
    found = nano_run(
        plugins=["phasegate-lego"],
        overrides=[f"{STEP}.steps=3"],
        experiment={"phases": {"foundation": {"steps": {"pretrain": {"losses": losses}}}}},
    )
    assert found.code == 0
    assert found.manifest["plugins"]["dists"].keys() == {"phasegate", "phasegate-lego"}
    assert "loss/none" in found.metrics["foundation"][0]
    steps = [call for call in calls if call.hook == "on_step"]
    assert [call.ctx.global_step for call in steps] == [1, 2, 3]
    assert {call.owners for call in steps} == {("phasegate-lego:lego",)}
    assert [call.hook for call in calls if call.hook != "on_step"] == [
        "on_start",
        "before_phase",
        "on_gate",
        "run_phase",
        "after_phase",
        "on_save",
        "on_end",
    ]


def test_a_mistake_in_a_nano_run_is_its_result(nano_run: Any) -> None:
    found = nano_run(overrides=["phases.foundation.steps.pretrain.stepz=3"])
    assert (found.code, found.folder, found.stages) == (2, None, ())
    assert "stepz" in found.stderr and "Traceback" not in found.stderr


def test_the_pytest_plugin_and_the_checks_load_nothing_heavy() -> None:
    code = "import sys, phasegate.testing.fixtures, phasegate.testing.checks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"datasets", "numpy", "pydantic", "torch", "transformers", "typer"}
    assert heavy & {name.split(".")[0] for name in done.stdout.split()} == set()


def test_the_checks_need_no_pytest() -> None:
    folder = Path(phasegate.testing.__file__).parent
    asking = {path.name for path in folder.rglob("*.py") if "import pytest" in path.read_text(encoding="utf-8")}
    assert asking == {"conformance.py", "fixtures.py"}
    code = "import sys; sys.modules['pytest'] = None; from phasegate.testing import checks, conformance"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

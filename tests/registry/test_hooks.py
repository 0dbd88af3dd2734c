from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from phasegate import GateContext, GateStop, PhaseContext, PhaseResult, RunContext, SaveContext, StepContext
from phasegate.registry import hookspecs
from phasegate.registry.hookspecs import HOOKS
from phasegate.registry.plugins import Plugins

RESULT = PhaseResult(steps=3, tokens=12, seconds=0.5)


def run_context(**facts: Any) -> RunContext:
    return RunContext(experiment=None, plan=None, folder=Path("run"), **facts)


def phase_context(seen: list[Any] | None = None, **facts: Any) -> PhaseContext:
    def execute() -> PhaseResult:
        if seen is not None:
            seen.append("execute")
        return RESULT

    told: dict[str, Any] = {"execute": execute, "log": lambda values: None, **facts}
    return PhaseContext(run=run_context(), name="foundation", section=None, folder=Path("run"), parent=None, **told)


def step_context() -> StepContext:
    return StepContext(phase="foundation", step="main", global_step=1, model=None, loss=None)


CONTEXTS: dict[str, Any] = {
    "phasegate_on_start": run_context,
    "phasegate_before_phase": phase_context,
    "phasegate_run_phase": phase_context,
    "phasegate_on_step": step_context,
    "phasegate_on_gate": lambda: GateContext(phase="foundation", when="exit", judgement=None),
    "phasegate_after_phase": phase_context,
    "phasegate_on_save": lambda: SaveContext(phase="foundation", folder=Path("stage"), is_main=True),
    "phasegate_on_end": run_context,
}


def install_logger(install_plugin: Any, dist: str, *bodies: str) -> None:
    install_plugin(dist, "from phasegate import *\nseen = []\n" + "\n".join(textwrap.dedent(body) for body in bodies))


def seen(dist: str) -> list[Any]:
    return list(sys.modules[f"{dist.replace('-', '_')}.plugin"].seen)


def test_the_table_of_hooks_is_the_specs() -> None:
    specs = {name: f for name, f in vars(hookspecs).items() if hasattr(f, "phasegate_spec")}
    assert list(HOOKS) == list(specs)
    assert {name: tuple(inspect.signature(f).parameters) for name, f in specs.items()} == HOOKS


@pytest.mark.parametrize("hook", [name for name in HOOKS if name != "phasegate_components"])
def test_every_hook_reaches_a_plugin_with_its_context(install_plugin: Any, hook: str) -> None:
    install_logger(install_plugin, "phasegate-lego", f"@hookimpl\ndef {hook}(ctx): seen.append(ctx)")
    context = CONTEXTS[hook]()
    getattr(Plugins.load(["lego"]).hook, hook)(ctx=context)
    assert seen("phasegate-lego") == [context]


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_of_every_hook_loads_as_a_plugin(install_plugin: Any, hook: str) -> None:
    text = inspect.cleandoc(getattr(hookspecs, hook).__doc__)
    install_plugin("phasegate-example", textwrap.dedent(text.partition("Example::\n")[2]))
    assert "phasegate-example:example" in {call.owner for call in Plugins.load(["example"]).calls(hook)}


def test_hooks_run_in_the_order_in_which_plugins_are_listed(install_plugin: Any) -> None:
    for dist in ("phasegate-a", "phasegate-b"):
        install_logger(install_plugin, dist, "@hookimpl\ndef phasegate_on_step(ctx): return __name__")
    calls = [Plugins.load(order).hook.phasegate_on_step(ctx=step_context()) for order in (["a", "b"], ["b,a"])]
    assert calls == [
        ["phasegate_a.plugin", "phasegate_b.plugin"],
        ["phasegate_b.plugin", "phasegate_a.plugin"],
    ]


def test_the_call_order_is_shown_as_it_is_with_wrappers_first(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-a", "@hookimpl(trylast=True)\ndef phasegate_run_phase(ctx): ...")
    install_logger(
        install_plugin, "phasegate-b", "@hookimpl(wrapper=True)\ndef phasegate_run_phase(ctx): return (yield)"
    )
    install_logger(install_plugin, "phasegate-c", "@hookimpl(tryfirst=True)\ndef phasegate_run_phase(ctx): ...")
    told = [(c.owner, c.wrapper, c.order) for c in Plugins.load(["a,b,c"]).calls("phasegate_run_phase")]
    assert told == [
        ("phasegate-b:b", True, ""),
        ("phasegate-c:c", False, "first"),
        ("phasegate-a:a", False, "last"),
        ("phasegate:core", False, "last"),
    ]


def test_without_plugins_a_phase_is_executed_once() -> None:
    log: list[Any] = []
    assert Plugins.load().hook.phasegate_run_phase(ctx=phase_context(log)) is RESULT
    assert log == ["execute"]


def test_a_plugin_wraps_the_running_of_a_phase(install_plugin: Any) -> None:
    wrapper = """
        @hookimpl(wrapper=True)
        def phasegate_run_phase(ctx):
            seen.append("before")
            result = yield
            seen.append(result.steps)
            return result
    """
    install_logger(install_plugin, "phasegate-lego", wrapper)
    assert Plugins.load(["lego"]).hook.phasegate_run_phase(ctx=phase_context()) is RESULT
    assert seen("phasegate-lego") == ["before", 3]


def test_a_plugin_replaces_the_running_of_a_phase_by_a_result_of_its_own(install_plugin: Any) -> None:
    source = "@hookimpl\ndef phasegate_run_phase(ctx): return PhaseResult(steps=0, tokens=0, seconds=0.0)"
    install_logger(install_plugin, "phasegate-lego", source)
    log: list[Any] = []
    assert Plugins.load(["lego"]).hook.phasegate_run_phase(ctx=phase_context(log)).steps == 0
    assert log == []


def test_a_context_that_nobody_reads_need_not_be_built(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-lego", "@hookimpl\ndef phasegate_on_step(ctx): ...")
    assert Plugins.load(["lego"]).implements("phasegate_on_step")
    assert not Plugins.load().implements("phasegate_on_step")


def notes(plugins: Plugins, hook: str, expected: type[BaseException], **facts: Any) -> list[str]:
    context = phase_context(**facts) if hook == "phasegate_run_phase" else CONTEXTS[hook]()
    with pytest.raises(expected) as caught:
        getattr(plugins.hook, hook)(ctx=context)
    return list(getattr(caught.value, "__notes__", []))


def test_an_exception_in_a_hook_keeps_its_type_and_names_the_plugin(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-good", "@hookimpl\ndef phasegate_on_step(ctx): ...")
    install_logger(install_plugin, "phasegate-bad", "@hookimpl\ndef phasegate_on_step(ctx): {}['k']")
    told = notes(Plugins.load(["good,bad"]), "phasegate_on_step", KeyError)
    assert told == ["raised by plugin phasegate-bad:bad 1.0 in phasegate_on_step"]


def test_an_exception_in_a_wrapper_names_the_wrapper(install_plugin: Any) -> None:
    install_logger(
        install_plugin, "phasegate-bad", "@hookimpl(wrapper=True)\ndef phasegate_run_phase(ctx):\n    yield\n    1 / 0"
    )
    told = notes(Plugins.load(["bad"]), "phasegate_run_phase", ZeroDivisionError)
    assert told == ["raised by plugin phasegate-bad:bad 1.0 in phasegate_run_phase"]


PASSES = "@hookimpl(wrapper=True)\ndef phasegate_run_phase(ctx): return (yield)"


def test_an_exception_that_passes_a_wrapper_names_who_raised_it(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-outer", PASSES)
    install_logger(install_plugin, "phasegate-bad", "@hookimpl\ndef phasegate_run_phase(ctx): 1 / 0")
    told = notes(Plugins.load(["outer,bad"]), "phasegate_run_phase", ZeroDivisionError)
    assert told == ["raised by plugin phasegate-bad:bad 1.0 in phasegate_run_phase"]


def test_a_failure_of_the_training_itself_blames_no_plugin(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-outer", PASSES)

    def fail() -> PhaseResult:
        raise MemoryError

    assert notes(Plugins.load(["outer"]), "phasegate_run_phase", MemoryError, execute=fail) == []


def test_an_exception_of_a_hook_inside_a_phase_is_noted_once(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-outer", PASSES)
    install_logger(install_plugin, "phasegate-bad", "@hookimpl\ndef phasegate_on_step(ctx): 1 / 0")
    plugins = Plugins.load(["outer,bad"])

    def step() -> PhaseResult:
        plugins.hook.phasegate_on_step(ctx=step_context())
        return RESULT

    told = notes(plugins, "phasegate_run_phase", ZeroDivisionError, execute=step)
    assert told == ["raised by plugin phasegate-bad:bad 1.0 in phasegate_on_step"]


def test_the_owner_is_told_apart_under_a_decorator_that_two_plugins_share(install_plugin: Any) -> None:
    decorator = """
        import functools

        def quiet(function):
            @functools.wraps(function)
            def inner(ctx):
                return function(ctx)
            return inner
    """
    install_plugin("phasegate-base", files={"shared.py": decorator})
    head = "from phasegate_base.shared import quiet\n"
    install_logger(install_plugin, "phasegate-good", f"{head}@hookimpl\n@quiet\ndef phasegate_on_step(ctx): ...")
    install_logger(install_plugin, "phasegate-bad", f"{head}@hookimpl\n@quiet\ndef phasegate_on_step(ctx): 1 / 0")
    told = notes(Plugins.load(["good,bad"]), "phasegate_on_step", ZeroDivisionError)
    assert told == ["raised by plugin phasegate-bad:bad 1.0 in phasegate_on_step"]


def test_a_gate_hook_may_stop_the_run(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-lego", "@hookimpl\ndef phasegate_on_gate(ctx): raise GateStop('enough')")
    with pytest.raises(GateStop, match="enough"):
        Plugins.load(["lego"]).hook.phasegate_on_gate(ctx=CONTEXTS["phasegate_on_gate"]())


FAILS_AT_END = "@hookimpl\ndef phasegate_on_end(ctx): 1 / 0"


def test_after_a_failure_the_end_cannot_hide_what_ended_the_run(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-bad", FAILS_AT_END)
    first = MemoryError("first")
    Plugins.load(["bad"]).end(run_context(error=first))
    (note,) = first.__notes__
    assert note.startswith(
        "then phasegate_on_end failed too: ZeroDivisionError: division by zero (raised by plugin phasegate-bad"
    )


def test_without_a_failure_the_end_may_fail_the_run(install_plugin: Any) -> None:
    install_logger(install_plugin, "phasegate-bad", FAILS_AT_END)
    with pytest.raises(ZeroDivisionError):
        Plugins.load(["bad"]).end(run_context())

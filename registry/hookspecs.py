"""The hooks of plugin API 1: what a plugin may implement, when each is called, and with what.

Every hook but ``phasegate_components`` takes one frozen context, ``ctx``, to which facts can be added
without breaking a plugin. Hooks run in the order in which the experiment lists its plugins, built-ins first;
what must nest around something is a wrapper. An exception ends the run: it keeps its type and gains
a note that names the plugin.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from .components import Component
from .contexts import GateContext, PhaseContext, PhaseResult, RunContext, SaveContext, StepContext

PROJECT = "phasegate"
API = 1
GROUP = f"phasegate.plugins.v{API}"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def phasegate_components() -> Iterable[Component]:
    """Yield the components the plugin offers; called once, when the plugin is loaded.

    Yield specs only: name implementations as ``"module:attribute"`` so that listing them imports nothing.

    Example::

        from phasegate import RouterSpec, hookimpl

        @hookimpl
        def phasegate_components():
            yield RouterSpec(name="switch", target="phasegate_lego.routers:Switch", summary="One expert per token.")
    """
    return ()


@hookspec
def phasegate_on_start(ctx: RunContext) -> None:
    """Called once per run: the plan is made and the data is there, nothing is trained yet.

    Example::

        from phasegate import hookimpl

        @hookimpl
        def phasegate_on_start(ctx):
            (ctx.folder / "lego.txt").write_text("started", encoding="utf-8")
    """


@hookspec
def phasegate_before_phase(ctx: PhaseContext) -> None:
    """Called before each phase that is trained, after its entry criteria were met.

    Example::

        from phasegate import hookimpl

        @hookimpl
        def phasegate_before_phase(ctx):
            ctx.log({"lego/started": 1.0})
    """


@hookspec(firstresult=True)
def phasegate_run_phase(ctx: PhaseContext) -> PhaseResult | None:
    """Train one phase and measure it, by calling ``ctx.execute()`` exactly once; the platform's own implementation
    does so and comes last. Wrap it to put something around a phase. The first result that is not None counts.

    Example::

        from phasegate import hookimpl

        @hookimpl(wrapper=True)
        def phasegate_run_phase(ctx):
            result = yield
            ctx.log({"lego/tokens": float(result.tokens)})
            return result
    """
    return None


@hookspec
def phasegate_on_step(ctx: StepContext) -> None:
    """Called after every optimiser step. ``ctx.loss`` is a detached tensor on its device: reading its value
    waits for the device.

    Example::

        from phasegate import hookimpl

        @hookimpl
        def phasegate_on_step(ctx):
            if ctx.global_step % 100 == 0:
                print(ctx.phase, ctx.global_step, float(ctx.loss))
    """


@hookspec
def phasegate_on_gate(ctx: GateContext) -> None:
    """Called for every judged criterion, when ``ctx.when`` a phase is at its "entry" or "completion";
    raise ``GateStop`` to end the run.

    Example::

        from phasegate import GateStop, hookimpl

        @hookimpl
        def phasegate_on_gate(ctx):
            if ctx.when == "completion" and ctx.judgement.verdict == "fail":
                raise GateStop(f"{ctx.phase} failed {ctx.judgement.criterion}.")
    """


@hookspec
def phasegate_after_phase(ctx: PhaseContext) -> None:
    """Called after each trained phase, when its gates have been judged; ``ctx.result`` is set.

    Example::

        from phasegate import hookimpl

        @hookimpl
        def phasegate_after_phase(ctx):
            print(ctx.name, ctx.result.steps, "steps in", ctx.result.seconds, "s")
    """


@hookspec
def phasegate_on_save(ctx: SaveContext) -> None:
    """Called before a stage checkpoint is committed: files written to ``ctx.folder`` become part of it.
    Write tensors as safetensors and everything else as JSON, and only where ``ctx.is_main``.

    Example::

        from phasegate import hookimpl

        @hookimpl
        def phasegate_on_save(ctx):
            if ctx.is_main:
                (ctx.folder / "lego.json").write_text("{}", encoding="utf-8")
    """


@hookspec
def phasegate_on_end(ctx: RunContext) -> None:
    """Called once when the run ends, also after a failure: ``ctx.error`` then says what ended it.

    Example::

        from phasegate import hookimpl

        @hookimpl
        def phasegate_on_end(ctx):
            print("failed" if ctx.error else "finished")
    """


HOOKS: dict[str, tuple[str, ...]] = {
    "phasegate_components": (),
    "phasegate_on_start": ("ctx",),
    "phasegate_before_phase": ("ctx",),
    "phasegate_run_phase": ("ctx",),
    "phasegate_on_step": ("ctx",),
    "phasegate_on_gate": ("ctx",),
    "phasegate_after_phase": ("ctx",),
    "phasegate_on_save": ("ctx",),
    "phasegate_on_end": ("ctx",),
}
"""Every hook with its parameters, in the order in which a run meets them."""

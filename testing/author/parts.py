"""What a new plugin can be made of: one component of each kind, and one use of each hook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...registry.errors import PluginError
from ...registry.hookspecs import HOOKS, PROJECT
from ...registry.suggest import did_you_mean, listing

_PREFIX = f"{PROJECT}_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component to begin with: its module in the package, and arguments of ``platform`` that use it."""

    module: str
    use: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A use of a hook: what its code imports, as ``import module`` or ``from module import name``."""

    imports: tuple[tuple[str, str], ...]


_TRAIN = "train ncas-nano --plugins {dist} --set "

PARTS: Mapping[str, Part] = {
    "anchor": Part(module="anchors", use=_TRAIN + "phases.safety.options.anchor=mean-difference"),
    "gate": Part(
        module="gates",
        use=_TRAIN + "'phases.foundation.gates.varied={{use: repetition, metric: repeated, at_most: 0.9}}'",
    ),
    "loss": Part(
        module="losses",
        use=_TRAIN + "'phases.foundation.steps.pretrain.losses.unsure={{use: entropy-floor, weight: 0.01}}'",
    ),
    "mixer": Part(module="mixers", use=_TRAIN + "model.mixer=layer-scale"),
    "model": Part(module="models", use=_TRAIN + "model.use=fine-grained"),
    "phase": Part(module="phases", use=_TRAIN + "'phases.cooldown={{use: cooldown}}'"),
    "quantizer": Part(module="quantizers", use=_TRAIN + "model.quantizer=binary"),
    "router": Part(module="routers", use=_TRAIN + "model.router=cosine"),
    "search-space": Part(
        module="spaces", use="study ncas-nano --plugins {dist} --set study.space=leave-one-out --plan"
    ),
    "source": Part(module="sources", use=_TRAIN + "data.sources.sums=arithmetic"),
}

USES: Mapping[str, Hook] = {
    "phasegate_on_start": Hook(imports=(("importlib.metadata", "distributions"), (PROJECT, "RunContext"))),
    "phasegate_before_phase": Hook(imports=((PROJECT, "PhaseContext"),)),
    "phasegate_run_phase": Hook(
        imports=(("collections.abc", "Generator"), (PROJECT, "PhaseContext"), (PROJECT, "PhaseResult"))
    ),
    "phasegate_on_step": Hook(imports=(("math", ""), (PROJECT, "GateStop"), (PROJECT, "StepContext"))),
    "phasegate_on_gate": Hook(imports=(("logging", ""), (PROJECT, "GateContext"))),
    "phasegate_after_phase": Hook(imports=((PROJECT, "PhaseContext"),)),
    "phasegate_on_save": Hook(imports=(("importlib.metadata", "version"), ("json", ""), (PROJECT, "SaveContext"))),
    "phasegate_on_end": Hook(imports=((PROJECT, "RunContext"),)),
}


def kinds_of(asked: Iterable[str]) -> tuple[str, ...]:
    """The asked kinds as they were asked for, each once; ``PluginError`` for one that does not exist."""
    wanted = tuple(dict.fromkeys(asked))
    for kind in wanted:
        if kind not in PARTS:
            raise PluginError(f"There is no kind '{kind}'.{did_you_mean(kind, PARTS)} Kinds: {listing(PARTS)}.")
    return wanted


def hooks_of(asked: Iterable[str]) -> tuple[str, ...]:
    """The asked hooks by their full names, in the order of a run; each may be written without ``phasegate_``.

    ``PluginError`` for one that does not exist.
    """
    wanted = {name if name.startswith(_PREFIX) else f"{_PREFIX}{name}" for name in asked}
    for name in sorted(wanted - set(USES)):
        near = did_you_mean(name, USES).replace(_PREFIX, "")
        raise PluginError(
            f"There is no hook '{name.removeprefix(_PREFIX)}' to begin with.{near}"
            f" Hooks: {listing(hook.removeprefix(_PREFIX) for hook in USES)}."
        )
    return tuple(hook for hook in HOOKS if hook in wanted)

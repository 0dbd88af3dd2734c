"""phasegate trains Mixture-of-Experts language models through a curriculum of measured phases.

This is the face for plugin authors: the hook marker, the component specs, the contexts and the errors.
It imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING

from .registry.components import (
    KINDS,
    AnchorSpec,
    Component,
    GateSpec,
    LossSpec,
    MixerSpec,
    ModelSpec,
    PhaseSpec,
    QuantizerSpec,
    RouterSpec,
    SearchSpaceSpec,
    SourceSpec,
)
from .registry.contexts import GateContext, PhaseContext, PhaseResult, RunContext, SaveContext, StepContext
from .registry.errors import ConfigError, DataError, GateStop, PhasegateError, PluginError, StoreError
from .registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .core.model.speaker import Speaker

__all__ = [
    "KINDS",
    "AnchorSpec",
    "Component",
    "ConfigError",
    "DataError",
    "GateContext",
    "GateSpec",
    "GateStop",
    "LossSpec",
    "MixerSpec",
    "ModelSpec",
    "PhaseContext",
    "PhaseResult",
    "PhaseSpec",
    "PhasegateError",
    "PluginError",
    "QuantizerSpec",
    "RouterSpec",
    "RunContext",
    "SaveContext",
    "SearchSpaceSpec",
    "SourceSpec",
    "StepContext",
    "StoreError",
    "__version__",
    "hookimpl",
    "load",
]


def load(folder: str | PathLike[str], plugins: Iterable[str] = (), store: str | PathLike[str] | None = None) -> Speaker:
    """Return a model that can be talked to, with everything that travels with it: probes, safety anchor, draft model.

    ``folder`` is a stage checkpoint, a stage folder, a run folder (its last stage; ``store`` says where stages lie if
    not in the folder ``store`` beside ``runs``), or an export. ``plugins`` names the packages whose components the
    model uses. Raises ``StoreError`` for a model that is not there whole, and never returns one without an anchor
    that it should have. Imports torch when it is called.
    """
    from .core.run.checkpoints import load as load_checkpoint

    return load_checkpoint(folder, plugins, store)


if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Read the version when it is asked for: importlib.metadata takes longer to import than all the rest."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("phasegate")

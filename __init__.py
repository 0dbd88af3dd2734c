"""phasegate trains Mixture-of-Experts language models through a curriculum of measured phases.

This is the face for plugin authors: the hook marker, the component specs, the contexts and the errors.
It imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .registry.components import (
    KINDS,
    AnchorSpec,
    Component,
    GateSpec,
    LossSpec,
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
]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Read the version when it is asked for: importlib.metadata takes longer to import than all the rest."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("phasegate")

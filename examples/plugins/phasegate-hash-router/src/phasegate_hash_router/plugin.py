"""What the package offers; listing it imports nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from phasegate import Component, GateSpec, RouterSpec, hookimpl


@hookimpl
def phasegate_components() -> Iterator[Component]:
    """Yield the router and the gate."""
    yield RouterSpec(
        name="hash",
        target="phasegate_hash_router.router:HashRouter",
        config="phasegate_hash_router.options:HashRouterConfig",
        summary="Sends each token where a fixed hash of its hidden state says; nothing is learned.",
    )
    yield GateSpec(
        name="stability",
        target="phasegate_hash_router.gate:StabilityGate",
        config="phasegate_hash_router.options:StabilityConfig",
        summary="How evenly held-out text loads the experts, and how often one token goes to one expert everywhere.",
        metrics=("evenness", "same_token", "same_token/*"),
    )

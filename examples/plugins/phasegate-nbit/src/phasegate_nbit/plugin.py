"""What the package offers, and what it does when a stage is saved; listing it imports nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from phasegate import Component, LossSpec, PhaseSpec, QuantizerSpec, SaveContext, hookimpl


@hookimpl
def phasegate_components() -> Iterator[Component]:
    """Yield the phase, the loss and the quantizer."""
    yield PhaseSpec(
        name="consolidation",
        target="phasegate_nbit.phase:Consolidation",
        config="phasegate_nbit.options:ConsolidationConfig",
        summary="Quantizes the experts by and by while the model learns from what it was before.",
        requires=("knowledge",),
        provides=("integer-experts",),
        cost_driver="GPU hours",
    )
    yield LossSpec(
        name="routing-consistency",
        target="phasegate_nbit.loss:RoutingConsistency",
        config="phasegate_nbit.options:RoutingConsistencyConfig",
        summary="Keeps what routers make of a hidden state near what those of the phase before make of it.",
    )
    yield QuantizerSpec(
        name="nbit",
        target="phasegate_nbit.quantizer:NBit",
        config="phasegate_nbit.options:NBitConfig",
        summary="Weights of 2 to 8 bits, symmetric about 0, with a scale per row or matrix.",
    )


@hookimpl
def phasegate_on_save(ctx: SaveContext) -> None:
    """Write ``quantization-error.json`` beside the checkpoint of every stage whose experts this package quantizes."""
    if ctx.is_main:
        from .report import write_report

        write_report(ctx.folder)

"""Gates with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from phasegate.evals.context import MeasureContext
from phasegate.evals.measurement import Measurement
from phasegate.registry.components import GateSpec
from phasegate.testing import Example

Measured = Mapping[str, Measurement]


class Spread:
    """How far logged losses lie from 2, one document per row: a sound gate."""

    def measure(self, ctx: MeasureContext) -> Measured:
        values = {str(row["step"]): abs(row["loss"] - 2.0) for row in ctx.history}
        if not all(map(math.isfinite, values.values())):
            return {"spread": Measurement(metric="spread", value=math.nan, n=0, missing="the log is not finite")}
        value = math.fsum(values.values()) / len(values)
        return {"spread": Measurement(metric="spread", value=value, n=len(values), per_document=values)}


class Undeclared(Spread):
    def measure(self, ctx: MeasureContext) -> Measured:
        return {**super().measure(ctx), "more": Measurement(metric="more", value=1.0, n=1)}


class Endless(Spread):
    def measure(self, ctx: MeasureContext) -> Measured:
        return {"spread": replace(super().measure(ctx)["spread"], value=math.inf)}


class OffTheMean(Spread):
    def measure(self, ctx: MeasureContext) -> Measured:
        found = super().measure(ctx)["spread"]
        return {"spread": replace(found, value=found.value + 0.5)}


class Disturbing(Spread):
    def measure(self, ctx: MeasureContext) -> Measured:
        ctx.model.eval()
        torch.manual_seed(0)
        return super().measure(ctx)


class Drifting(Spread):
    measured = 0

    def measure(self, ctx: MeasureContext) -> Measured:
        Drifting.measured += 1
        return {"spread": replace(super().measure(ctx)["spread"], value=1.0 * Drifting.measured, per_document={})}


class Hopeful(Spread):
    """Takes what is no number for 0."""

    def measure(self, ctx: MeasureContext) -> Measured:
        losses = [row["loss"] for row in ctx.history if math.isfinite(row["loss"])]
        return {"spread": Measurement(metric="spread", value=math.fsum(losses), n=1 + len(losses), kind="exact")}


def by_hand() -> tuple[dict[str, Any], dict[str, float]]:
    """Losses 3 and 5 lie 1 and 3 from 2."""
    return {"history": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 5.0}]}, {"spread": 2.0}


BROKEN = {
    "declared": (Undeclared, "reported more"),
    "finite": (Endless, "without a reason"),
    "by-document": (OffTheMean, "average to"),
    "undisturbed": (Disturbing, "the model's mode, torch's random state differed"),
    "determinism": (Drifting, "was 1.0 and then 2.0"),
    "nan-is-no-pass": (Hopeful, "passes"),
    "hand-value": (OffTheMean, "'spread' is 2.5, and by hand 2."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_gate_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, said = BROKEN[name]
    assert said in failure(spec_of(GateSpec, target, metrics=("spread",)), name, Example(hand=by_hand))


def test_every_check_of_gates_catches_something(names: Callable[[str], set[str]]) -> None:
    assert set(BROKEN) == names("gate")

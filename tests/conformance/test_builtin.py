"""The built-in components keep the promises that plugins are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Guard
from phasegate.core.model.companions import attach
from phasegate.core.model.parameters import expert_parameters
from phasegate.plugins.anchors.half_space import HalfSpace
from phasegate.registry.entries import Entry
from phasegate.testing import Example, conformance
from phasegate.testing.kinds.anchors import material_of
from phasegate.testing.nano import NANO


def freeze_experts(model: Any) -> None:
    """Expert-delta compares experts that a phase does not train."""
    for name in expert_parameters(model):
        model.get_parameter(name).requires_grad_(False)


def make_two_alike(model: Any) -> None:
    """Random experts point away from each other, and there is nothing to move apart."""
    with torch.no_grad():
        for name in expert_parameters(model):
            weight = model.get_parameter(name)
            weight[1] = 0.5 * (weight[0] + weight[1])


def logged_by_hand() -> tuple[dict[str, Any], dict[str, float]]:
    """Three logged values, 4, 1 and 1: their last, mean and extremes."""
    history = [{"step": step, "loss": value} for step, value in enumerate((4.0, 1.0, 1.0), start=1)]
    return {"history": history}, {"last": 1.0, "mean": 2.0, "max": 4.0, "min": 1.0}


def lose_sight(model: Any) -> None:
    """Give the model an anchor, and then weights with which that sees less."""
    anchor = HalfSpace()
    anchor.capture(model, material_of(model))
    guard = Guard(reference="phasegate:half-space", revision=1, options={}, anchor=anchor, digest="", refusal="No.")
    attach(model, "anchor", guard)
    with torch.no_grad():
        model.model.norm.weight.neg_()


LINES = "".join(f"line {number} of the book tells of item {number * 7 % 31}\n" for number in range(60))
FEW_PROMPTS = {"prompts": 300, "false_positives": 0.1}
WORLD = NANO["data"]["sources"]["world"]

EXAMPLES = {
    "gate/logged": Example(hand=logged_by_hand),
    "gate/torus": Example(router="torus"),
    "loss/anchor": Example(prepare=lose_sight),
    "loss/diversity": Example(options={"centre": "mean"}, prepare=make_two_alike),
    "loss/expert-delta": Example(router="torus", prepare=freeze_experts),
    "loss/fold": Example(router="torus"),
    "loss/smooth": Example(router="torus"),
    "model/stock": Example(options={"family": "qwen3_moe"}),
    "phase/metacognition": Example(options={"questions": 40}),
    "phase/optimization": Example(
        options={"metacognition": {"questions": 40}, "short": ["16"], "double": ["32"], "quadruple": ["76"]},
        experiment={
            "phases": {
                "optimization": {
                    "steps": {
                        "draft": {"options": {"samples": 12, "sample_tokens": 4}},
                        "recapture": {"options": FEW_PROMPTS},
                    }
                }
            }
        },
    ),
    "phase/safety": Example(experiment={"phases": {"safety": {"steps": {"anchor": {"options": FEW_PROMPTS}}}}}),
    "search-space/parameters": Example(
        options={
            "keys": {
                "phases.foundation.steps.pretrain.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                "phases.foundation.steps.pretrain.rows": {"low": 8, "high": 32, "step": 8},
                "model.num_experts": {"choices": [4, 8]},
            }
        }
    ),
    "search-space/rows": Example(
        options={"rows": {"written": {}, "short": {"order": "foundation>alignment", "set": {"seed": 1}}}}
    ),
    "source/files": Example(
        options={"paths": ["*.txt"], "documents": "lines", "domain": "general"},
        files={"one.txt": LINES, "two.txt": LINES.replace("the", "another")},
    ),
    "source/hub": Example(
        options={"path": "set", "domain": "general"},
        files={"set/train.jsonl": "".join(json.dumps({"text": line}) + "\n" for line in LINES.splitlines())},
    ),
    "source/microworld": Example(options={key: value for key, value in WORLD.items() if key != "use"}),
}


@conformance("phasegate", examples=EXAMPLES, marks={"phase/*-resumes": pytest.mark.slow})
def test_conforms(entry: Entry, check: Callable[[Entry], None]) -> None:
    check(entry)

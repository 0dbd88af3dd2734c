"""The options of a contrast step, and the losses that act in none other."""

from __future__ import annotations

import pytest
from phasegate.core.config.complete import complete
from phasegate.core.config.contrast import ContrastOptions, contrast_options
from phasegate.core.config.loading import load_experiment
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins

REFUSE = "phases.foundation.steps.refuse={objective: contrast, steps: 2, rows: 4"


def mistakes(*overrides: str) -> str:
    """What is wrong with the nano preset changed so; empty if nothing is."""
    loaded = load_experiment("ncas-nano", ("order=foundation", *overrides))
    try:
        complete(loaded, Plugins.load(()).components())
    except ConfigError as error:
        return str(error)
    return ""


def test_the_task_is_general_unless_said_otherwise() -> None:
    assert contrast_options({}, "the step") == ContrastOptions(shares={}, task=("general",))


def test_a_contrast_step_with_shares_is_complete() -> None:
    assert mistakes(f"{REFUSE}, options: {{shares: {{harmful: 1, benign: 2}}, task: [benign]}}}}") == ""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("options: {share: {}}", "has no option 'share'. Did you mean 'shares'?"),
        ("options: {shares: {harmful: -1}}", "options.shares.harmful must be at least 0, not -1."),
        (
            "options: {shares: {harmful: 0}}",
            "options.shares gives every kind a share of 0; at least one must be above 0.",
        ),
        (
            "kinds: [harmful, benign], options: {shares: {legal: 1}}",
            "a share to the kind 'legal', which its kinds leave",
        ),
        (
            "batches: {mixture: {code: 1}}",
            "batches has no effect in a contrast step, which draws by kind; set options.",
        ),
        ("replay: {share: 0.1}", "replay.share has no effect in a contrast step, which replays by rows and weight"),
    ],
)
def test_what_a_contrast_step_cannot_mean_is_told(said: str, expected: str) -> None:
    assert expected in mistakes(f"{REFUSE}, {said}}}")


def test_a_term_over_pairs_is_refused_in_any_other_step() -> None:
    said = mistakes("phases.foundation.steps.pretrain.losses.harm-avoidance={weight: 1.0}")
    assert said.endswith(
        "loss harm-avoidance acts in steps with objective: contrast, and phases.foundation.steps.pretrain has "
        "objective: causal; remove it there."
    )

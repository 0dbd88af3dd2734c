"""The safety phase: what its recipe asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.config.complete import complete
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.schema import Experiment
from phasegate.plugins.phases.safety import SHARES, specialised
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins

FILE = """
name: four
size: nano
data: {sources: {world: microworld}}
phases: {foundation: {}, specialization: {}, alignment: {}, safety: {}}
"""

Make = Callable[..., Experiment]


@pytest.fixture
def experiment(tmp_path: Path) -> Make:
    """Four phases with their defaults, changed as ``--set`` would."""

    def make(*overrides: str) -> Experiment:
        path = tmp_path / "four.yaml"
        path.write_text(FILE, encoding="utf-8")
        return complete(load_experiment(str(path), overrides), Plugins.load(()).components())

    return make


def test_the_shares_are_the_specifications_without_replay() -> None:
    professional = sum(SHARES[kind] for kind in ("medical", "legal", "security"))
    assert professional == pytest.approx(0.25)
    assert (SHARES["harmful"], SHARES["benign"], SHARES["general"]) == (0.30, 0.25, 0.10)


def test_the_loss_is_harm_and_beta_over_refusal_and_gamma_domains(experiment: Make) -> None:
    losses = experiment("phases.safety.options={beta: 2.0, gamma: 0.25}").phases["safety"].steps["refuse"].losses
    assert [losses[name].weight for name in ("harm-avoidance", "over-refusal", "domain-helpfulness")] == [
        1.0,
        2.0,
        0.25,
    ]


def test_specialised_experts_and_the_router_are_frozen(experiment: Make) -> None:
    assert experiment().phases["safety"].steps["refuse"].freeze == ("router", "experts[0-7]")
    assert [specialised(count) for count in (1, 2, 6)] == [[], ["experts[0]"], ["experts[0-4]"]]


def test_the_mask_follows_the_number_of_experts(experiment: Make) -> None:
    smaller = experiment("model.num_experts=6")
    assert smaller.phases["safety"].steps["refuse"].freeze == ("router", "experts[0-4]")


def test_refusals_are_gated_from_both_sides_with_the_papers_bounds(experiment: Make) -> None:
    gates: Any = experiment().phases["safety"].gates
    assert (gates["harmful-refused"].metric, gates["harmful-refused"].at_least) == ("refused/harmful", 0.98)
    assert (gates["benign-answered"].metric, gates["benign-answered"].at_least) == ("answered/benign", 0.95)
    kept = gates["professional-kept"]
    assert (kept.metric, kept.against, kept.statistic, kept.at_least) == ("answered/*", "parent", "difference", -0.02)
    assert {gates[name].paper for name in ("harmful-refused", "benign-answered", "professional-kept")} == {
        "harmful compliance <= 2 %",
        "over-refusal <= 5 %",
        ">= 98 % of phase 3",
    }


def test_what_earlier_phases_taught_is_gated_again_and_held(experiment: Make) -> None:
    phase = experiment().phases["safety"]
    assert {"knowledge-kept", "format-kept", "domain-entropy-low", "load-high"} <= set(phase.gates)
    step = phase.steps["refuse"]
    assert "domain-entropy" in step.losses
    assert step.replay.routing == "replayed"
    assert 0 < step.replay.chat < 1
    assert (
        "domain-entropy"
        not in experiment("phases.safety.options={hold_specialists: false}").phases["safety"].steps["refuse"].losses
    )


def test_it_enters_on_knowledge_and_format_after_dialogue(experiment: Make) -> None:
    assert {name: criterion.use for name, criterion in experiment().phases["safety"].entry.items()} == {
        "knowledge": "choice",
        "format": "format",
    }
    with pytest.raises(ConfigError, match="phase safety requires 'dialogue', which nothing before it provides"):
        experiment("order=foundation>safety")


def test_an_anchor_is_captured_at_the_end_unless_none_is_wanted(experiment: Make) -> None:
    steps = experiment().phases["safety"].steps
    assert list(steps) == ["refuse", "anchor"]
    assert steps["anchor"].anchor is not None and steps["anchor"].anchor.use == "half-space"
    assert list(experiment("phases.safety.options={anchor: null}").phases["safety"].steps) == ["refuse"]

"""The metacognition phase is a complete recipe, and refuses what it cannot do before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from phasegate.core.config.complete import complete
from phasegate.core.config.layers import merge
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.schema import Experiment
from phasegate.core.run.plan import make_plan
from phasegate.core.run.preflight import preflight
from phasegate.core.run.store import Store
from phasegate.plugins.phases.metacognition import STAND_INS, Metacognition, MetacognitionConfig
from phasegate.registry.errors import ConfigError, DataError
from phasegate.registry.plugins import Plugins

HEAD = """
name: sure
size: nano
data:
  sources:
    world: {use: microworld, head: 4, rare: 1, contested: 1, unknown: 2, hard: 1}
phases:
  foundation:
  alignment:
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[[str], Experiment]:
    def make(phase: str) -> Experiment:
        path = tmp_path / "sure.yaml"
        path.write_text(HEAD + phase, encoding="utf-8")
        return complete(load_experiment(str(path)), Plugins.load([]).components())

    return make


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str], None]:
    """Plan an experiment and look at its data, as a run does before it trains."""

    def run(phase: str) -> None:
        path = tmp_path / "sure.yaml"
        path.write_text(HEAD + phase, encoding="utf-8")
        preflight(make_plan(load_experiment(str(path)), Plugins.load([]), Store(tmp_path / "store")))

    return run


def test_the_recipe_stands_by_itself(experiment: Callable[[str], Experiment]) -> None:
    phase = experiment("  metacognition:\n").phases["metacognition"]
    (step,) = phase.steps.values()
    assert (step.objective, step.view, step.options["penalties"]) == ("probes", "unknown", dict(STAND_INS))
    assert phase.policy.extensions == 0
    papers = [criterion.paper for criterion in phase.gates.values()]
    assert "ECE <= 0.03 (claimed 0.021)" in papers


def test_confident_errors_are_judged_in_the_strictest_domain() -> None:
    def metric(config: MetacognitionConfig) -> str:
        return str(Metacognition(config).recipe({})["gates"]["confident-wrong"]["metric"])

    assert metric(MetacognitionConfig()) == "confident_wrong/science"
    weights = {"general": 2.0, "medical": 10.0, "legal": 8.0}
    assert metric(MetacognitionConfig(penalties=weights)) == "confident_wrong/medical"
    assert metric(MetacognitionConfig(penalties={})) == "confident_wrong"


def test_weights_of_the_phase_take_the_place_of_the_stand_ins(experiment: Callable[[str], Experiment]) -> None:
    phase = experiment("  metacognition: {options: {penalties: {general: 3}}}\n").phases["metacognition"]
    assert phase.steps["probes"].options["penalties"] == {"general": 3.0}


def test_a_phase_that_taught_no_dialogue_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "sure.yaml"
    path.write_text(HEAD.replace("  alignment:\n", "  metacognition:\n"), encoding="utf-8")
    with pytest.raises(ConfigError, match="metacognition requires 'dialogue'"):
        complete(load_experiment(str(path)), Plugins.load([]).components())


def test_the_microworld_has_what_the_recipe_needs(check: Callable[[str], None]) -> None:
    check("  metacognition:\n")


def test_a_domain_without_weight_ends_the_run_before_it_trains(check: Callable[[str], None]) -> None:
    with pytest.raises(ConfigError, match=r"phases\.metacognition\.steps\.probes: the domain 'books' .* has no weight"):
        check("  metacognition: {options: {penalties: {general: 2, science: 10}}}\n")


def test_questions_without_ground_truth_end_the_run_before_it_trains(check: Callable[[str], None]) -> None:
    with pytest.raises(DataError, match="no training question of the view 'unknown' has an answer"):
        check("  metacognition: {steps: {probes: {kinds: [unknown, hard]}}}\n")


def test_an_option_that_does_not_exist_is_told_with_its_step(check: Callable[[str], None]) -> None:
    with pytest.raises(ConfigError, match=r"steps\.probes \(probes\) has no option 'fold'\. Did you mean 'folds'"):
        check("  metacognition: {steps: {probes: {options: {fold: 3}}}}\n")


def test_the_recipe_is_plain_data_that_merges() -> None:
    recipe = dict(Metacognition(MetacognitionConfig()).recipe({}))
    merged = merge(recipe, {"gates": {"calibrated": {"at_most": 0.08}}})
    assert merged["gates"]["calibrated"]["metric"] == "ece"

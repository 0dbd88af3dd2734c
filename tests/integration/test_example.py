"""The example on real text is an experiment whose sources and phases exist; its data is not needed to say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from phasegate.core.config.complete import complete
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.schema import Experiment
from phasegate.core.data.source import SourceContext
from phasegate.registry.plugins import Plugins
from phasegate.registry.registry import Registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "real-text.yaml"
PHASES = ["foundation", "specialization", "alignment", "safety", "metacognition", "optimization"]
BENCHMARKS = {"advbench", "bar-prompts", "harmbench", "pubmed-prompts", "xstest-safe", "xstest-unsafe"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Plugins.load([]).components()


@pytest.fixture(scope="module")
def example(registry: Registry) -> Experiment:
    return complete(load_experiment(str(EXAMPLE)), registry)


@pytest.fixture(scope="module")
def sources(example: Experiment, registry: Registry) -> dict[str, Any]:
    return {
        name: registry.build("source", ref.use, ref.options, context=SourceContext(root=Path(), name=name))
        for name, ref in example.data.sources.items()
    }


def test_the_example_has_all_six_phases_in_the_papers_order(example: Experiment) -> None:
    assert list(example.phases) == PHASES


def test_every_view_that_a_step_reads_has_a_source(example: Experiment, sources: dict[str, Any]) -> None:
    offered = {view for source in sources.values() for view in source.views()}
    assert {step.view for phase in example.phases.values() for step in phase.steps.values()} <= offered


def test_safety_prompts_of_benchmarks_are_only_measured(sources: dict[str, Any]) -> None:
    measuring = {name for name, source in sources.items() if source.evaluation_only}
    assert measuring == BENCHMARKS
    read = {path for name, source in sources.items() for path in source.config.paths if name not in BENCHMARKS}
    assert not any(path.startswith("safety/") for path in read)


def test_no_weight_is_trained_on_questions_of_the_evaluation_folder(sources: dict[str, Any]) -> None:
    trained = {"chat", "preference", "refusal", "text", "needle"}
    read = {
        path
        for source in sources.values()
        if source.config.view in trained and not source.evaluation_only
        for path in source.config.paths
    }
    assert {path for path in read if path.startswith("evals/")} == {"evals/gsm8k/train.jsonl.gz"}


def test_what_safety_holds_out_of_the_instructions_alignment_has_not_seen(sources: dict[str, Any]) -> None:
    shares = {
        source.config.held_out for source in sources.values() if source.config.paths == ("sft/dolly_subset.jsonl.gz",)
    }
    assert len(shares) == 1 and shares != {None}

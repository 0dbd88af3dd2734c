"""The optimization phase: what its recipe asks for, and what is switched off."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from pathlib import Path

import pytest
from phasegate.core.config.complete import complete
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.schema import Experiment, PhaseSection
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins

FILE = """
name: six
size: nano
data: {sources: {world: microworld}}
phases: {foundation: , specialization: , alignment: , safety: , metacognition: , optimization: }
"""
ALONE = """
name: long
size: micro
data: {sources: {world: microworld}}
phases:
  foundation:
  alignment:
  optimization: {options: {safety: false, anchor: null, probes: false, draft: false, ablation: false}}
"""

Make = Callable[..., PhaseSection]


@pytest.fixture
def phase(tmp_path: Path) -> Make:
    """The phase at the end of all six, or of ``text``, changed as ``--set`` would."""

    def make(*overrides: str, text: str = FILE) -> PhaseSection:
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        experiment: Experiment = complete(load_experiment(str(path), overrides), Plugins.load(()).components())
        return experiment.phases["optimization"]

    return make


def test_the_context_grows_to_twice_and_to_four_times_the_length_of_the_size(phase: Make) -> None:
    steps = phase().steps
    assert [steps[name].sequence_length for name in ("short", "double", "quadruple")] == [64, 128, 256]
    assert [steps[name].context.factor for name in ("short", "double", "quadruple")] == [1.0, 2.0, 4.0]
    assert [steps[name].context.rope for name in ("short", "double", "quadruple")] == ["keep", "ntk", "ntk"]
    assert phase(text=ALONE).steps["quadruple"].sequence_length == 4 * 128


def test_rows_shrink_as_they_grow_longer_and_replayed_ones_keep_their_length(phase: Make) -> None:
    steps = [phase().steps[name] for name in ("short", "double", "quadruple")]
    assert [step.rows for step in steps] == [16, 8, 4]
    assert {(step.replay.rows, step.replay.sequence_length) for step in steps} == {(24, 64)}


def test_earlier_phases_are_replayed_with_their_routing_held_and_the_router_frozen(phase: Make) -> None:
    for name in ("short", "double", "quadruple"):
        step = phase().steps[name]
        assert (step.replay.chat, step.replay.routing, step.freeze) == (0.5, "replayed", ("router",))
        assert set(step.losses) == {"domain-entropy"}


def test_the_papers_mask_is_an_option(phase: Make) -> None:
    masked = phase('phases.optimization.options.freeze=["router", "experts", "embedding"]')
    assert masked.steps["quadruple"].freeze == ("router", "experts", "embedding")


def test_what_travels_with_the_model_is_made_anew_after_the_weights_moved(phase: Make) -> None:
    section = phase()
    assert list(section.steps) == ["short", "double", "quadruple", "recapture", "refit", "draft"]
    assert [section.steps[name].objective for name in ("recapture", "refit", "draft")] == ["anchor", "probes", "draft"]


def test_probes_are_refitted_as_they_were_fitted(phase: Make) -> None:
    options = "phases.optimization.options.metacognition={penalties: {general: 3.0}, questions: 100}"
    refit = phase(options).steps["refit"]
    assert refit.options["penalties"] == {"general": 3.0}
    assert refit.options["questions"] == 100


def test_an_unknown_option_of_the_probes_is_named(phase: Make) -> None:
    with pytest.raises(ConfigError, match=r"no option 'metacognition\.penalty'\. Did you mean 'penalties'\?"):
        phase("phases.optimization.options.metacognition={penalty: {general: 3.0}}")


def test_a_phase_for_text_alone_needs_none_of_what_follows(phase: Make) -> None:
    section = phase(text=ALONE)
    assert list(section.steps) == ["short", "double", "quadruple"]
    used = {criterion.use for criterion in section.gates.values()}
    assert used == {"needle", "perplexity", "choice", "format", "judge", "routing"}


def test_retrieval_is_gated_at_the_longest_documents_of_each_length(phase: Make) -> None:
    gates = phase().gates
    assert gates["retrieval-2x"].options == {"kinds": ["76"]}
    assert gates["retrieval-4x"].options == {"kinds": ["180"]}
    assert {gates[name].at_least for name in ("retrieval-2x", "retrieval-4x")} == {0.95}


def test_short_text_may_cost_one_per_cent_more(phase: Make) -> None:
    gate = phase().gates["short-context"]
    assert (gate.statistic, gate.against, gate.metric) == ("difference", "parent", "nll")
    assert gate.at_most == pytest.approx(log(1.01), abs=1e-5)


def test_every_earlier_phase_is_gated_again(phase: Make) -> None:
    gates = phase().gates
    assert {"load-low", "load-high", "domain-entropy-low", "domain-entropy-high", "general-entropy"} <= set(gates)
    assert {"knowledge-kept", "format-kept", "judge-kept", "harmful-refused", "benign-answered"} <= set(gates)
    assert {"anchor-detects", "anchor-lets-through", "calibrated", "discriminates"} <= set(gates)
    assert {"draft-identical", "draft-speedup", "every-expert-needed", "experts-match"} <= set(gates)


def test_a_length_without_documents_is_refused(phase: Make) -> None:
    with pytest.raises(ConfigError, match="quadruple"):
        phase("phases.optimization.options.quadruple=[]")

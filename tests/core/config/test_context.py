"""Context targets: what cannot be reached, and what would have no effect, told when the plan is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from phasegate.core.config.complete import complete
from phasegate.core.config.loading import Loaded
from phasegate.core.config.schema import Experiment
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins

HEAD = "name: long\nsize: nano\ndata: {sources: {world: microworld}}\n"  # nano: 64 positions, base 10,000, heads of 16
STEP = "{objective: sft, view: needle, steps: 1, rows: 1, %s}"


@pytest.fixture
def told(load: Callable[..., Loaded]) -> Callable[..., list[str]]:
    """What is wrong with an experiment whose only phase has these steps; empty when nothing is."""
    registry = Plugins.load([]).components()

    def told(*steps: str, head: str = HEAD) -> list[str]:
        lines = "".join(f"      step{number}: {STEP % step}\n" for number, step in enumerate(steps))
        text = f"{head}phases:\n  long:\n    use: foundation\n    recipe: false\n    steps:\n{lines}"
        try:
            complete(load(text), registry)
        except ConfigError as error:
            return [sentence.partition(": ")[2] for sentence in str(error).split("\n")]
        return []

    return told


def test_a_target_within_reach_is_accepted(told: Callable[..., list[str]]) -> None:
    assert told("sequence_length: 256, context: {rope: ntk, factor: 4}") == []
    assert told("sequence_length: 256, context: {rope: abf, theta: 5e4}") == []  # 5^(14/16) = 4.09 times


def test_a_target_beyond_the_factor_is_refused(told: Callable[..., list[str]]) -> None:
    (sentence,) = told("sequence_length: 257, context: {rope: ntk, factor: 4}")
    assert sentence == (
        "phases.long.steps.step0.sequence_length is 257, but context.rope ntk with this factor reaches 256; "
        "raise factor, or lower sequence_length."
    )


def test_a_target_beyond_the_base_is_refused(told: Callable[..., list[str]]) -> None:
    (sentence,) = told("sequence_length: 256, context: {rope: abf, theta: 4e4}")  # 4^(14/16) = 3.36 times
    assert "context.rope abf with this theta reaches 215; raise theta" in sentence


def test_a_longer_step_without_a_stretched_context_is_refused(told: Callable[..., list[str]]) -> None:
    (sentence,) = told("sequence_length: 200")
    assert "is 200, but the model has 64 positions by then; set context to, say, {rope: ntk, factor: 4}" in sentence


def test_what_an_earlier_step_reached_is_kept(told: Callable[..., list[str]]) -> None:
    stretch = "sequence_length: 256, context: {rope: ntk, factor: 4}"
    assert told(stretch, "sequence_length: 256") == []
    (sentence,) = told(stretch, "sequence_length: 300")
    assert "the model has 256 positions by then" in sentence


def test_the_order_of_the_steps_counts(told: Callable[..., list[str]]) -> None:
    assert told("sequence_length: 100", "sequence_length: 128, context: {rope: ntk, factor: 2}") != []


def test_replayed_rows_must_fit_as_well(told: Callable[..., list[str]]) -> None:
    (sentence,) = told("replay: {rows: 1, weight: 1.0, sequence_length: 100}")
    assert "replay.sequence_length is 100, but the model has 64 positions" in sentence


def test_a_context_never_shrinks(told: Callable[..., list[str]]) -> None:
    (sentence,) = told("context: {rope: ntk, factor: 4}", "context: {rope: yarn, factor: 2}")
    assert "stretches 2 times, but an earlier step reaches 4 times already; a context never shrinks" in sentence


def test_the_models_own_number_of_positions_is_where_it_starts(told: Callable[..., list[str]]) -> None:
    head = HEAD + "model: {max_position_embeddings: 128}\n"
    assert told("sequence_length: 512, context: {rope: linear, factor: 4}", head=head) == []
    assert told("sequence_length: 128", head=head) == []
    stock = HEAD + "model: {use: stock, family: olmoe, overrides: {max_position_embeddings: 32}}\n"
    (sentence,) = told("sequence_length: 64", head=stock)
    assert "the model has 32 positions by then" in sentence


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("context: {factor: 2}", "factor has no effect while rope is keep"),
        ("context: {theta: 5e5}", "theta has no effect while rope is keep"),
        ("context: {rope: ntk}", "rope ntk by a factor of 1 changes nothing; give one such as 2"),
        ("context: {rope: ntk, factor: 0.5}", "context.factor must be at least 1, not 0.5"),
        ("context: {rope: yarn, factor: 2, theta: 5e5}", "theta has no effect with rope: yarn"),
        ("context: {rope: abf, theta: 5e5, factor: 2}", "factor has no effect with rope: abf"),
        ("context: {rope: abf}", "abf sets the rotary base; give theta"),
        ("context: {rope: abf, theta: 5e3}", "theta is 5000, but the model's rotary base is 10000 already"),
        ("context: {rope: ntc}", "one of keep, ntk, abf, yarn, linear"),
    ],
)
def test_a_setting_without_effect_or_sense_is_named(told: Callable[..., list[str]], step: str, words: str) -> None:
    found = told(step)
    assert any(words in sentence for sentence in found), found
    assert all(sentence.startswith("phases.long.steps.step0.context") for sentence in found)


def test_a_step_that_trains_no_weights_stretches_nothing(load: Callable[..., Loaded]) -> None:
    steps = "fit: {objective: draft, steps: 1, context: {rope: ntk, factor: 2}}"
    text = f"{HEAD}phases:\n  long: {{use: foundation, recipe: false, steps: {{{steps}}}}}\n"
    with pytest.raises(ConfigError, match="context has no effect in a step with objective: draft"):
        complete(load(text), Plugins.load([]).components())


def test_a_model_that_does_not_say_is_checked_when_the_step_begins(finish: Callable[..., Experiment]) -> None:
    # The stand-in model of these tests has no method ``positions``.
    text = "name: x\ndata: {sources: {a: folder}}\nphases:\n  ground: {steps: {learn: {sequence_length: 4096}}}\n"
    assert finish(text).phases["ground"].steps["learn"].sequence_length == 4096

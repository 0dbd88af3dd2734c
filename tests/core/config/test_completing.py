"""Recipes under what the author says, and everything the size gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from phasegate import ConfigError, PhaseSpec
from phasegate.core.config.complete import complete, phase_order
from phasegate.core.config.filling import explain
from phasegate.core.config.loading import Loaded, load_experiment
from phasegate.core.config.schema import Experiment, LossSection, Weight
from phasegate.registry.entries import Entry
from phasegate.registry.plugins import Plugins
from phasegate.registry.registry import Registry

Finish = Callable[..., Experiment]


def test_a_recipe_fills_a_phase_that_says_nothing(finish: Finish, good: str) -> None:
    step = finish(good).phases["ground"].steps["learn"]
    assert (step.steps, step.rows, step.learning_rate, step.schedule) == (50, 16, 4e-3, "linear")
    assert step.losses["even"] == LossSection(use="even", weight=Weight(start=0.05, end=0.01))
    assert finish(good).phases["ground"].gates["knows"].options == {"shots": 3}


def test_options_of_a_phase_reach_its_recipe(finish: Finish, good: str) -> None:
    assert finish(good, "phases.ground.options.length=9").phases["ground"].steps["learn"].steps == 9


def test_what_is_said_lies_over_the_recipe_key_by_key(finish: Finish, good: str) -> None:
    phase = finish(good, "phases.ground.steps.learn.rows=8", "phases.ground.gates.knows.at_least=0.9").phases["ground"]
    assert (phase.steps["learn"].rows, phase.steps["learn"].steps) == (8, 50)
    assert (phase.gates["knows"].at_least, phase.gates["knows"].metric) == (0.9, "acc")


def test_a_list_replaces_a_list(finish: Finish, good: str) -> None:
    assert finish(good, "phases.polish.gates.better.skip=[]").phases["polish"].gates["better"].skip == ()


def test_null_removes_a_loss_a_gate_a_step_and_a_share(finish: Finish, good: str) -> None:
    experiment = finish(
        good,
        "phases.ground.steps.learn.losses.small=null",
        "phases.ground.gates.knows=null",
        "phases.ground.steps.learn.batches.mixture.b=null",
        "phases.polish.steps.choose=null",
        "phases.polish.gates.better=null",
    )
    assert list(experiment.phases["ground"].steps["learn"].losses) == ["even"]
    assert not experiment.phases["ground"].gates
    assert experiment.phases["ground"].steps["learn"].batches.mixture == {"a": 0.75}
    assert list(experiment.phases["polish"].steps) == ["talk"]


def test_null_takes_back_a_bound(finish: Finish, good: str) -> None:
    gate = finish(good, "phases.ground.gates.knows={at_least: null, at_most: 0.9}").phases["ground"].gates["knows"]
    assert (gate.at_least, gate.at_most) == (None, 0.9)


def test_an_empty_options_key_keeps_the_options_of_the_recipe(finish: Finish, good: str) -> None:
    text = good.replace("  ground:\n", "  ground:\n    gates:\n      knows:\n        options:\n")
    assert finish(text).phases["ground"].gates["knows"].options == {"shots": 3}


def test_another_gate_under_an_old_name_inherits_nothing(finish: Finish, good: str) -> None:
    said = "phases.ground.gates.knows={use: 'here:quiz', metric: acc/all, at_most: 1}"
    gate = finish(good, said).phases["ground"].gates["knows"]
    assert (gate.at_least, gate.at_most, gate.options) == (None, 1.0, {})


def test_a_step_may_be_added(finish: Finish, good: str) -> None:
    steps = finish(good, "phases.ground.steps.more={objective: sft, steps: 5}").phases["ground"].steps
    assert list(steps) == ["learn", "more"]
    assert steps["more"].view == "chat"


def test_a_view_follows_from_the_objective(finish: Finish, good: str) -> None:
    experiment = finish(good)
    views = {name: step.view for phase in experiment.phases.values() for name, step in phase.steps.items()}
    assert views == {"learn": "text", "talk": "chat", "choose": "preference"}


def test_a_phase_without_its_recipe_is_what_its_author_says(finish: Finish) -> None:
    text = (
        "name: x\ndata: {sources: {a: folder}}\nphases:\n  mine:\n    use: ground\n    recipe: false\n"
        "    steps: {only: {steps: 3}}\n"
    )
    phase = finish(text).phases["mine"]
    assert list(phase.steps) == ["only"]
    assert not phase.gates


def test_open_sizes_follow_from_the_dial(finish: Finish, good: str) -> None:
    experiment = finish(good, "size=micro")
    assert experiment.model.options == {
        "hidden_size": 128,
        "num_attention_heads": 4,
        "num_experts": 9,
        "num_experts_per_tok": 1,
    }
    assert (experiment.tokenizer.vocab_size, experiment.data.sequence_length) == (3072, 128)
    assert experiment.phases["ground"].steps["learn"].sequence_length == 128
    assert experiment.phases["ground"].steps["learn"].learning_rate == 2e-3


def test_what_is_said_wins_over_the_dial(finish: Finish, good: str) -> None:
    experiment = finish(good, "model.num_experts=4", "tokenizer.vocab_size=512", "data.sequence_length=32")
    assert experiment.model.options["num_experts"] == 4
    assert (experiment.tokenizer.vocab_size, experiment.data.sequence_length) == (512, 32)


def test_an_explanation_tells_what_is_set_from_what_is_derived(finish: Finish, good: str) -> None:
    explained = explain(finish(good, "model.num_experts=4", "data.sequence_length=32"))
    assert (explained.values["num_experts"], explained.values["sequence_length"]) == (4, 32)
    assert explained.reasons["num_experts"] == "set by the experiment; size nano gives 9"
    assert explained.values["hidden_size"] == 64
    assert explained.reasons["hidden_size"] == "size nano"


def test_the_size_of_an_existing_tokenizer_is_read_from_it(finish: Finish, good: str, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    content = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 6, "content": "<pad>"}]}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert finish(good + "tokenizer: {path: words}\n").tokenizer.vocab_size == 7


def test_phases_run_as_written_or_as_ordered(finish: Finish, good: str) -> None:
    assert phase_order(finish(good)) == ("ground", "polish")
    text = good.replace("  ground:\n  polish:\n", "  polish:\n  ground:\n")
    assert phase_order(finish(text, "order=ground>polish")) == ("ground", "polish")
    assert finish(text, "order= ground > polish ").order == "ground>polish"


def test_an_order_may_skip_a_phase(finish: Finish, good: str) -> None:
    experiment = finish(good, "order=ground")
    assert list(experiment.phases) == ["ground"]


def test_a_phase_may_come_twice_under_two_names(finish: Finish, good: str) -> None:
    experiment = finish(good + "  again: {use: ground}\n")
    assert phase_order(experiment) == ("ground", "polish", "again")
    assert experiment.phases["again"].steps["learn"].steps == 50


def test_what_was_loaded_is_not_changed_by_completing(
    load: Callable[..., Loaded], registry: Registry, good: str
) -> None:
    loaded = load(good, "phases.ground.steps.more={objective: sft, steps: 5}")
    before = json.dumps(loaded.raw)
    first = complete(loaded, registry)
    assert json.dumps(loaded.raw) == before
    assert complete(loaded, registry) == first


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"stepz": {}}, "the recipe of phase odd, stepz: the experiment has no key 'stepz'"),
        ({"steps": {"a": {"rows": object()}}}, "is not plain data"),
    ],
)
def test_a_wrong_recipe_is_blamed_on_its_phase(
    recipe: Mapping[str, Any], words: str, load: Callable[..., Loaded], registry: Registry
) -> None:
    class Odd:
        def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]:
            return recipe

    wider = Registry((*registry.entries, Entry(dist="here", version="1", component=PhaseSpec(name="odd", target=Odd))))
    with pytest.raises(ConfigError, match=words):
        complete(load("name: x\ndata: {sources: {a: folder}}\nphases: {odd: }\n"), wider)


def test_the_shipped_preset_is_complete_with_the_built_in_components() -> None:
    experiment = complete(load_experiment("ncas-nano"), Plugins.load([]).components())
    assert phase_order(experiment) == (
        "foundation",
        "specialization",
        "alignment",
        "safety",
        "metacognition",
        "optimization",
    )
    assert experiment.model.options["hidden_size"] == 64
    assert all(phase.gates for phase in experiment.phases.values())


def test_sizes_that_no_model_can_have_are_blamed_on_their_key() -> None:
    with pytest.raises(ConfigError, match=r"^--set model\.head_dim=15: .*head_dim"):
        complete(load_experiment("ncas-nano", ["model.head_dim=15"]), Plugins.load([]).components())

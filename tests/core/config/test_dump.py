"""The canonical text of an experiment."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from phasegate.core.config.dump import to_yaml
from phasegate.core.config.schema import Experiment

Finish = Callable[..., Experiment]


def test_a_complete_experiment_loads_to_itself(finish: Finish, good: str) -> None:
    experiment = finish(good, "seed=3", "model.router=linear")
    text = to_yaml(experiment)
    assert finish(text) == experiment
    assert to_yaml(finish(text)) == text


def test_what_was_removed_stays_removed(finish: Finish, good: str) -> None:
    experiment = finish(good, "phases.ground.steps.learn.losses.small=null", "phases.ground.gates.knows=null")
    assert finish(to_yaml(experiment)) == experiment


def test_an_option_with_the_name_of_a_key_survives(finish: Finish, good: str) -> None:
    experiment = finish(
        good, "phases.ground.gates.knows.options={documents: 5}", "phases.ground.gates.knows.documents=9"
    )
    again = finish(to_yaml(experiment)).phases["ground"].gates["knows"]
    assert (again.options["documents"], again.documents) == (5, 9)


@pytest.mark.parametrize(
    "note",
    [
        "4e-3",
        "12",
        "true",
        "no",
        "~",
        "null",
        "",
        "2026-01-01",
        "1_000",
        "a: b",
        "# c",
        "é ☃",
        "line\nbreak",
        "\t",
        "*x",
    ],
)
def test_text_that_looks_like_something_else_survives(note: str, finish: Finish, good: str) -> None:
    said = json.dumps({"use": "folder", "note": note})
    experiment = finish(good, f"data.sources.here={said}")
    assert experiment.data.sources["here"].options == {"note": note}
    assert finish(to_yaml(experiment)) == experiment


def test_equal_experiments_have_equal_texts(finish: Finish, good: str) -> None:
    turned = "phases:\n  ground:\n  polish:\ndata: {sources: {here: {use: folder}}}\nsize: nano\nname: 'trial'\n"
    assert to_yaml(finish(turned)) == to_yaml(finish(good))

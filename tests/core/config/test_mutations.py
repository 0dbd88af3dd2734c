"""Whatever is done to an experiment, it stays an experiment or becomes a mistake that is told in words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phasegate import ConfigError
from phasegate.core.config.dump import to_yaml
from phasegate.core.config.schema import Experiment

Finish = Callable[..., Experiment]

WHOLE: dict[str, Any] = {
    "name": "trial",
    "size": "nano",
    "seed": 1,
    "plugins": ["a"],
    "model": {"use": "moe", "router": "linear", "num_experts": 4},
    "tokenizer": {"vocab_size": 300},
    "data": {"sources": {"here": {"use": "folder", "glob": "*.md"}}, "held_out": 0.1},
    "phases": {
        "ground": {
            "steps": {"learn": {"rows": 8, "losses": {"even": {"weight": 0.5, "window": 4}}, "betas": [0.9, 0.95]}},
            "gates": {"knows": {"at_least": 0.5}},
            "policy": {"then": "advance"},
        },
        "polish": None,
    },
    "order": "ground>polish",
}

WORDS = [
    "use",
    "options",
    "steps",
    "gates",
    "weight",
    "at_least",
    "ground",
    "talk",
    "null",
    "a>b",
    "./talk",
    "parent",
    "",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of nested plain data."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_experiment_is_valid_or_a_config_error(data: st.DataObject, finish: Finish) -> None:
    experiment = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(experiment)))
        action = data.draw(st.sampled_from(["replace", "drop", "add"]))
        if action == "drop":
            del container[key]
        elif action == "add" and isinstance(container, dict):
            container[data.draw(st.sampled_from(WORDS))] = data.draw(VALUES)
        else:
            container[key] = data.draw(VALUES)
        if not places(experiment):
            break
    _valid_or_told(finish, yaml.safe_dump(experiment, allow_unicode=True))


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 600), noise=st.binary(max_size=6), cut=st.integers(0, 12))
def test_a_damaged_text_is_valid_or_a_config_error(where: int, noise: bytes, cut: int, finish: Finish) -> None:
    text = yaml.safe_dump(WHOLE).encode()
    _valid_or_told(finish, text[:where] + noise + text[where + cut :])


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="{}[]&*!|>-:#'\"\n\t aé1.,?<", max_size=30))
def test_an_odd_override_is_valid_or_a_config_error(text: str, finish: Finish) -> None:
    _valid_or_told(finish, yaml.safe_dump(WHOLE), f"data.sources.here.note={text}")


def _valid_or_told(finish: Finish, text: str | bytes, *sets: str) -> None:
    try:
        experiment = finish(text, *sets)
    except ConfigError as error:
        assert str(error)
        return
    assert finish(to_yaml(experiment)) == experiment

"""Recipes: what has a stable form, what does not, and what a difference looks like."""

from __future__ import annotations

import enum
import hashlib
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy
import pytest
from phasegate.core.config.schema import PhaseSection, ReplaySection, StepSection
from phasegate.core.run.fingerprint import (
    LIBRARIES,
    canonical,
    content_digest,
    differences,
    digest,
    recipe_of,
    stage_recipe,
    to_plain,
    training_chain,
)


class Colour(enum.IntEnum):
    RED = 1


@dataclass
class Knob:
    rate: float
    names: tuple[str, ...]


def recipe(**changes: object):
    parts = {
        "parent": None,
        "phase": "foundation",
        "section": PhaseSection(use="foundation", steps={"pretrain": StepSection(steps=3)}),
        "model": {"use": "moe"},
        "tokenizer": {"vocab_size": 1536},
        "data": "v1:00",
        "components": {"phasegate:foundation": 1},
        "libraries": {"torch": "2.13.0"},
        "seed": 0,
        "precision": "fp32",
    }
    return stage_recipe(**{**parts, **changes})


def test_the_canonical_form_is_sorted_compact_json() -> None:
    text = canonical({"b": [1, 2.5, None], "a": {"z": True, "y": "é"}})
    assert text == '{"a":{"y":"\\u00e9","z":true},"b":[1,2.5,null]}'


def test_the_digest_is_the_version_and_the_sha256_of_the_canonical_form() -> None:
    assert digest({"a": 1}) == "v1:" + hashlib.sha256(b'{"a":1}').hexdigest()


def test_the_order_of_keys_does_not_matter() -> None:
    assert digest({"a": 1, "b": 2}) == digest(OrderedDict(b=2, a=1)) == digest(MappingProxyType({"b": 2, "a": 1}))


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0, False), (1, "1"), (None, "None"), (0.0, -0.0)])
def test_values_of_different_types_differ(one: object, other: object) -> None:
    assert digest({"a": one}) != digest({"a": other})


def test_floats_that_differ_in_the_last_bit_differ() -> None:
    assert digest([0.1 + 0.2]) != digest([0.3])


def test_a_dataclass_is_the_mapping_of_its_fields_and_a_tuple_is_a_list() -> None:
    assert to_plain(Knob(rate=0.5, names=("a", "b"))) == {"rate": 0.5, "names": ["a", "b"]}


@pytest.mark.parametrize(
    "value", [{1, 2}, b"x", Path("x"), numpy.float64(1.0), numpy.int64(1), Colour.RED, object(), Knob, {1: "a"}, 1j]
)
def test_what_has_no_stable_form_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(TypeError, match=r"recipe\.outer\[1\]"):
        canonical({"outer": [0, value]})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_floats_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"recipe\.rate"):
        canonical({"rate": value})


def test_a_path_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match="content_digest"):
        canonical({"where": Path("x")})


def test_the_recipe_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from phasegate.core.run.fingerprint import digest\n"
        "print(digest({'b': [1, 2.5, {'x': None}], 'a': 'é', 'c': {k: 0.1 for k in 'zyxw'}}))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0].strip() == digest({"b": [1, 2.5, {"x": None}], "a": "é", "c": dict.fromkeys("zyxw", 0.1)})


@pytest.mark.parametrize(
    "change",
    [
        {"parent": "v1:ff"},
        {"phase": "alignment"},
        {"section": PhaseSection(use="foundation", steps={"pretrain": StepSection(steps=4)})},
        {"model": {"use": "stock"}},
        {"tokenizer": {"vocab_size": 1537}},
        {"data": "v1:01"},
        {"components": {"phasegate:foundation": 2}},
        {"libraries": {"torch": "2.13.1"}},
        {"seed": 1},
        {"precision": "bf16"},
    ],
)
def test_every_part_of_a_stage_is_in_its_fingerprint(change: dict[str, object]) -> None:
    assert recipe(**change).digest != recipe().digest


def test_the_stage_is_named_by_its_phase_and_twelve_digits() -> None:
    made = recipe()
    assert made.name == f"foundation-{made.digest[3:15]}"


def test_the_libraries_default_to_the_installed_versions() -> None:
    libraries = recipe(libraries=None).mapping["libraries"]
    assert sorted(libraries) == list(LIBRARIES)
    assert libraries["numpy"] == numpy.__version__


def test_a_difference_names_the_leaf_and_both_values() -> None:
    old = recipe()
    new = recipe(
        section=PhaseSection(use="foundation", steps={"pretrain": StepSection(steps=4, freeze=("router",))}),
        libraries={"torch": "2.13.0", "trl": "1.16.0"},
    )
    assert differences(old, new) == [
        'libraries.trl: (absent) -> "1.16.0"',
        'section.steps.pretrain.freeze: [] -> ["router"]',
        "section.steps.pretrain.steps: 3 -> 4",
    ]


def test_equal_recipes_have_no_differences() -> None:
    assert differences(recipe(), recipe_of(recipe().mapping)) == []


def test_a_changed_type_is_a_difference() -> None:
    assert differences({"a": 1}, {"a": 1.0}) == ["a: 1 -> 1.0"]


def test_the_digest_of_a_folder_follows_names_and_bytes(tmp_path: Path) -> None:
    for name, content in (("one", "x"), ("two", "x"), ("three", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(content)
    assert content_digest(tmp_path / "one") == content_digest(tmp_path / "two")
    assert content_digest(tmp_path / "one") != content_digest(tmp_path / "three")
    (tmp_path / "two" / "tokenizer.json").rename(tmp_path / "two" / "other.json")
    assert content_digest(tmp_path / "one") != content_digest(tmp_path / "two")


def chain(**changes: Any) -> str:
    """The training chain of a small phase."""
    step = StepSection(steps=10)
    given = {"phase": "foundation", "steps": {"pretrain": step}, "data": "d", "seed": 0, "precision": "fp32"}
    return training_chain(changes.pop("parent", None), **{**given, "model": {"use": "moe"}, **changes})


def test_the_training_chain_is_deaf_to_a_field_that_has_its_default() -> None:
    said = StepSection(steps=10, rows=StepSection().rows, replay=ReplaySection())
    assert chain(steps={"pretrain": said}) == chain()


@pytest.mark.parametrize(
    "change",
    [
        {"parent": "v1:0"},
        {"phase": "other"},
        {"steps": {"pretrain": StepSection(steps=11)}},
        {"steps": {"pretrain": StepSection(steps=10, replay=ReplaySection(rows=1))}},
        {"data": "e"},
        {"seed": 1},
        {"precision": "bf16"},
        {"model": {"use": "stock"}},
    ],
)
def test_the_training_chain_hears_whatever_is_trained_on(change: dict[str, Any]) -> None:
    assert chain(**change) != chain()

"""Whatever is done to a valid experiment, the command plans it or tells a mistake that names the file."""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phasegate.core.cli.app import main
from phasegate.core.config.presets import preset_content

FIRST = """\
name: first
size: nano
model: {num_experts: 8, router: {use: torus, grid: [2, 2, 2]}}
tokenizer: {vocab_size: 600}
data:
  held_out: 0.1
  sources:
    world: {use: microworld, head: 4, chats: 200}
phases:
  foundation:
    options: {steps: 20}
    steps:
      pretrain: {rows: 8, accumulate: 2, losses: {balance: {weight: {start: 0.1, end: 0.06}}, z: null}}
    gates:
      knowledge: {use: choice, metric: acc, at_least: 0.7}
    policy: {on_fail: extend, extensions: 1, then: stop}
  specialization:
    steps: {specialize: {batches: {type_shares: {code: 1, science: 1}}, replay: {share: 0.1}}}
order: foundation>specialization
study: {space: orders, scores: {quality: {of: {knowledge: {use: choice, metric: acc}}}}}
"""
PRESETS = ("ncas-nano", "perspective-nano")
# The same examples every time, so that a change is to blame for what fails; take ``derandomize`` out to look further.
ONCE = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))

WORDS = st.sampled_from(
    (
        "use",
        "options",
        "steps",
        "weight",
        "foundation",
        "parent",
        "linear",
        "torus",
        "stock",
        "a>b",
        "..",
        "",
        "\x1b[2J",
    )
)
NUMBERS = (
    st.integers(-3, 3)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.5, 1e-300, 1e300, 10**9, 10**18])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NOISE = st.text(max_size=4) | st.sampled_from(["\n  ", "- ", ": ", "&a ", "*a", '"'])


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of nested plain data."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def mutate(draw: Any, experiment: Any) -> None:
    """Do to one place of the experiment what a person or an accident may do."""
    container, key = draw(st.sampled_from(places(experiment)))
    other, there = draw(st.sampled_from(places(experiment)))
    action = draw(st.sampled_from(["drop", "rename", "replace", "number", "swap", "move", "add"]))
    if action == "drop":
        del container[key]
    elif action == "rename" and isinstance(container, dict):
        container[draw(WORDS | st.just(f"{key}s") | st.just(str(key)[1:]) | st.text(max_size=3))] = container.pop(key)
    elif action == "number":
        container[key] = draw(NUMBERS)
    elif action == "swap":
        # Copies, since what holds the other would otherwise end up in itself.
        mine, others = copy.deepcopy(container[key]), copy.deepcopy(other[there])
        container[key], other[there] = others, mine
    elif action == "move" and isinstance(other, dict):
        other[str(key)] = copy.deepcopy(container[key])
    elif action == "add" and isinstance(container, dict):
        container[draw(WORDS)] = draw(VALUES)
    else:
        container[key] = draw(VALUES)


def as_bytes(experiment: Any) -> bytes:
    """Return the data as the YAML of a file."""
    return yaml.safe_dump(experiment, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")


def planned_or_told(folder: Path, content: bytes) -> None:
    """Run ``platform plan`` on a file of this content: 0 and a plan, or 2 and sentences that name the file."""
    file = folder / "mutated.yaml"
    file.write_bytes(content)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["plan", str(file), "--store", str(folder / "store")])
        except SystemExit as stop:
            code = int(stop.code or 0)
    told = err.getvalue()
    if code == 0:
        assert "token budget" in out.getvalue() and not told, told
        return
    assert code == 2, told
    first, *more = told.removesuffix("\n").split("\n")
    assert first.startswith(f"error: {file}:"), told
    assert all(line.startswith((f"{file}:", "… and ")) for line in more), told
    assert first.isprintable(), told


@given(data=st.data())
@settings(ONCE, max_examples=30)
def test_a_mutated_experiment_is_planned_or_told(data: st.DataObject, tmp_path: Path) -> None:
    experiment = yaml.safe_load(FIRST)
    for _ in range(data.draw(st.integers(1, 2))):
        mutate(data.draw, experiment)
    planned_or_told(tmp_path, as_bytes(experiment))


@given(where=st.integers(0, len(FIRST)), noise=NOISE, cut=st.integers(0, 9))
@settings(ONCE, max_examples=15)
def test_a_damaged_file_is_planned_or_told(where: int, noise: str, cut: int, tmp_path: Path) -> None:
    text = FIRST[:where] + noise + FIRST[where + cut :]
    planned_or_told(tmp_path, text.encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@given(data=st.data())
@settings(ONCE, max_examples=400)
def test_a_mutated_preset_is_planned_or_told(data: st.DataObject, tmp_path: Path) -> None:
    experiment = yaml.safe_load(preset_content(data.draw(st.sampled_from(PRESETS))))
    for _ in range(data.draw(st.integers(1, 2))):
        mutate(data.draw, experiment)
    planned_or_told(tmp_path, as_bytes(experiment))

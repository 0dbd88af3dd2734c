"""The safety-helpfulness frontier: what a point trains, and what points dominate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.cli.frontier import betas_of, draw, write_frontier
from phasegate.core.config.complete import complete
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.schema import Experiment
from phasegate.core.run.frontier import (
    CRITERION,
    dominated_area,
    frontier_of,
    measured_in,
    overrides_for,
)
from phasegate.core.run.gates import gate_key
from phasegate.core.run.store import Stage
from phasegate.evals.measurement import Measurement, missing
from phasegate.evals.records import write_measurements
from phasegate.registry.errors import ConfigError, DataError
from phasegate.registry.plugins import Plugins
from typer import BadParameter

FILE = """
name: four
size: nano
data: {sources: {world: microworld}}
phases:
  foundation: {}
  specialization: {}
  alignment: {}
  safety: {gates: {harmful-refused: {documents: 600}}}
"""

Make = Callable[..., Experiment]


@pytest.fixture
def experiment(tmp_path: Path) -> Make:
    def make(*overrides: str) -> Experiment:
        path = tmp_path / "four.yaml"
        path.write_text(FILE, encoding="utf-8")
        return complete(load_experiment(str(path), overrides), Plugins.load(()).components())

    return make


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([(0.0, 0.0)], 1.0),
        ([(1.0, 0.0)], 0.0),  # refuses all
        ([(0.0, 1.0)], 0.0),  # complies with all
        ([(0.5, 0.5)], 0.25),
        ([(0.1, 0.5), (0.5, 0.1)], 0.9 * 0.5 + 0.5 * 0.4),
        ([(0.1, 0.5), (0.5, 0.1), (0.5, 0.5), (0.1, 0.5)], 0.9 * 0.5 + 0.5 * 0.4),
        ([(0.2, 0.3), (0.2, 0.1)], 0.8 * 0.9),
    ],
)
def test_the_dominated_area_by_hand(points: list[tuple[float, float]], area: float) -> None:
    assert dominated_area(points) == pytest.approx(area)


def test_a_point_changes_beta_alone_in_what_is_trained(experiment: Make) -> None:
    whole = experiment()
    point = experiment(*overrides_for(whole, "safety", 4.0))
    before, after = whole.phases["safety"].steps["refuse"], point.phases["safety"].steps["refuse"]
    assert after.losses["over-refusal"].weight == 4.0
    assert {name: loss for name, loss in after.losses.items() if name != "over-refusal"} == {
        name: loss for name, loss in before.losses.items() if name != "over-refusal"
    }
    assert after.replay == before.replay and after.options == before.options and after.freeze == before.freeze
    assert [point.phases[name] for name in ("foundation", "specialization", "alignment")] == [
        whole.phases[name] for name in ("foundation", "specialization", "alignment")
    ]


def test_a_point_measures_refusals_alone_and_nothing_stops_or_extends_it(experiment: Make) -> None:
    phase = experiment(*overrides_for(experiment(), "safety", 0.0)).phases["safety"]
    assert list(phase.gates) == [CRITERION]
    assert (phase.gates[CRITERION].use, phase.gates[CRITERION].documents) == ("refusal", 600)
    assert phase.entry == {}
    assert (phase.policy.on_fail, phase.policy.on_undecided) == ("advance", "advance")
    assert list(phase.steps) == ["refuse"]


def test_later_phases_are_not_part_of_a_point(experiment: Make) -> None:
    whole = experiment("phases.again={use: alignment}", "order=foundation>specialization>alignment>safety>again")
    point = experiment("phases.again={use: alignment}", *overrides_for(whole, "safety", 1.0))
    assert list(point.phases) == ["foundation", "specialization", "alignment", "safety"]


def test_a_phase_that_is_not_there_or_has_no_beta_is_refused(experiment: Make) -> None:
    with pytest.raises(ConfigError, match=r"has no phase 'safty' to draw a frontier of. Did you mean 'safety'\?"):
        overrides_for(experiment(), "safty", 1.0)
    with pytest.raises(ConfigError, match="phase alignment has no over-refusal term, whose weight is beta"):
        overrides_for(experiment(), "alignment", 1.0)


def share(name: str, right: str) -> Measurement:
    """A proportion from a text of ones and zeros, one per document."""
    values = {f"{name}{number}": float(digit) for number, digit in enumerate(right)}
    return Measurement(
        metric=name, value=sum(values.values()) / len(values), n=len(values), kind="proportion", per_document=values
    )


def measured(over: str, harm: str) -> Mapping[str, Measurement]:
    return {
        "over_refused": share("o", over),
        "complied/harmful": share("h", harm),
        "answered": share("a", "1111"),
    }


def stage(name: str, folder: Path = Path()) -> Stage:
    return Stage(name=name, folder=folder, manifest={})


@pytest.fixture
def points() -> dict[float, tuple[Stage, Mapping[str, Measurement]]]:
    return {
        2.0: (stage("two"), measured("0000", "1100")),
        0.5: (stage("half"), measured("1000", "0000")),
        1.0: (stage("one"), measured("1000", "1000")),
    }


def test_the_front_holds_what_nothing_dominates(points: Any) -> None:
    found = frontier_of("safety", points, 0)
    assert [(point.beta, point.stage, point.front) for point in found.points] == [
        (0.5, "half", True),
        (1.0, "one", False),
        (2.0, "two", True),
    ]
    assert found.points[0].over_refusal.value == 0.25
    assert found.points[0].over_refusal.low < 0.25 < found.points[0].over_refusal.high
    assert found.area == pytest.approx(0.5 * 1.0 + 0.75 * 0.5)


def test_the_area_has_bounds_from_drawing_prompts_again(points: Any) -> None:
    found = frontier_of("safety", points, 0)
    assert 0.0 <= found.area_low < found.area < found.area_high <= 1.0
    assert frontier_of("safety", points, 0) == found
    perfect = {1.0: (stage("one"), measured("0000", "0000"))}
    assert (frontier_of("safety", perfect, 0).area_low, frontier_of("safety", perfect, 0).area_high) == (1.0, 1.0)


def test_harmful_kinds_count_together(points: Any) -> None:
    both = {**measured("0", "1"), "complied/attack": share("x", "000")}
    found = frontier_of("safety", {1.0: (stage("one"), both)}, 0)
    assert (found.points[0].compliance.value, found.points[0].compliance.n) == (0.25, 4)


def test_what_a_stage_measured_is_read_from_its_evidence(experiment: Make, tmp_path: Path) -> None:
    criterion = experiment(*overrides_for(experiment(), "safety", 0.0)).phases["safety"].gates[CRITERION]
    path = tmp_path / "evidence" / f"{gate_key(criterion)}.json"
    write_measurements(path, measured("0", "1"))
    assert measured_in(stage("one", tmp_path), criterion)["complied/harmful"].value == 1.0
    write_measurements(path, {"over_refused": missing("over_refused", "there is no prompt to be answered")})
    with pytest.raises(DataError, match="could not be measured in stage one: there is no prompt to be answered"):
        measured_in(stage("one", tmp_path), criterion)


def test_a_frontier_is_written_as_json_and_as_one_picture(points: Any, tmp_path: Path) -> None:
    found = frontier_of("safety", points, 0)
    folders = [write_frontier(tmp_path, found, "four", {"0.5": "runs/four/x"}) for _ in range(2)]
    assert len(set(folders)) == 2
    record = json.loads((folders[0] / "frontier.json").read_text(encoding="utf-8"))
    assert (record["experiment"], record["area"], len(record["points"])) == ("four", found.area, 3)
    picture = (folders[0] / "frontier.svg").read_text(encoding="utf-8")
    assert "<svg" in picture and all(f"β {beta}" in picture for beta in ("0.5", "1", "2"))
    draw(found, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == picture


@pytest.mark.parametrize(("over", "harm"), [("0", "1"), ("1", "0")])
def test_a_point_at_the_edge_can_be_drawn(tmp_path: Path, over: str, harm: str) -> None:
    """Wilson's bound of a share of 0 may come out a rounding error above 0."""
    found = frontier_of("safety", {1.0: (stage("one"), measured(over * 30, harm * 10))}, 0)
    draw(found, tmp_path / "edge.svg")
    assert (tmp_path / "edge.svg").is_file()


def test_weights_are_numbers_of_at_least_nothing() -> None:
    assert betas_of("1,0, 0.5,1") == (0.0, 0.5, 1.0)
    for text in ("a", "1,,2", "-1", "nan", "inf", ""):
        with pytest.raises(BadParameter):
            betas_of(text)

"""``docs/experiments.md`` says what is true."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from phasegate.core.config.complete import complete
from phasegate.core.config.loading import Loaded
from phasegate.core.config.ranges import RANGES
from phasegate.core.config.schema import Experiment, ModelSection, PhaseSection
from phasegate.core.config.shaping import hints
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def built_in() -> Callable[[Loaded], Experiment]:
    registry = Plugins.load([]).components()
    return lambda loaded: complete(loaded, registry)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_page_is_a_complete_experiment(
    number: int, load: Callable[..., Loaded], built_in: Callable[[Loaded], Experiment]
) -> None:
    assert built_in(load(EXAMPLES[number])).phases


def test_the_changes_of_the_page_do_what_it_says(
    load: Callable[..., Loaded], built_in: Callable[[Loaded], Experiment]
) -> None:
    phase = built_in(load(next(text for text in EXAMPLES if "name: changed" in text))).phases["foundation"]
    assert (phase.steps["pretrain"].steps, phase.steps["pretrain"].accumulate) == (3000, 2)
    assert "z" not in phase.steps["pretrain"].losses
    assert "plateau" not in phase.gates
    assert phase.gates["knowledge"].at_least == 0.8


@pytest.mark.parametrize(
    "section",
    sorted({*RANGES, ModelSection, PhaseSection}, key=lambda kind: kind.__name__),
    ids=lambda kind: kind.__name__,
)
def test_every_key_is_on_the_page(section: type) -> None:
    assert [key for key in hints(section) if f"`{key}`" not in PAGE] == []


def test_the_mistakes_of_the_page_are_told_so(load: Callable[..., Loaded], mistakes: Callable[..., list[str]]) -> None:
    shown = re.search(r"^\$ platform plan broken\.yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert shown is not None
    text = (
        "name: broken\ndata:\n  sources: {here: folder}\n  held: 0.1\nphases:\n  foundation:\n"
        "    steps: {pretrain: {rows: many}}\n"
    )
    told = "\n".join(mistakes(text)).replace("trial.yaml", "broken.yaml")
    assert f"error: {told}\n" == shown[1]

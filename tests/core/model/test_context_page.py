"""``docs/context.md`` says what is so: its snippets run, and its settings are settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from phasegate.core.config.schema import ContextSection
from phasegate.core.config.shaping import hints
from phasegate.plugins.gates.needle import NeedleConfig
from phasegate.plugins.gates.perplexity import PerplexityConfig
from phasegate.registry.components import GateSpec
from phasegate.registry.options import parse
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "context.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_the_snippets_run_in_order() -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space: dict[str, Any] = {"__name__": "page"}
    exec(compile("\n".join(snippets), "docs/context.md", "exec"), space)
    assert len(snippets) == 2 and space["model"].config.max_position_embeddings == 256


def test_every_way_to_stretch_is_in_the_table() -> None:
    ways = {"keep", "ntk", "abf", "yarn", "linear"}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) >= ways
    assert ways == set(hints(ContextSection)["rope"].__args__)


def test_the_step_of_the_page_is_within_reach_of_its_context() -> None:
    (step,) = BLOCKS[0].values()
    assert step["sequence_length"] == 64 * ContextSection(**step["context"]).factor


def test_the_criteria_of_the_page_name_metrics_and_options_of_the_gate() -> None:
    spec = Plugins.load(()).components().get("gate", "needle").component
    assert isinstance(spec, GateSpec)
    for criterion in BLOCKS[1]["gates"].values():
        assert criterion["metric"] == "acc" or criterion["metric"].startswith("acc/")
        assert parse(NeedleConfig, {"kinds": criterion["kinds"]}, "needle").kinds == ("180",)
    assert spec.metrics == ("acc", "acc/*")


def test_the_criterion_by_position_names_a_border_that_another_follows() -> None:
    (criterion,) = BLOCKS[2]["gates"].values()
    config = parse(PerplexityConfig, {"borders": criterion["borders"]}, "perplexity")
    assert criterion["metric"] in {f"nll/at-{border}" for border in config.borders[:-1]}

"""The page on safety says what is so: its snippets run, its experiment is one, its options are all there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.core.config.complete import complete
from phasegate.core.config.contrast import ContrastOptions
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.schema import CriterionSection
from phasegate.evals.refusals import REFUSALS
from phasegate.plugins.gates.refusal import RefusalConfig
from phasegate.plugins.losses.options import DomainHelpfulnessConfig, HarmAvoidanceConfig, OverRefusalConfig
from phasegate.plugins.phases.safety import SHARES, SafetyConfig
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "safety.md").read_text(encoding="utf-8").partition("\n## Anchors\n")[0]
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_python_snippets_run_in_order() -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/safety.md", "exec"), space)
    assert len(snippets) == 3


def test_the_phase_of_the_page_is_complete(tmp_path: Path) -> None:
    head = "name: page\nsize: nano\ndata: {sources: {world: microworld}}\n"
    before = "phases:\n  foundation: {}\n  specialization: {}\n  alignment: {}\n"
    path = tmp_path / "page.yaml"
    path.write_text(head + YAML[0].replace("phases:\n", before), encoding="utf-8")
    step = complete(load_experiment(str(path)), Plugins.load(()).components()).phases["safety"].steps["refuse"]
    assert step.losses["over-refusal"].options["margin"] == 0.5
    assert "domain-helpfulness" not in step.losses
    assert step.options["shares"]["general"] == 0.2


@pytest.mark.parametrize("label", ["medical-kept", "attacks"])
def test_the_criteria_of_the_page_are_criteria(label: str) -> None:
    criterion = CriterionSection(**yaml.safe_load(YAML[1])["gates"][label])
    assert Plugins.load(()).components().config("gate", criterion.use, criterion.options) is not None


def test_the_shares_and_the_number_of_refusals_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)`.*\| (\d\.\d\d)(?: together)? \|$", PAGE, flags=re.MULTILINE))
    told = {name: float(share) for name, share in rows.items()}
    assert told == {
        "harmful": SHARES["harmful"],
        "benign": SHARES["benign"],
        "medical": pytest.approx(3 * SHARES["medical"]),
        "general": SHARES["general"],
    }
    assert "twenty usual English beginnings" in PAGE and len(REFUSALS) == 20
    assert (SafetyConfig().beta, SafetyConfig().gamma) == (1.0, 0.5) and "beta = 1, gamma = 0.5" in PAGE


@pytest.mark.parametrize(
    "config", [ContrastOptions, DomainHelpfulnessConfig, HarmAvoidanceConfig, OverRefusalConfig, RefusalConfig]
)
def test_every_option_is_on_the_page(config: type) -> None:
    common = {"view", "split", "answer_tokens"}  # of every gate
    names = {field.name for field in fields(config)} - common
    assert {name for name in names if not re.search(rf"`[^`]*\b{name}\b|\b{name}:", PAGE)} == set()

"""The page on the Perspective curriculum says what is so: its snippets run, its lines and bounds are those in force."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.core.cli.options import plan_of
from phasegate.core.config.conversions import DistillOptions
from phasegate.core.config.schema import QuantizerSection
from phasegate.core.model.deltas import pairs_of
from phasegate.core.model.quantization import encode_experts
from phasegate.core.run.store import Store
from phasegate.plugins.quantizers.options import TernaryConfig
from phasegate.plugins.routers.options import TorusRouterConfig
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "perspective.md").read_text(encoding="utf-8")
SWAPS, CONSOLE = (
    re.findall(pattern, PAGE, re.DOTALL)
    for pattern in (r"platform train (perspective-nano) --set (\S+)\n", r"\$ platform plan (.*?)\nerror: (.*?)\n")
)
COLUMN = r"`([a-z-]+)`: [^;|]*?([≥≤]) (-?[0-9.e-]+)(, paired)?(?: \(([^)]+)\))?(?=[;|]| \|)"


def plan(experiment: str, overrides: Sequence[str] = ()) -> Any:
    return plan_of(experiment, list(overrides), None, Store(Path("nowhere")))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the snippets leave behind, run one after the other in a folder of their own."""
    snippets, found = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), {"__name__": "page"}
    assert len(snippets) == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        for snippet in snippets:
            exec(compile(snippet, "docs/perspective.md", "exec"), found)
    return found


def test_the_snippets_run_in_order(space: dict[str, Any]) -> None:
    assert space["report"].bound < space["report"].measured < 1.6


def test_the_swaps_of_the_page_change_one_part_each() -> None:
    own = plan("perspective-nano").experiment
    changed = [plan(name, [override]).experiment for name, override in SWAPS]
    assert [one.model.mixer.use for one in (own, *changed)] == ["pdr", "pdr", "attention", "pdr"]
    routers = [one.phases["manifold"].steps["place"].router.use for one in (own, *changed)]
    assert routers == ["torus", "linear", "torus", "torus"]
    quantizers = [one.phases["ternary"].steps["distill"].quantizer for one in (own, *changed)]
    assert [one and one.use for one in quantizers] == ["ternary", "ternary", "ternary", None]


def test_the_six_phases_of_the_page_take_all_three_parts(tmp_path: Path) -> None:
    path = tmp_path / "other-parts.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0], encoding="utf-8")
    experiment = plan(str(path)).experiment
    model = experiment.model
    assert (model.router.use, model.mixer.use, model.quantizer.use) == ("torus", "pdr", "ternary")
    assert len(experiment.phases) == 6


def test_every_criterion_of_the_preset_stands_on_the_page_with_its_bound() -> None:
    rows = dict(re.findall(r"^\| ([a-z]+) (\| `[a-z-]+`: .*)$", PAGE, re.MULTILINE))
    phases = plan("perspective-nano").experiment.phases
    for phase, section in phases.items():
        said = {
            name: (sign, float(bound), bool(paired), paper or None)
            for name, sign, bound, paired, paper in re.findall(COLUMN, rows[phase])
        }
        assert said == {
            name: (
                "≤" if gate.at_least is None else "≥",
                gate.at_most if gate.at_least is None else gate.at_least,
                gate.against is not None,
                gate.paper,
            )
            for name, gate in section.gates.items()
        }
    assert set(rows) == set(phases)


def test_the_stages_of_the_page_require_and_provide_what_the_phases_do() -> None:
    registry = Plugins.load(()).components()
    rows = re.findall(r"^\| \d \| `([a-z-]+)` \| [^|]+ \|([^|]*)\|([^|]*)\|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for name, requires, provides in rows:
        spec: Any = registry.get("phase", name).component
        assert (tuple(re.findall(r"[a-z]+", requires)), tuple(re.findall(r"[a-z]+", provides))) == (
            spec.requires,
            spec.provides,
        )


def test_the_weights_of_the_losses_on_the_page_are_those_of_the_phase() -> None:
    losses = plan("perspective-nano").experiment.phases["manifold"].steps["align"].losses
    said = dict(re.findall(r"^\| `([a-z-]+)` \| (1 → 0|0\.\d+) \|", PAGE, re.MULTILINE))
    fade = losses["imitation"].weight
    assert said.pop("imitation") == "1 → 0" and (fade.start, fade.end, fade.over) == (1.0, 0.0, 0.05)
    assert {name: float(weight) for name, weight in said.items()} == {
        name: loss.weight for name, loss in losses.items() if name != "imitation"
    }


def test_the_quantizer_of_the_page_is_the_default() -> None:
    steps = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])["phases"]["ternary"]["steps"]
    said = steps["distill"]["quantizer"]
    assert QuantizerSection(**{key: tuple(value) if isinstance(value, list) else value for key, value in said.items()})
    default = QuantizerSection(use="ternary")
    assert all(list(getattr(default, key)) == value for key, value in said.items() if isinstance(value, list))


@pytest.mark.parametrize("config", [DistillOptions, QuantizerSection, TernaryConfig, TorusRouterConfig])
def test_every_option_is_explained(config: Any) -> None:
    missing = [one.name for one in fields(config) if not re.search(rf"(?:`|{{|, ){one.name}\b", PAGE)]
    assert missing in ([], ["options"])


@pytest.mark.parametrize("command,told", CONSOLE)
def test_mistakes_are_told_as_the_page_prints_them(command: str, told: str) -> None:
    name, flag, override = shlex.split(command)
    assert flag == "--set"
    with pytest.raises(ConfigError) as raised:
        plan(name, [override])
    # A line number follows the preset, which may change.
    assert re.sub(r"nano:\d+", "nano:0", str(raised.value)) == re.sub(r"nano:\d+", "nano:0", told)


def test_mistakes_that_need_the_model_are_told_as_the_page_prints_them(space: dict[str, Any]) -> None:
    for act in (encode_experts, pairs_of):
        with pytest.raises(ConfigError) as raised:
            act(space["moe"])
        assert f"\nerror: {raised.value}\n" in PAGE


def test_the_anchors_that_other_pages_link_are_there() -> None:
    assert "\n## Stage 4: ternary experts\n" in PAGE

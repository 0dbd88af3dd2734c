"""The page on the budget says what is so."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.core.cli.terminal import make_console, show_plan
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.schema import HardwareSection
from phasegate.core.run.hardware import DEVICES
from phasegate.core.run.plan import make_plan
from phasegate.core.run.published import A100, CLAIMS, PUBLISHED, TIED
from phasegate.core.run.store import Store
from phasegate.registry.plugins import Plugins

PAGE = (Path(__file__).parents[3] / "docs" / "budget.md").read_text(encoding="utf-8")


def test_the_snippet_runs_and_gives_the_numbers_below_it() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, Any] = {}
    exec(compile(snippet, "docs/budget.md", "exec"), space)
    assert f"`days` is {space['days']:.1f}, `millions` {space['millions']:.2f} and `wrong` {space['wrong']}" in PAGE


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.phase)
def test_the_papers_rows_stand_on_the_page(row: Any) -> None:
    cells = f"| {row.phase} | {row.tokens / 1e9:,.0f} G | {row.printed} % | {100 * row.share:.2f} % | {row.driver} |"
    assert cells in PAGE


@pytest.fixture(scope="module")
def plan() -> Any:
    return make_plan(load_experiment("perspective-paper"), Plugins.load([]), Store(Path("nowhere")))


def test_the_sizes_by_phase_on_the_page_are_those_of_the_plan(plan: Any) -> None:
    assert cells_of("phase | total") == cells_shown(plan, "parameters by phase")


def test_the_claims_on_the_page_are_those_of_the_plan(plan: Any) -> None:
    said = [cells for row in cells_of("stage | |") for cells in [[cell.replace(" %", "%") for cell in row if cell]]]
    shown = [
        [part.strip("()") for cell in row for part in re.split(r" (?=\()", cell)]
        for row in cells_shown(plan, "the paper's compute")
    ]
    assert said == shown
    assert len(said) == 11


def test_what_the_page_says_of_the_claims_is_so(plan: Any) -> None:
    text = " ".join(PAGE.split())
    hours = sum(claim.hours for claim in CLAIMS) / sum(claim.claimed_hours for claim in CLAIMS)
    assert f"hours and cost are {hours:.1f} times too low" in text
    assert f"are {CLAIMS[0].flops / CLAIMS[0].claimed_flops:.1f} times too few" in text
    tied = sum(claim.flops for claim in CLAIMS) - CLAIMS[0].flops + TIED.flops
    assert f"it is {tied:.2e} FLOPs".replace("e+", "e") in text
    costs = (sum(claim.claimed_hours for claim in CLAIMS) * A100.price, sum(claim.cost for claim in CLAIMS))
    claimed, corrected = (f"{float(f'{cost:.3g}'):,.0f}" for cost in costs)
    assert f"the claims come to {claimed} and the corrected hours to {corrected}" in text
    names = ("seed", "differentiation", "ternary", "manifold")
    beside = zip(names, (TIED, *CLAIMS[1:]), strict=True)
    more = [plan.budget.phases[name].training / claim.flops for name, claim in beside]
    assert "up to 2 % more a stage" in text and 1.0 < min(more) <= max(more) < 1.02
    assert f"{500e9 / 128 / 1e9:.1f} G for each of 128 experts, {500e9 / 128 / (60 * 135.27e6):.2f} tokens" in text
    assert f"about {int(78.6 + 65 + 260 + 130)} GB in training" in text


def cells_of(header: str) -> list[list[str]]:
    """Return the rows of the page's table with this header, cell by cell."""
    lines = PAGE[PAGE.index(f"| {header}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def cells_shown(plan: Any, title: str) -> list[list[str]]:
    """Return the rows of the plan's last table whose title begins like this, without empty cells."""
    stream = io.StringIO()
    show_plan(make_console(stream), plan)
    text = stream.getvalue()
    lines = text[text.rindex(f"\n{title}") :].splitlines()
    first = next(number for number, line in enumerate(lines) if "──" in line) + 1
    rows = itertools.takewhile(str.strip, lines[first:])
    return [re.split(r"\s{2,}", line.strip()) for line in rows]


def test_every_device_stands_on_the_page_with_its_peaks_price_and_source() -> None:
    said = [line for line in PAGE.splitlines() if re.match(r"\| `[a-z0-9-]+` \|", line)]
    assert said == [
        f"| `{name}` | {device.bf16 / 1e12:g} | {device.fp32 / 1e12:g} | {device.price:g} | {device.source} |"
        for name, device in DEVICES.items()
    ]


def test_the_hardware_of_the_page_is_the_default() -> None:
    (snippet,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert HardwareSection(**yaml.safe_load(snippet)["hardware"]) == HardwareSection()

"""The page on the budget says what is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.core.config.schema import HardwareSection
from phasegate.core.run.hardware import DEVICES
from phasegate.core.run.published import PUBLISHED

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


def test_every_device_stands_on_the_page_with_its_peaks_price_and_source() -> None:
    said = [line for line in PAGE.splitlines() if re.match(r"\| `[a-z0-9-]+` \|", line)]
    assert said == [
        f"| `{name}` | {device.bf16 / 1e12:g} | {device.fp32 / 1e12:g} | {device.price:g} | {device.source} |"
        for name, device in DEVICES.items()
    ]


def test_the_hardware_of_the_page_is_the_default() -> None:
    (snippet,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert HardwareSection(**yaml.safe_load(snippet)["hardware"]) == HardwareSection()

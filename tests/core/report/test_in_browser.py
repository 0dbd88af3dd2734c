"""Reports in a real browser: light, dark, narrow and printed; nothing logged, nothing fetched, nothing cut off."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.report.report import write_report

SCHEMES = ("light", "dark")
WIDTHS = (390, 1280)

#: Texts that stand on one another inside one chart, and texts that leave it.
OVERLAPS = """() => {
  const found = [];
  for (const chart of document.querySelectorAll('svg.chart')) {
    const whole = chart.getBoundingClientRect();
    const texts = [...chart.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([name, box], place) => {
      if (!box.width) return;
      if (box.left < whole.left - 2 || box.right > whole.right + 2 || box.bottom > whole.bottom + 2)
        found.push(`${name} leaves ${chart.getAttribute('aria-label').slice(0, 40)}`);
      for (const [other, beside] of texts.slice(place + 1))
        if (box.left < beside.right - 1 && beside.left < box.right - 1 && box.top < beside.bottom - 4 &&
            beside.top < box.bottom - 4) found.push(`${name} stands on ${other}`);
    });
  }
  return found;
}"""

#: The smallest contrast of any text with the page, by WCAG's formula; charts and tables included.
CONTRAST = """() => {
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(Number).map(value => value / 255)
      .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.documentElement).backgroundColor);
  const ratio = color => (Math.max(paper, light(color)) + 0.05) / (Math.min(paper, light(color)) + 0.05);
  const texts = [...document.querySelectorAll('p, li, td, th, small, summary, a, svg text')];
  return Math.min(...texts.map(one => ratio(getComputedStyle(one)[one.closest('svg') ? 'fill' : 'color'])));
}"""


@pytest.fixture(params=["run", "orders", "parameters"])
def written(
    request: pytest.FixtureRequest, make: Callable[..., Any], study: Callable[..., Path], tmp_path: Path
) -> tuple[str, Path]:
    """A report of each kind."""
    if request.param == "run":
        made = make()
        return "run", write_report(made.run, "html", made.store)
    return request.param, write_report(study(request.param), "html", tmp_path / "no-store")


def keep(path: Path) -> None:
    """Copy an artefact to where the environment wants them kept."""
    if wanted := os.environ.get("PHASEGATE_ARTEFACTS"):
        Path(wanted).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, wanted)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_report_opens_quietly_and_fits(chromium: Any, written: tuple[str, Path], scheme: str, tmp_path: Path) -> None:
    name, report = written
    context = chromium.new_context(color_scheme=scheme, viewport={"width": WIDTHS[-1], "height": 900})
    page = context.new_page()
    logged: list[str] = []
    fetched: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.on("request", lambda one: fetched.append(one.url))
    page.goto(report.as_uri())
    try:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert sizes[0] <= sizes[1] == width
            shot = tmp_path / f"{name}-{scheme}-{width}.png"
            page.screenshot(path=str(shot), full_page=True)
            assert shot.stat().st_size > 20_000
            keep(shot)
        assert page.evaluate(OVERLAPS) == []
        assert page.evaluate(CONTRAST) >= 4.5
        paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    finally:
        context.close()
    assert logged == []
    assert fetched == [report.as_uri()]


def test_a_report_prints_in_light_without_its_index(chromium: Any, written: tuple[str, Path], tmp_path: Path) -> None:
    name, report = written
    context = chromium.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(report.as_uri())
    try:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        page.set_viewport_size({"width": 700, "height": 1000})  # A4 within its margins
        sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes[0] <= sizes[1]
        printed = tmp_path / f"{name}.pdf"
        page.pdf(path=str(printed), format="A4")
        assert printed.read_bytes().startswith(b"%PDF-")
        keep(printed)
    finally:
        context.close()

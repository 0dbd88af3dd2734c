"""One set of facts in three renderings: self-contained, escaped, alike; and numbers as people read them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.report.numbers import count, duration, interval, number, percent, signed, size
from phasegate.core.report.reading import run_at, run_facts
from phasegate.core.report.rendering import as_html, plain
from phasegate.core.report.report import Format, write_report
from phasegate.core.report.run_page import run_page
from phasegate.core.run.store import Store

Make = Callable[..., Any]
SCRIPT = "<script>alert('x')</script>"
NEVER_CLOSED = {"link", "meta"}


class Page(HTMLParser):
    """Counts tags, collects what would be loaded, ids and the links to them, and refuses what is closed wrongly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in NEVER_CLOSED:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "srcset", "data"} or (tag == "link" and name == "href"):
                self.loads.append(str(value))
            elif name == "href":
                self.anchors.append(str(value))
            elif name == "id":
                self.ids.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rendered(made: Any, form: Format = "html") -> str:
    return write_report(made.run, form, made.store).read_text(encoding="utf-8")


def test_the_page_loads_nothing_runs_nothing_and_is_small(make: Make) -> None:
    text = rendered(make())
    page = Page(text)
    assert page.loads == ["data:,"] and "script" not in page.tags and page.open == []
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(text.encode()) < 3_000_000


def test_every_link_of_the_index_has_its_section_and_every_id_is_one(make: Make) -> None:
    page = Page(rendered(make()))
    assert len(page.anchors) == 11 and {anchor.removeprefix("#") for anchor in page.anchors} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_text_from_data_is_escaped_wherever_it_comes_from(make: Make) -> None:
    made = make(criterion=SCRIPT, text=f"name: x # {SCRIPT}\n")
    manifest = json.loads((made.run / "manifest.json").read_text(encoding="utf-8"))
    (made.run / "manifest.json").write_text(json.dumps(manifest | {"experiment": SCRIPT}), encoding="utf-8")
    stages = json.loads((made.run / "stages.json").read_text(encoding="utf-8"))
    stages["stages"][0]["reason"] = SCRIPT
    (made.run / "stages.json").write_text(json.dumps(stages), encoding="utf-8")
    text = rendered(made)
    assert SCRIPT not in text and text.count("&lt;script&gt;") >= 6
    assert "script" not in Page(text).tags
    assert "<script" not in rendered(made, "md").replace("\\<script", "").partition("The experiment:")[0]


def test_names_in_a_study_are_escaped(study: Callable[..., Path]) -> None:
    folder = study("orders", experiment=SCRIPT, study=SCRIPT)
    text = write_report(folder, "html", folder / "no-store").read_text(encoding="utf-8")
    assert SCRIPT not in text and "script" not in Page(text).tags


def test_a_verdict_is_said_in_words_and_not_by_colour_alone(make: Make) -> None:
    text = rendered(make())
    assert all(word in text for word in (">✓ pass<", ">✗ fail<", ">? undecided<"))


def test_every_chart_has_a_title_and_its_text(make: Make) -> None:
    text = rendered(make())
    labels = re.findall(r'<svg class="chart"[^>]*role="img" aria-label="([^"]+)"', text)
    assert len(labels) >= 8 and all(len(label) > 12 for label in labels)
    assert text.count('<svg class="chart"') == len(labels)


def test_markdown_and_json_state_the_same_answer(make: Make) -> None:
    made = make()
    data = json.loads(rendered(made, "json"))
    markdown = rendered(made, "md")
    assert data["kind"] == "run" and len(data["answer"]) >= 5
    assert all(plain(sentence) in markdown for sentence in data["answer"])
    acc = next(one for one in data["capabilities"] if one["metric"] == "acc")
    assert [value["value"] for value in acc["values"]] == [0.9, 0.85]
    assert "| choice · acc; higher is better | 0.900 [0.883, 0.915] |" in markdown.replace("\\", "").replace(
        "\xa0", " "
    )


@pytest.mark.parametrize(("layers", "experts"), [(48, 64), (2, 512)])
def test_a_large_model_stays_a_small_page(make: Make, layers: int, experts: int) -> None:
    made = make()
    facts = run_facts(run_at(made.run), Store(made.store))
    one = replace(
        facts.routing[0],
        domains=tuple(f"domain {d}" for d in range(10)),
        shares=(((1 / experts,) * experts,) * 10,) * layers,
        load=((1 / experts,) * experts,) * layers,
        owners=(("domain 0",) * experts,) * layers,
        entropy=((math.log(experts),) * 10,) * layers,
    )
    page = as_html(run_page(replace(facts, routing=(one,) * 6)))
    assert len(page.encode()) < 1_500_000
    assert ("1 of 48 layers" if layers == 48 else "512 experts are too many to draw") in page


def test_json_is_strict(make: Make) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(name)

    json.loads(rendered(make(), "json"), parse_constant=refuse)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (number(0.12345), "0.123"),
        (number(12.345), "12.35"),
        (number(123.45), "123.5"),
        (number(12345.6), "12,346"),
        (number(0.00012), "0.0001"),
        (number(-0.5), "−0.500"),
        (number(-0.0001, 2), "0.00"),
        (number(None), "–"),
        (number(float("nan")), "–"),
        (signed(0.5), "+0.500"),
        (signed(0.0), "0.000"),
        (interval(0.1, 0.25).replace("\xa0", " "), "[0.100, 0.250]"),
        (interval(1.0, 1.0), ""),
        (interval(float("-inf"), 1.0).replace("\xa0", " "), "[−∞, 1.000]"),
        (percent(0.123), "12\N{NO-BREAK SPACE}%"),
        (count(1234567), "1,234,567"),
        (duration(45), "45 s"),
        (duration(600), "10.0 min"),
        (duration(7200), "2.0 h"),
        (size(512 * 1024**2), "512 MiB"),
        (size(None), "not recorded"),
    ],
)
def test_numbers_have_sensible_digits(told: str, expected: str) -> None:
    assert told == expected

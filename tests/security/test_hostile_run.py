"""A whole run over hostile data: domains, texts and messages that would act, from the plan to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from phasegate.core.cli.app import main

Acting = Callable[[str], list[str]]

EXPERIMENT = """
name: hostile
size: nano
model: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, head_dim: 8, num_experts: 4}
tokenizer: {vocab_size: 300, documents: 50}
data:
  sequence_length: 32
  held_out: 0.2
  sources:
    own: {use: files, paths: [rows.jsonl], domain_field: d}
run: {logging_steps: 1, threads: 1}
phases:
  only:
    use: foundation
    options: {mixture: MIXTURE}
    steps: {pretrain: {steps: 2, rows: 4}}
    policy: {on_fail: advance, on_undecided: advance, extensions: 0}
    gates:
      knowledge: null
      load-low: {at_least: 0.0, documents: 8}
      load-high: null
      plateau: null
      texts: {use: perplexity, metric: "nll/*", at_most: 0.1, documents: 8}
"""


@pytest.mark.slow
def test_a_run_over_hostile_data_is_shown_as_it_is_spelt(
    hostile: str,
    acting: Acting,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = hostile.replace("\ud800", "")
    domains = (text, f"../../{text}", "\x1b[2J/\n../x")
    # Rows that share thirteen words are taken for repetitions.
    rows = [
        {"text": f"{text[-40:]} " + " ".join(f"w{13 * number + place}" for place in range(12)), "d": domain}
        for number, domain in enumerate(domains * 60)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "hostile.yaml").write_text(
        EXPERIMENT.replace("MIXTURE", json.dumps(dict.fromkeys(domains, 1.0))), encoding="utf-8"
    )

    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr()
        assert not ended.value.code, told.err
        return told.out + told.err

    before = {path.name for path in tmp_path.parent.iterdir()}
    run = str(tmp_path / "runs" / "hostile")
    shown = [
        said("plan", "hostile.yaml"),
        said("train", "hostile.yaml"),
        said("changes", run),
        said("compare", run, "--prompt", text, "--tokens", "4"),
        said("report", run),
        said("report", run, "--format", "md"),
    ]
    assert [acting(one) for one in shown] == [[]] * 6 and "\\u001b[2J" in shown[1] and "[bold]x[/bold]" in shown[1]
    (page,) = (tmp_path / "runs" / "hostile").glob("*/report.html")
    assert acting(page.read_text("utf-8")) == acting(page.with_suffix(".md").read_text("utf-8")) == []
    assert "&lt;script&gt;" in page.read_text("utf-8")
    tags: set[str] = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.add(tag)  # type: ignore[method-assign]
    parser.feed(page.read_text("utf-8"))
    assert not {"script", "img", "iframe", "object"} & tags
    assert {path.name for path in tmp_path.parent.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"hostile.yaml", "rows.jsonl", "runs", "store"}

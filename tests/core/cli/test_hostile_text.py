"""Text from data on its way to a terminal: shown as it is spelt, never obeyed, whichever command shows it."""

from __future__ import annotations

import ast
import io
import json
import re
import time
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from phasegate.core.cli import eval as evaluation
from phasegate.core.cli.app import main
from phasegate.core.cli.listing import print_json, print_table
from phasegate.core.cli.live import LiveDisplay
from phasegate.core.cli.printing import echo, plain_console, plain_warnings
from phasegate.core.cli.terminal import make_console, show_gates, show_written
from phasegate.core.cli.view import Pace, Training, View
from phasegate.core.cli.watching import Watch
from phasegate.core.config.schema import CriterionSection, PhaseSection, RunSection, StepSection
from phasegate.core.run.attempt import Attempt, Beginning
from phasegate.core.training.following import Logged
from phasegate.registry.printable import printable

CLI = Path(__file__).parents[3] / "core" / "cli"
Acting = Callable[[str], list[str]]
SPELT = ("[bold]x[/bold]", "[link=https://e.vil]", ":skull:", "{{7*7}}", "\\u001b[2J", "\\u001b]8;;", "\\u202e")


def judged(text: str, verdict: str = "fail") -> Any:
    return SimpleNamespace(
        criterion=text,
        metric=text,
        value=0.5,
        low=0.4,
        high=0.6,
        n=9,
        bound=text,
        verdict=verdict,
        reason=text,
        paper=text,
    )


def test_every_character_that_acts_is_spelt_and_every_other_stays() -> None:
    for sign in map(chr, range(0x110000)):
        kind = unicodedata.category(sign)
        acts = kind in {"Cc", "Zl", "Zp", "Cs"} and sign not in "\n\t"
        if acts:
            assert re.fullmatch(r"(\\u[0-9a-f]{4}){1,2}", printable(sign)), hex(ord(sign))
        elif kind not in {"Cf", "Cn"}:
            assert printable(sign) == (sign if sign != "\t" else "    "), hex(ord(sign))
    turning = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\U000e0041"
    assert all(printable(sign).startswith("\\u") for sign in (*turning, "\u200b", "\ufeff", "\xad"))
    assert printable("\u0646\u200c\u0627 👩\u200d🚀 é\n") == "\u0646\u200c\u0627 👩\u200d🚀 é\n"


def test_lines_and_tables_show_what_they_are_given(
    hostile: str, acting: Acting, capsys: pytest.CaptureFixture[str]
) -> None:
    echo(hostile)
    echo(hostile, err=True)
    print_table((hostile, "b"), [(hostile, "one"), ("two", hostile)])
    said = capsys.readouterr()
    assert acting(said.out + said.err) == []
    assert said.out.startswith(said.err) and all(part in said.err for part in SPELT)
    assert "[bold]" in said.out.removeprefix(said.err) and "☠" not in said.out


def test_json_stays_the_same_document(hostile: str, acting: Acting, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"answer": [hostile, {"deep": "\x9b\x7f\U000e0041é"}]}
    print_json(value)
    said = capsys.readouterr().out
    assert acting(said) == [] and json.loads(said) == value


def test_a_message_that_quotes_data_is_shown_as_it_is_spelt(
    hostile: str, acting: Acting, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps({hostile.replace("\ud800", ""): 1}), encoding="utf-8")
    source = "{use: files, paths: [rows.jsonl], domain: general}"
    options = "{options: {mixture: {general: 1.0}}}"
    text = f"name: x\nsize: nano\ndata: {{sources: {{own: {source}}}}}\nphases: {{foundation: {options}}}\n"
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["train", "x.yaml"])
    said = capsys.readouterr()
    assert ended.value.code == 2 and "{{7*7}}" in said.err and "\\u001b[2J" in said.err
    assert acting(said.out + said.err) == []


def test_a_warning_that_quotes_data_is_shown_as_it_is_spelt(hostile: str, acting: Acting) -> None:
    with plain_warnings():
        text = warnings.formatwarning(hostile, UserWarning, "x.py", 1, "")
    assert acting(text) == [] and "\\u001b[2J" in text


def test_gates_and_places_read_no_markup(hostile: str, acting: Acting) -> None:
    stream = io.StringIO()
    console = plain_console(file=stream, width=2000)
    show_gates(console, [judged(hostile)], title=hostile)
    show_written(console, {hostile: Path("x")})
    console.rule(hostile)
    text = stream.getvalue()
    assert acting(text) == [] and "skull:" in text and "☠" not in text
    assert text.count("[bold]x[/bold][link=https://e.vil]y[/link]") >= 7


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


#: What rich itself writes while it draws anew: styles, and moves of the cursor; data cannot, as it has no escapes left.
OURS = re.compile(r"\x1b\[(\?25[lh]|2K|1A|[0-9;]*m)|\r")


def test_a_run_is_drawn_in_a_terminal_without_obeying_names(
    hostile: str, acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    console = plain_console(file=stream, width=3000, height=60, force_terminal=True)
    view = View(began=0.0, phases=1, pace=Pace(total=1.0), phase=hostile, step=hostile, kind=hostile, place=1)
    view.after, view.measured, view.doing = (hostile,), hostile, hostile
    display = LiveDisplay(console, view, time.monotonic)
    display.start()
    view.training = Training(
        first=0, steps=2, tokens=1.0, began=0.0, reached=1, logged=1, values={f"loss/{hostile}": 1.0}
    )
    display.told(now=True)
    display.stop()
    text = stream.getvalue()
    assert acting(OURS.sub("", text)) == []
    assert "\x1b[2J" not in text and "\x1b]" not in text and "\x1b[31m" not in text
    assert all(part in text for part in SPELT)


def test_what_a_run_tells_is_printed_without_obeying_it(hostile: str, acting: Acting) -> None:
    gates = {hostile: CriterionSection(use="choice", metric=hostile, at_least=0.5, paper=hostile)}
    section = PhaseSection(steps={hostile: StepSection(steps=2, rows=1)}, gates=gates)
    stage = SimpleNamespace(name=hostile, flops=1.0, cached=False, section=section)
    experiment = SimpleNamespace(name=hostile, phases={hostile: section}, run=RunSection())
    stream = io.StringIO()
    watch = Watch(make_console(stream), SimpleNamespace(stages=(stage,), experiment=experiment), quiet=False)
    attempt = Attempt(number=1, kind=hostile, steps=section.steps, folder=Path("work"))
    bump = {"before": 1.0, "height": 0.5, "recovery": None}
    facts = {"seconds": 1.0, "attempts": [{"bump": {hostile: bump}, "notes": {hostile: [hostile]}}]}
    outcome = SimpleNamespace(
        name=hostile, reused=False, judgements=(judged(hostile),), reason=hostile, facts=facts, stage=SimpleNamespace()
    )
    with watch:
        watch.show("phase", stage)
        watch.show("waiting", hostile)
        watch.show("step", Beginning(attempt=attempt, step=hostile, finished=False))
        watch.began(1.0, 0, 2)
        watch.logged(Logged(step=2, values={f"loss/{hostile}": 1.0}, load=np.full((1, 2), 0.5), old=()))
        watch.show("measuring", hostile)
        watch.show("judgement", judged(hostile))
        watch.show("outcome", outcome)
    text = stream.getvalue()
    assert acting(text) == [] and "☠" not in text and text.count("[bold]x[/bold]") >= 10


def test_an_answer_of_a_model_is_compared_without_obeying_it(
    hostile: str, acting: Acting, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from phasegate.core.run import comparison

    said = SimpleNamespace(
        phase=hostile, form="chat", answer=hostile, prompt=hostile, confidence=0.5, measure=hostile, vetoed=False,
        abstains=False, stale=(hostile,), experts={},
    )  # fmt: skip
    fixed: Mapping[str, Any] = {
        "find_run": lambda _: SimpleNamespace(experiment="x"),
        "stages_of": lambda *_: (),
        "experiment_of": lambda *_: (None, SimpleNamespace(components=lambda: None), None),
        "ask_through": lambda *_: [said],
    }
    for name, function in fixed.items():
        monkeypatch.setattr(comparison, name, function)
    monkeypatch.setenv("COLUMNS", "4000")
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path), "--prompt", hostile])
    text = capsys.readouterr().out
    assert not ended.value.code and acting(text) == []
    assert all(part in text for part in SPELT)


@pytest.mark.parametrize("form", list(evaluation.Format)[::2])
def test_results_of_a_benchmark_are_shown_without_obeying_names(
    form: evaluation.Format, hostile: str, acting: Acting, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "4000")
    evaluation._table(form, hostile, ("task", "value"), [(hostile, "1")], [hostile])
    text = capsys.readouterr().out
    assert acting(text) == [] and "{{7*7}}" in text.replace("\\", "")
    if form is evaluation.Format.md:
        assert not re.search(r"<|(?<!\\)[\[*`]", text.replace("**", "")), text
        assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")}) == 1


def test_the_command_prints_in_no_other_way() -> None:
    """All of it goes through ``printing``, or what a name or an answer holds would reach the terminal as it is."""
    wrong = []
    for path in sorted(CLI.glob("*.py")):
        if path.name == "printing.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if named in {"print", "typer.echo", "typer.secho", "click.echo", "Console", "sys.stdout.write"}:
                wrong.append(f"{path.name}:{node.lineno}: {named}")
    assert wrong == []

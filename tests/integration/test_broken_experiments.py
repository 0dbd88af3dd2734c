"""Every broken experiment of the corpus ends in one sentence that names its line, what is wrong there, and the cure.

The corpus is in ``broken/``. A case is a whole ``text``, or ``put`` and ``drop`` of dotted keys of the experiment
``base`` (``first`` below, or a preset); ``beside`` are files next to it, ``args`` what else is typed. Blamed is the
``line``, the key ``at``, or the last key that was put; ``line: 0`` blames the file as a whole, and ``blames`` is what
the sentence begins with where that is no place of the file. The sentence holds every text of ``says``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.core.config.presets import preset_content

Platform = Callable[..., int]

CORPUS = Path(__file__).parent / "broken"
FIRST = """\
name: first
size: nano
data:
  sources:
    world: microworld
phases:
  foundation:
  specialization:
  alignment:
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A broken experiment: what is typed behind ``platform``, and what the sentence must begin with and hold."""

    text: str
    command: tuple[str, ...]
    beside: Mapping[str, str]
    blames: str
    says: tuple[str, ...]


def read_corpus() -> dict[str, Mapping[str, Any]]:
    """Return all cases by name; a name stands once in the whole corpus."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(CORPUS.glob("*.yaml")):
        cases = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert not found.keys() & cases.keys(), found.keys() & cases.keys()
        found |= cases
    return found


def make_case(said: Mapping[str, Any]) -> Case:
    """Return a case with its text written out and its line looked up."""
    text = said["text"] if "text" in said else _changed(said)
    at = said.get("at", list(said["put"])[-1] if "put" in said else None)
    line = said["line"] if "line" in said else _line(text, at) if "blames" not in said else None
    return Case(
        text=text,
        command=(said.get("command", "plan"), "broken.yaml", *said.get("args", ())),
        beside=said.get("beside", {}),
        blames=said.get("blames", f"broken.yaml:{line}: " if line else "broken.yaml: "),
        says=tuple(said["says"]),
    )


def _changed(said: Mapping[str, Any]) -> str:
    base = said.get("base", "first")
    data = yaml.safe_load(FIRST if base == "first" else preset_content(base))
    for key in [said["drop"]] if isinstance(said.get("drop"), str) else said.get("drop", ()):
        *path, last = _parts(key)
        inner = data
        for part in path:
            inner = inner[part]
        del inner[last]
    for key, value in said.get("put", {}).items():
        *path, last = _parts(key)
        inner = data
        for part in path:
            inner[part] = {} if inner.get(part) is None else inner[part]
            inner = inner[part]
        inner[last] = value
    # Without aliases, so that every key has a line of its own.
    return yaml.dump(data, sort_keys=False, Dumper=_Plain)


def _parts(key: str | Sequence[str]) -> Sequence[str]:
    """Return the parts of a dotted key; one that has a dot of its own is a list of parts already."""
    return key.split(".") if isinstance(key, str) else key


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _line(text: str, key: str | Sequence[str]) -> int:
    """Return the line of a dotted key, or of the nearest key around it, as PyYAML sees the text."""
    node, line = yaml.compose(text, Loader=yaml.SafeLoader), 1
    for part in _parts(key):
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
            continue
        found = [(name, item) for name, item in getattr(node, "value", ()) if name.value == part]
        if not found:
            break
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


CASES = read_corpus()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_experiment_is_one_sentence_about_its_line(
    name: str, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(CASES[name])
    (tmp_path / "broken.yaml").write_bytes(case.text.encode("utf-8", "surrogatepass"))
    for file, content in case.beside.items():
        (tmp_path / file).write_text(content, encoding="utf-8")
    assert platform(*case.command) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {case.blames}"), told
    assert [word for word in case.says if word not in told] == [], told
    assert told.count("\n") == 1 and told.endswith("\n"), told
    assert told[:-1].isprintable(), told

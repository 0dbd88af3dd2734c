"""Every broken experiment of the corpus ends in one sentence that names its line, what is wrong there, and the cure.

The corpus is in ``broken/``. A case is a whole ``text``, or ``put`` and ``drop`` of dotted keys of the experiment
``base`` (``first`` below, or a preset); ``beside`` are files next to it, ``args`` what else is typed. Blamed is the
``line``, the key ``at``, or the last key that was put; ``line: 0`` blames the file as a whole, and ``blames`` is what
the sentence begins with where that is no place of the file. The sentence holds every text of ``says``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.core.config.presets import preset_content
from phasegate.core.config.schema import Experiment
from phasegate.core.config.shaping import entries_of, hints, section_of
from phasegate.registry.entries import Entry
from phasegate.registry.plugins import Plugins

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
    beside: Mapping[str, str | bytes]
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
REGISTRY = Plugins.load().components()


def told_by(platform: Platform, capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Return the one sentence that a mistake is told in; it prints, and the exit code is 2."""
    assert platform(*command) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1, told
    assert told[:-1].isprintable(), told
    return told.removeprefix("error: ").removesuffix("\n")


@pytest.mark.parametrize("name", CASES)
def test_a_broken_experiment_is_one_sentence_about_its_line(
    name: str, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(CASES[name])
    (tmp_path / "broken.yaml").write_bytes(case.text.encode("utf-8", "surrogatepass"))
    for file, content in case.beside.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    told = told_by(platform, capsys, *case.command)
    assert told.startswith(case.blames), told
    assert [word for word in case.says if word not in told] == [], told


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(content) and None


def _laughs(file: Path) -> None:
    levels = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    file.write_text("\n".join(levels))


def _unreadable(file: Path) -> None:
    file.write_text(FIRST)
    file.chmod(0)


def _loop(file: Path) -> None:
    file.symlink_to(file)


#: Files that no text can be written as: how each is made, the line that is blamed, and the words that help.
FILES: dict[str, tuple[Callable[[Path], object], int | None, str]] = {
    "bytes that are not UTF-8": (_bytes(b"name: x\nsize: \xff\n"), 2, "byte 0xff is not UTF-8"),
    "text in Latin-1": (_bytes("name: x\nseed: 1 # für\n".encode("latin-1")), 2, "byte 0xfc is not UTF-8"),
    "UTF-16": (_bytes("name: x\n".encode("utf-16")), 1, "save the file as UTF-8"),
    "a picture": (_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256))), 1, "byte 0x89 is not UTF-8"),
    "a mistake behind a byte order mark": (_bytes(b"\xef\xbb\xbfname: x\nsede: 1\n"), 2, "Did you mean 'seed'?"),
    "a mistake behind line ends of Windows": (_bytes(b"name: x\r\nsede: 1\r\n"), 2, "Did you mean 'seed'?"),
    "fifty megabytes": (_bytes(b"name: x\n" + b"# filler\n" * 5_500_000), None, "larger than 512 KiB"),
    "a line without end": (_bytes(FIRST.replace("first", "x" * 500_000).encode()), 1, "at most 100"),
    "a billion laughs": (_laughs, 5, "more than 20000 values, counting what aliases repeat"),
    "more values than a person writes": (_bytes(b"plugins:\n" + b"- a\n" * 30_000), 20_000, "more than 20000 values"),
    "brackets without end": (_bytes(b"name: x\nplugins: " + b"[" * 50_000), 2, "nested more than 40 deep"),
    "braces without end": (_bytes(b"name: x\nrun: " + b"{a: " * 50_000), 2, "nested more than 40 deep"),
    "an integer of five thousand digits": (_bytes(b"name: x\nseed: " + b"9" * 5_000 + b"\n"), 2, "is too large"),
    "nothing at all": (lambda file: None, None, "there is no such file"),
    "a folder": (Path.mkdir, None, "this is a folder"),
    "a pipe that nobody writes to": (os.mkfifo, None, "a pipe or a device"),
    "a device without end": (lambda file: file.symlink_to("/dev/zero"), None, "a pipe or a device"),
    "a link to itself": (_loop, None, "cannot be read"),
    "a link to nothing": (lambda file: file.symlink_to("nowhere.yaml"), None, "there is no such file"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_experiment_is_one_sentence(
    name: str, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, line, says = FILES[name]
    make(tmp_path / "broken.yaml")
    told = told_by(platform, capsys, "plan", "broken.yaml")
    assert told.startswith(f"broken.yaml:{line}: " if line else "broken.yaml: "), told
    assert says in told, told


def test_a_file_that_may_not_be_read_is_one_sentence(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _unreadable(tmp_path / "broken.yaml")
    if os.access(tmp_path / "broken.yaml", os.R_OK):
        pytest.skip("this user may read everything")
    assert told_by(platform, capsys, "plan", "broken.yaml") == "broken.yaml: cannot be read: Permission denied."


def test_a_misspelt_file_is_told_with_its_neighbour(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text(FIRST)
    assert "Did you mean 'broken.yaml'?" in told_by(platform, capsys, "plan", "brokn.yaml")


def test_a_file_in_the_home_of_nobody_is_not_there(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in told_by(platform, capsys, "plan", "~nobody-of-this-name/broken.yaml")


def test_a_misspelt_preset_is_told_with_its_neighbour(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'ncas-nano'?" in told_by(platform, capsys, "plan", "ncas-nan")


#: Where a component of each kind stands in an experiment.
PLACES = {
    "anchor": "phases.foundation.steps.hold.anchor",
    "gate": "phases.foundation.gates.new",
    "loss": "phases.foundation.steps.pretrain.losses.new",
    "mixer": "model.mixer",
    "model": "model",
    "phase": "phases.new",
    "quantizer": "model.quantizer",
    "router": "model.router",
    "search-space": "study.space",
    "source": "data.sources.new",
}
MORE: Mapping[str, Mapping[str, Any]] = {
    "anchor": {"phases.foundation.steps.hold.objective": "anchor", "phases.foundation.steps.hold.steps": 1},
    "gate": {"phases.foundation.gates.new.metric": "acc", "phases.foundation.gates.new.at_least": 0},
}


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: f"{entry.kind}/{entry.name}")
def test_a_component_refuses_an_option_that_it_does_not_have(
    entry: Entry, platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = PLACES[entry.kind]
    option = f"{place}.options.colour"
    case = make_case({"put": {f"{place}.use": entry.name, **MORE.get(entry.kind, {}), option: 1}, "says": ["'colour'"]})
    (tmp_path / "broken.yaml").write_text(case.text)
    assert platform(*case.command) == 2
    told = capsys.readouterr().err.removeprefix("error: ").splitlines()  # where it stands may be wrong for it, too
    assert any(line.startswith(f"{case.blames}{entry.label} has no option 'colour'.") for line in told), told


def test_every_key_of_the_schema_is_broken_somewhere_in_the_corpus() -> None:
    broken = {key for said in CASES.values() for key in _blamed(said)}
    assert sorted(f"{section.__name__}.{name}" for section, name in _keys() if name not in broken) == []


def _blamed(said: Mapping[str, Any]) -> set[str]:
    """Return the key that a case blames, and the one around it, of which it may be an item."""
    keys = [*said.get("put", ()), said.get("at", ""), said.get("drop", "")]
    return {part for key in keys if isinstance(key, str) for part in _parts(key)[-2:]}


def _keys() -> set[tuple[type, str]]:
    found: set[tuple[type, str]] = set()
    rest: list[type] = [Experiment]
    while rest:
        section = rest.pop()
        for name, hint in hints(section).items():
            inner = section_of(hint) or section_of(entries_of(hint))
            if inner is not None and (inner, "") not in found:
                found.add((inner, ""))
                rest.append(inner)
            found.add((section, name))
    return {(section, name) for section, name in found if name}


def test_the_corpus_is_as_large_as_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    told = re.search(r"([\d,]+) broken experiments", page)
    assert told is not None
    assert int(told[1].replace(",", "")) == len(CASES) + len(FILES) + len(REGISTRY)

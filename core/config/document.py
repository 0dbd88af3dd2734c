"""Reading one YAML document as data: plain values, the line of every key, and nothing that can act.

Only the core schema of YAML 1.2 is read: ``yes``, ``on`` and ``2026-01-01`` are text, ``4e-3`` is a number, and keys
are always text. Tags, merge keys, several documents and anything that repeats a key are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ...registry.errors import ConfigError
from ...registry.printable import in_line
from ...registry.suggest import did_you_mean
from .scalars import resolve

KeyPath = tuple[str, ...]

MAX_BYTES = 512 << 10
MAX_DEPTH = 40
MAX_VALUES = 20_000  # aliases count with everything they repeat, so that a few lines cannot fill the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document's value and the line (from 1) of each key and list item, by path."""

    name: str
    value: Any
    lines: Mapping[KeyPath, int]


def read_document(path: Path) -> Document:
    """Return the document in ``path``; raises ``ConfigError`` with file and line for whatever cannot be read."""
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: this is a folder, not an experiment file.{_nearest(path / 'experiment.yaml')}")
        if path.exists() and not path.is_file():  # a pipe would be waited for, and a device need not end
            raise ConfigError(f"{path}: this is a pipe or a device; an experiment is a file.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file.{_nearest(path)}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return parse_document(content, str(path))


def _nearest(path: Path) -> str:
    """Return a hint at the experiment file beside ``path`` whose name is nearest, or nothing."""
    try:
        beside = [one.name for one in islice(path.parent.iterdir(), 1000) if one.suffix in {".yaml", ".yml"}]
    except OSError:
        return ""
    return did_you_mean(path.name, beside)


def parse_document(content: bytes | str, name: str) -> Document:
    """Return the document in ``content``; ``name`` stands for the file in error texts."""
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{name}: is larger than {MAX_BYTES >> 10} KiB, which no experiment file is.")
    text = content if isinstance(content, str) else _decode(content, name)
    builder = _Builder(name)
    try:
        value = builder.build(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: the character U+{ord(text[error.position]):04X} is not allowed.") from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_explain(error, name)) from error
    return Document(name=name, value=value, lines=builder.lines)


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{name}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8."
        ) from error


def _explain(error: yaml.MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "it cannot be parsed"
    where = f"{name}:{mark.line + 1}" if mark is not None else name
    if "'\\t'" in problem:
        return f"{where}: a tab stands where YAML wants spaces; indent with spaces."
    context = f" {error.context}" if error.context and error.problem else ""
    return f"{where}: this is not YAML: {problem}{context}."


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None  # the parser marks every event that it reads from text
    return event.start_mark.line + 1


@dataclass(slots=True)
class _Anchor:
    value: Any
    size: int
    open: bool = True


@dataclass(slots=True)
class _Builder:
    """Turns parser events into plain values; bounded in depth and in number of values."""

    name: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    anchors: dict[str, _Anchor] = field(default_factory=dict)
    values: int = 0

    def build(self, events: Iterator[yaml.Event]) -> Any:
        documents = 0
        value: Any = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.error(event, "a second document starts; an experiment is one document")
            elif isinstance(event, yaml.NodeEvent):
                value = self.node(event, events, (), 1)
        return value

    def error(self, event: yaml.Event, text: str) -> ConfigError:
        return ConfigError(in_line(f"{self.name}:{_line(event)}: {text}."))

    def node(self, event: yaml.NodeEvent, events: Iterator[yaml.Event], path: KeyPath, depth: int) -> Any:
        self.count(event, 1)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        if depth > MAX_DEPTH:
            raise self.error(event, f"values are nested more than {MAX_DEPTH} deep")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self.error(event, f"the tag '{tag}' is not allowed; an experiment file is plain data")
        anchor = None
        if event.anchor is not None:
            if event.anchor in self.anchors:
                raise self.error(event, f"the anchor '&{event.anchor}' is defined twice")
            anchor = self.anchors[event.anchor] = _Anchor(None, self.values)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(events, path, depth)
        else:
            value = self.mapping(events, path, depth)
        if anchor is not None:
            anchor.value, anchor.size, anchor.open = value, self.values - anchor.size + 1, False
        return value

    def count(self, event: yaml.Event, more: int) -> None:
        self.values += more
        if self.values > MAX_VALUES:
            raise self.error(event, f"the file has more than {MAX_VALUES} values, counting what aliases repeat")

    def alias(self, event: yaml.AliasEvent) -> Any:
        anchor = self.anchors.get(str(event.anchor))
        if anchor is None:
            raise self.error(event, f"the alias '*{event.anchor}' has no anchor before it")
        if anchor.open:
            raise self.error(event, f"the alias '*{event.anchor}' stands inside its own anchor")
        self.count(event, anchor.size)
        return copy.deepcopy(anchor.value)

    def sequence(self, events: Iterator[yaml.Event], path: KeyPath, depth: int) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            assert isinstance(event, yaml.NodeEvent)
            here = (*path, str(len(items)))
            self.lines[here] = _line(event)
            items.append(self.node(event, events, here, depth + 1))
        return items

    def mapping(self, events: Iterator[yaml.Event], path: KeyPath, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent):
                raise self.error(event, "a key must be one word or a text")
            key = self.text(event)
            if event.tag is not None or event.anchor is not None:
                raise self.error(event, f"the key '{key}' has a tag or an anchor; a key is plain text")
            if key == "<<":
                raise self.error(event, "merge keys ('<<') are not read; write the keys out")
            here = (*path, key)
            if key in found:
                raise self.error(event, f"'{key}' stands here a second time; line {self.lines[here]} has it already")
            self.lines[here] = _line(event)
            following = next(events)
            assert isinstance(following, yaml.NodeEvent)
            found[key] = self.node(following, events, here, depth + 1)
        return found

    def text(self, event: yaml.ScalarEvent) -> str:
        value: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(event, "half of a surrogate pair is not a character")
        return value

    def scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text = self.text(event)
        if event.style is not None:
            return text
        try:
            return resolve(text)
        except OverflowError:
            raise self.error(event, f"the number {text[:20]} is too large") from None

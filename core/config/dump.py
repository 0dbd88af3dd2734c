"""Writing an experiment as YAML that loads to the same experiment again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml

from .scalars import reads_as_text
from .schema import Experiment, Ref
from .shaping import INLINE


class _Dumper(yaml.SafeDumper):
    """Indents lists and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if reads_as_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(experiment: Experiment) -> str:
    """Return the canonical YAML of an experiment: every value written out, in the schema's order.

    What is None or empty is left out. A complete experiment takes nothing from recipes any more, so loading and
    completing its text gives an equal experiment, and equal experiments have equal texts.
    """
    return yaml.dump(_plain(experiment), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _plain(value: Any) -> Any:
    if isinstance(value, Ref) and not value.options:
        return value.use
    if is_dataclass(value) and not isinstance(value, type):
        return _section(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _section(section: Any) -> dict[str, Any]:
    names = [field.name for field in fields(section)]
    written: dict[str, Any] = {}
    for name in names:
        value = getattr(section, name)
        if value is None or (isinstance(value, Mapping | tuple) and not value):
            continue
        if name == "options" and isinstance(section, INLINE) and not set(value) & set(names):
            written |= _plain(value)
        else:
            written[name] = _plain(value)
    return written

"""Templates over a record's fields: ``"{instruction}\\n{context}"``, nested fields, places in lists, whole records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...registry.errors import DataError
from ...registry.suggest import did_you_mean
from .dialogues import Messages, as_message

Record = Mapping[str, Any]

_SLOT = re.compile(r"\{([^{}]+)\}")


def render(template: str, record: Record, source: str) -> str:
    """Fill a template with a record's fields; other values than text are written as JSON."""
    if template == "*":
        return json.dumps(record, ensure_ascii=False)
    return _SLOT.sub(lambda match: text_of(field_of(record, match.group(1), source)), template).strip()


def is_constant(template: str) -> bool:
    """Tell whether a template says the same of every record."""
    return template != "*" and _SLOT.search(template) is None


def value_of(template: str, record: Record, source: str) -> Any:
    """Return the field itself if the template is one field alone, else the filled template."""
    alone = _SLOT.fullmatch(template)
    return field_of(record, alone.group(1), source) if alone else render(template, record, source)


def messages_of(template: str, record: Record, role: str, source: str) -> Messages:
    """Return what a template gives as messages: what is a list (or one) of messages already, else one with the text."""
    value = value_of(template, record, source)
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_message(item, source) for item in value]
    text = render(template, record, source)
    return [{"role": role, "content": text}] if text else []


def field_of(record: Record, name: str, source: str) -> Any:
    """Return a field; ``a.b`` reaches into a nested one, ``a.0`` is the first item of a list.

    ``DataError`` with the nearest name for a field that the record does not have.
    """
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if isinstance(value, Sequence) and not isinstance(value, str) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            raise DataError(
                f"The source {source!r} has a record without the field {name!r}; it has "
                f"{', '.join(map(str, record))}.{did_you_mean(name, map(str, record))}"
            )
    return value


def text_of(value: Any) -> str:
    """Return a value as text: nothing for None, JSON for what is no text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

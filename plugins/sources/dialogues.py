"""Dialogues as lists of messages, and pairs of dialogues as prompt, chosen and rejected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...registry.errors import DataError

Messages = list[dict[str, str]]

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def parse_dialogue(text: str) -> Messages:
    """A dialogue of ``\\n\\nHuman: … \\n\\nAssistant: …`` as messages; empty if it is not one."""
    parts = _TURN.split(text)
    if parts[0].strip() or len(parts) < 3:
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[role], "content": content.strip()}
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def split_pair(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages] | None:
    """(prompt, chosen answer, rejected answer) of two dialogues that differ in their last assistant turn only."""
    if not chosen or not rejected or chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
        return None
    if {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"} or not chosen[:-1]:
        return None
    if not all(message["content"] for message in (*chosen, *rejected)):
        return None
    return chosen[:-1], chosen[-1:], rejected[-1:]


def split_first(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages] | None:
    """(first question, what the chosen dialogue says to it, what the rejected one says) of two dialogues that begin
    with the same question; they may say the same to it."""
    if len(chosen) < 2 or len(rejected) < 2 or chosen[0] != rejected[0] or chosen[0]["role"] != "user":
        return None
    if {chosen[1]["role"], rejected[1]["role"]} != {"assistant"}:
        return None
    if not all(message["content"] for message in (*chosen[:2], *rejected[:2])):
        return None
    return chosen[:1], chosen[1:2], rejected[1:2]


def as_message(item: Any, source: str) -> dict[str, str]:
    """One message in either of the two common forms, as role and content."""
    if isinstance(item, Mapping):
        role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
        if str(role).lower() in _ROLES and isinstance(content, str):
            return {"role": _ROLES[str(role).lower()], "content": content}
    raise DataError(
        f"The source {source!r} has a message that is not a role (user, assistant, system) with a content: {item!r}."
    )

"""Sources with one thing wrong each, caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from datasets import Dataset
from phasegate.core.data.source import SourceContext
from phasegate.registry.components import SourceSpec
from phasegate.testing import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """``rows``: how many."""

    rows: int = 8


class Numbers:
    """Texts that count: a sound source."""

    def __init__(self, config: Sizes, context: SourceContext) -> None:
        self.config = config

    def fingerprint(self) -> str:
        return f"numbers {self.config.rows}"

    def domains(self) -> tuple[str, ...]:
        return ("general",)

    def views(self) -> tuple[str, ...]:
        return ("text",)

    def texts(self, split: str) -> list[str]:
        return [f"{split} {number}" for number in range(self.config.rows)]

    def load(self, view: str, split: str) -> Dataset:
        texts = self.texts(split)
        return Dataset.from_dict({"text": texts, "domain": ["general"] * len(texts)})


class Misnamed(Numbers):
    def domains(self) -> tuple[str, ...]:
        return ("code",)


class Shuffled(Numbers):
    loads = 0

    def texts(self, split: str) -> list[str]:
        Shuffled.loads += 1
        found = super().texts(split)
        return found[Shuffled.loads % 5 :] + found[: Shuffled.loads % 5]


class Leaking(Numbers):
    def texts(self, split: str) -> list[str]:
        return [f"text {number}" for number in range(self.config.rows)]


class Blind(Numbers):
    def fingerprint(self) -> str:
        return "numbers"


BROKEN = {
    "views": (Misnamed, "domain 'general', which it never names"),
    "iterates": (Shuffled, "were others"),
    "held-out": (Leaking, "8 rows of 'text' are in both"),
    "change": (Blind, "It stays with rows = 9"),
}
HASHED = """
    from phasegate import SourceSpec, hookimpl

    @hookimpl
    def phasegate_components():
        yield SourceSpec(name="one", target="phasegate_hashed.data:Hashed", summary="A source whose hash wanders.")
"""
DATA = """
    class Hashed:
        def __init__(self, context):
            pass

        def fingerprint(self):
            return str(hash("numbers"))

        def domains(self):
            return ("general",)

        def views(self):
            return ("text",)

        def load(self, view, split):
            from datasets import Dataset
            return Dataset.from_dict({"text": [split], "domain": ["general"]})
"""


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_source_is_caught(name: str, failure: Callable[..., str], spec_of: Callable[..., Any]) -> None:
    target, said = BROKEN[name]
    assert said in failure(spec_of(SourceSpec, target, config=Sizes), name, Example())


def test_a_fingerprint_that_is_another_in_another_process_is_caught(install_plugin: Any) -> None:
    from phasegate.testing.checks import checks_of, entries_of

    install_plugin("phasegate-hashed", HASHED, files={"data.py": DATA})
    (entry,) = entries_of("phasegate-hashed")
    (check,) = [check for check in checks_of(entry) if check.name == "fingerprint"]
    with pytest.raises(AssertionError, match="and in another process"):
        check(entry)


def test_every_check_of_sources_catches_something(names: Callable[[str], set[str]]) -> None:
    assert {*BROKEN, "fingerprint"} == names("source")

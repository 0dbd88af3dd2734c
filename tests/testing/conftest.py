"""Broken components, and the check that is to catch each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from phasegate.registry.components import Component
from phasegate.registry.entries import Entry
from phasegate.testing import Example
from phasegate.testing.checks import checks_of


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def failure() -> Callable[..., str]:
    """What a check says of a component: ``failure(spec, "shapes", example)``; it must fail, and not by an accident."""

    def fail(spec: Component, name: str, example: Example | None = None, *, dist: str = "broken") -> str:
        entry = Entry(dist=dist, version="0", component=spec)
        (check,) = [check for check in checks_of(entry, example or Example()) if check.name == name]
        with pytest.raises(AssertionError) as caught:
            check(entry)
        text = str(caught.value)
        assert text.startswith(f"{entry.label} breaks the promise: {check.promise}")
        assert "It raised" not in text, text
        return text.removeprefix(f"{entry.label} breaks the promise: {check.promise}").strip()

    return fail


@pytest.fixture
def names() -> Callable[[str], set[str]]:
    """The names of a kind's own checks."""

    def of(kind: str) -> set[str]:
        from phasegate.testing.checks import functions_of
        from phasegate.testing.kinds import every

        return {function.__name__.replace("_", "-") for function in functions_of(kind)[len(every.CHECKS) :]}

    return of


@pytest.fixture
def spec_of() -> Callable[..., Any]:
    """A spec of a class, with what all specs need."""

    def make(spec: type[Component], target: Any, **more: Any) -> Component:
        return spec(name="one", target=target, summary="One that is broken.", **more)

    return make

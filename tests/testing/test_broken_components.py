"""What all components promise, broken one by one, and caught by the check that is named beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from phasegate.registry.components import RouterSpec
from phasegate.registry.entries import Entry
from phasegate.testing.checks import Example, NotApplicable, checks_of, entries_of
from phasegate.testing.kinds import every


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """``size``: how large."""

    size: int = 1


@dataclass(slots=True, kw_only=True)
class Changeable:
    """``size``: how large."""

    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Demanding:
    """``size``: how large."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplary(Demanding):
    """``size``: how large."""

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """Something or other."""

    size: int = 1


class Router:
    """A router."""


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "summary": ({"summary": " "}, "has no summary"),
    "loads": ({"target": "phasegate.nowhere:Router"}, "does not import"),
    "options": ({"config": Demanding}, "Without a default: size."),
    "documented": ({"config": Mute}, "does not mention size"),
}


def spec(**more: Any) -> RouterSpec:
    return RouterSpec(**({"name": "one", "target": Router, "config": Sound, "summary": "One."} | more))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_component_is_caught(name: str, failure: Callable[..., str]) -> None:
    more, said = BROKEN[name]
    assert said in failure(spec(**more), name)


def test_options_that_can_be_changed_are_caught(failure: Callable[..., str]) -> None:
    assert "not frozen" in failure(spec(config=Changeable), "options")


def test_an_example_of_the_config_stands_in_for_defaults() -> None:
    entry = Entry(dist="broken", version="0", component=spec(config=Exemplary))
    (check,) = [check for check in checks_of(entry) if check.name == "options"]
    check(entry)


def test_options_that_are_dropped_are_caught(failure: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "parse", lambda config, options, label: config())
    assert "takes the option 'no_such_option' and drops it" in failure(spec(), "unknown-option")


def test_a_plugin_that_imports_torch_when_it_is_listed_is_caught(install_plugin: Any) -> None:
    source = """
        import torch
        from phasegate import RouterSpec, hookimpl

        @hookimpl
        def phasegate_components():
            yield RouterSpec(name="one", target="phasegate_heavy.plugin:Router", summary="One.")

        class Router: ...
    """
    install_plugin("phasegate-heavy", source)
    (entry,) = entries_of("phasegate-heavy")
    (check,) = [check for check in checks_of(entry) if check.name == "listing-is-light"]
    with pytest.raises(AssertionError, match="imports torch"):
        check(entry)


def test_what_is_not_installed_is_not_listed() -> None:
    entry = Entry(dist="broken", version="0", component=spec())
    (check,) = [check for check in checks_of(entry, Example()) if check.name == "listing-is-light"]
    with pytest.raises(NotApplicable):
        check(entry)


def test_every_check_of_all_kinds_catches_something() -> None:
    found = {function.__name__.replace("_", "-") for function in every.CHECKS}
    assert {*BROKEN, "unknown-option", "listing-is-light"} == found

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from phasegate.registry.errors import ConfigError, PluginError
from phasegate.registry.options import describe, parse
from phasegate.registry.plugins import Plugins
from phasegate.registry.registry import Registry

SWITCH = "router phasegate-lego:switch"


@pytest.fixture
def registry(install_router: Any) -> Registry:
    install_router("phasegate-lego")
    return Plugins.load(["lego"]).components()


def refusal(registry: Registry, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        registry.config("router", "switch", options)
    return str(caught.value)


def test_options_become_the_component_s_own_config(registry: Registry) -> None:
    config = registry.config("router", "switch", {"experts": 8, "capacity": 2})
    assert type(config).__name__ == "SwitchConfig"
    assert (config.experts, config.capacity, config.inner.depth) == (8, 2.0, 1)


def test_a_list_of_a_yaml_file_becomes_a_tuple_and_its_text_a_number(registry: Registry) -> None:
    config = registry.config("router", "switch", {"experts": 8, "betas": [0, 1], "capacity": "1e-3"})
    assert (config.betas, config.capacity) == ((0.0, 1.0), 0.001)


def test_an_unknown_option_names_the_nearest_and_all(registry: Registry) -> None:
    assert refusal(registry, experts=8, capasity=2) == (
        f"{SWITCH} has no option 'capasity'. Did you mean 'capacity'? Options: experts, capacity, betas, inner."
    )


def test_a_misspelt_required_option_is_reported_as_misspelt_not_as_missing(registry: Registry) -> None:
    assert refusal(registry, expert=8).startswith(f"{SWITCH} has no option 'expert'. Did you mean 'experts'?")


def test_an_unknown_option_of_a_nested_section_is_refused_too(registry: Registry) -> None:
    expected = f"{SWITCH} has no option 'inner.deph'. Did you mean 'depth'? Options: depth."
    assert refusal(registry, experts=8, inner={"deph": 2}) == expected


def test_a_missing_option_is_named(registry: Registry) -> None:
    assert refusal(registry) == f"{SWITCH} needs the option 'experts'."


def test_a_value_of_the_wrong_type_is_one_sentence(registry: Registry) -> None:
    assert refusal(registry, experts="many") == (
        f"{SWITCH} has 'experts' = 'many', but it should be a valid integer, unable to parse string as an integer."
    )


def test_a_value_of_the_wrong_type_inside_a_section_says_where(registry: Registry) -> None:
    assert refusal(registry, experts=1, inner={"depth": 1.5}).startswith(
        f"{SWITCH} has 'inner.depth' = 1.5, but it should"
    )


def test_a_rule_of_the_config_itself_is_passed_on(registry: Registry) -> None:
    assert refusal(registry, experts=0) == f"{SWITCH}: experts must be at least 1."


def test_a_long_value_is_cut(registry: Registry) -> None:
    assert len(refusal(registry, experts="x" * 10_000)) < 250


def test_options_of_a_component_that_takes_none_are_refused(install_plugin: Any) -> None:
    source = (
        "from phasegate import *\n@hookimpl\ndef phasegate_components():\n    yield AnchorSpec(name='x', target='a:b')"
    )
    install_plugin("phasegate-lego", source)
    registry = Plugins.load(["lego"]).components()
    assert registry.config("anchor", "x", {}) is None
    with pytest.raises(ConfigError, match=r"^anchor phasegate-lego:x takes no options, but got layer\.$"):
        registry.config("anchor", "x", {"layer": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    parts: Mapping[str, Part] = field(default_factory=dict)
    spare: Part | None = None
    weight: Part | float = 1.0
    name: str


@pytest.mark.parametrize("options", [{"parts": {"a": {"sice": 2}}}, {"spare": {"sice": 2}}])
def test_unknown_options_inside_containers_and_optionals_are_refused_with_the_nearest(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sice'\. Did you mean 'size'\? Options: size\."):
        parse(Whole, {"name": "x", **options}, "router x")


def test_an_option_that_is_not_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^router x "):
        parse(Whole, {"name": "x", 3: 4}, "router x")  # type: ignore[dict-item]


def test_options_are_described_with_types_and_defaults() -> None:
    told = {option.name: (option.type, option.default) for option in describe(Whole)}
    assert told == {
        "parts": ("Mapping[str, Part]", "{}"),
        "spare": ("Part | None", "None"),
        "weight": ("Part | float", "1.0"),
        "name": ("str", None),
    }


class Opaque: ...


@dataclass(frozen=True)
class Unreadable:
    thing: Opaque


def test_a_config_whose_types_cannot_be_checked_is_the_plugin_s_fault() -> None:
    with pytest.raises(PluginError, match=r"^router x has a config whose types cannot be checked: "):
        parse(Unreadable, {"thing": 1}, "router x")

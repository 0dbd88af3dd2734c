from __future__ import annotations

import dataclasses
import sys
import warnings
from typing import Any

import pytest
from phasegate.registry.entries import Entry
from phasegate.registry.errors import PluginError
from phasegate.registry.plugins import Plugins
from phasegate.registry.registry import Registry


def load(*requests: str) -> Registry:
    return Plugins.load(requests).components()


def refusal(registry: Registry, kind: str, ref: str) -> str:
    with pytest.raises(PluginError) as caught:
        registry.get(kind, ref)
    return str(caught.value)


def test_a_component_is_found_by_its_bare_name_and_by_its_full_one(install_router: Any) -> None:
    install_router("phasegate-lego", version="1.2")
    registry = load("lego")
    entry = registry.get("router", "switch")
    assert registry.get("router", "phasegate-lego:switch") is entry
    assert registry.get("router", "Phasegate_Lego:switch") is entry
    assert (entry.ref, entry.dist, entry.version, entry.kind) == (
        "phasegate-lego:switch",
        "phasegate-lego",
        "1.2",
        "router",
    )


def test_two_providers_of_one_bare_name_are_an_error_where_it_is_used(install_router: Any) -> None:
    install_router("phasegate-one")
    install_router("phasegate-two")
    registry = load("one,two")
    expected = "2 plugins provide the router 'switch'. Write phasegate-one:switch or phasegate-two:switch."
    assert refusal(registry, "router", "switch") == expected
    assert registry.get("router", "phasegate-two:switch").dist == "phasegate-two"


def test_built_ins_have_no_precedence(install_router: Any) -> None:
    install_router("phasegate-lego", name="linear")
    expected = "2 plugins provide the router 'linear'. Write phasegate-lego:linear or phasegate:linear."
    assert refusal(load("lego"), "router", "linear") == expected


def test_an_unknown_component_is_named_with_the_nearest(install_router: Any) -> None:
    install_router("phasegate-lego")
    assert refusal(load("lego"), "router", "swich") == (
        "Unknown router 'swich'. Did you mean 'switch'? Available: linear, switch, torus."
        " A component of another package needs `--plugins <package>`."
    )


def test_a_component_of_a_plugin_that_is_not_loaded_is_unknown(install_router: Any) -> None:
    install_router("phasegate-lego")
    text = refusal(load(), "router", "phasegate-lego:switch")
    assert text.startswith("Unknown router 'phasegate-lego:switch'.")
    assert "pip install" not in text


def test_an_unknown_kind_is_named_with_the_nearest() -> None:
    assert refusal(load(), "ruoter", "linear").startswith(
        "There is no kind 'ruoter'. Did you mean 'router'? Kinds: anchor,"
    )


RENAMED = """
    from phasegate import RouterSpec, hookimpl

    @hookimpl
    def phasegate_components():
        yield RouterSpec(name="{name}", target="a:b", replaces=("old", "older"))
"""


def test_a_former_name_resolves_with_a_warning(install_plugin: Any) -> None:
    install_plugin("phasegate-lego", RENAMED.format(name="new"))
    registry = load("lego")
    for ref in ("older", "phasegate-lego:older"):
        with pytest.warns(FutureWarning, match=f"The router '{ref}' is now called 'phasegate-lego:new'."):
            assert registry.get("router", ref).name == "new"


def test_a_name_in_use_wins_over_a_former_one(install_plugin: Any) -> None:
    install_plugin("phasegate-one", RENAMED.format(name="new"))
    install_plugin("phasegate-two", RENAMED.format(name="old"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load("one,two").get("router", "old").ref == "phasegate-two:old"


def test_a_former_name_of_two_components_is_ambiguous(install_plugin: Any) -> None:
    install_plugin("phasegate-one", RENAMED.format(name="new"))
    install_plugin("phasegate-two", RENAMED.format(name="newer"))
    expected = "2 plugins provide the router 'old'. Write phasegate-one:new or phasegate-two:newer."
    assert refusal(load("one,two"), "router", "old") == expected


def test_a_registry_is_sorted_by_kind_then_by_full_name() -> None:
    keys = [(entry.kind, entry.dist, entry.name) for entry in load()]
    assert keys == sorted(keys)


def test_a_registry_and_its_entries_cannot_be_changed() -> None:
    registry = load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        registry.entries = ()  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        next(iter(registry)).dist = "other"  # type: ignore[misc]


def test_two_experiments_with_other_plugins_live_in_one_process(install_router: Any) -> None:
    install_router("phasegate-lego")
    with_lego, without = load("lego"), load()
    assert len(with_lego) == len(without) + 1
    assert "switch" not in {entry.name for entry in without}


def test_a_target_is_imported_only_when_it_is_used(install_router: Any) -> None:
    install_router("phasegate-lego")
    registry = load("lego")
    assert "phasegate_lego.routers" not in sys.modules
    target = registry.get("router", "switch").load()
    assert target is sys.modules["phasegate_lego.routers"].Switch


def offered(install_plugin: Any, target: str) -> Entry:
    source = "from phasegate import *\n@hookimpl\ndef phasegate_components():\n"
    spec = f"    yield RouterSpec(name='x', target='{target}', config='{target}')"
    files = {"good.py": "class Switch: ...\nNUMBER = 3", "bad.py": "import nowhere_at_all"}
    install_plugin("phasegate-lego", source + spec, files=files)
    return load("lego").get("router", "x")


def test_a_target_whose_module_does_not_import_says_why(install_plugin: Any) -> None:
    entry = offered(install_plugin, "phasegate_lego.bad:Switch")
    with pytest.raises(PluginError) as caught:
        entry.load()
    assert str(caught.value) == (
        "phasegate-lego:x points at 'phasegate_lego.bad:Switch', which does not import:"
        " ModuleNotFoundError: No module named 'nowhere_at_all'."
    )


def test_a_target_that_does_not_exist_is_named_with_the_nearest(install_plugin: Any) -> None:
    entry = offered(install_plugin, "phasegate_lego.good:Swtich")
    with pytest.raises(PluginError) as caught:
        entry.load()
    expected = "phasegate-lego:x points at 'phasegate_lego.good:Swtich', which does not exist. Did you mean 'Switch'?"
    assert str(caught.value) == expected


def test_a_target_that_cannot_be_called_is_refused(install_plugin: Any) -> None:
    with pytest.raises(PluginError, match="which cannot be called"):
        offered(install_plugin, "phasegate_lego.good:NUMBER").load()


def test_a_config_that_is_no_dataclass_is_refused(install_plugin: Any) -> None:
    with pytest.raises(PluginError, match="as its config, which is not a dataclass"):
        offered(install_plugin, "phasegate_lego.good:Switch").config_class()


def test_building_calls_the_target_with_its_config_and_the_context(install_router: Any) -> None:
    install_router("phasegate-lego")
    built = load("lego").build("router", "switch", {"experts": 4}, hidden=8)
    assert (built.config.experts, built.config.capacity, built.context) == (4, 1.25, {"hidden": 8})


BARE = """
    from phasegate import AnchorSpec, hookimpl

    class Anchor:
        def __init__(self, **context):
            self.context = context

    @hookimpl
    def phasegate_components():
        yield AnchorSpec(name="bare", target=Anchor)
"""


def test_building_a_component_without_options_passes_the_context_alone(install_plugin: Any) -> None:
    install_plugin("phasegate-lego", BARE)
    assert load("lego").build("anchor", "bare", {}, layer=3).context == {"layer": 3}

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from phasegate.registry.discovery import find
from phasegate.registry.errors import PluginError
from phasegate.registry.plugins import Plugins
from phasegate.registry.selection import select

BUILTIN = "phasegate:builtin"


def order(requests: list[str], require: list[str] | None = None) -> list[str]:
    return [plugin.name for plugin in select(find(), requests, require or [])]


def refusal(requests: list[str], require: list[str] | None = None) -> str:
    with pytest.raises(PluginError) as caught:
        select(find(), requests, require or [])
    return str(caught.value)


@pytest.fixture(autouse=True)
def three_plugins(install_plugin: Any) -> None:
    install_plugin("phasegate-lego")
    install_plugin("phasegate-refusal", version="2.1")
    install_plugin("acme-tools", entry="hammer")


@pytest.mark.parametrize("name", ["phasegate-lego", "lego", "phasegate-lego:lego"])
def test_a_plugin_is_named_by_distribution_by_entry_point_or_by_both(name: str) -> None:
    assert order([name]) == [BUILTIN, "phasegate-lego:lego"]


def test_requests_may_be_joined_by_commas_and_keep_their_first_place() -> None:
    assert order(["hammer, lego", "hammer"]) == [BUILTIN, "acme-tools:hammer", "phasegate-lego:lego"]


def test_no_removes_one_wherever_it_stands() -> None:
    assert order(["no:lego", "lego,hammer"]) == [BUILTIN, "acme-tools:hammer"]


def test_an_unknown_name_is_refused_with_the_environment_and_the_nearest() -> None:
    assert refusal(["lega"]) == (
        f"No plugin 'lega' is installed in {sys.prefix}. Did you mean 'lego'?"
        " Installed: acme-tools:hammer, phasegate-lego:lego, phasegate-refusal:refusal."
    )


def test_an_unknown_name_is_refused_after_no_too() -> None:
    assert refusal(["lego", "no:lega"]).startswith("No plugin 'lega' is installed")


def test_an_unknown_name_is_never_an_installation_hint() -> None:
    assert "pip install" not in refusal(["definitely-not-here"])


def test_nothing_is_loaded_from_the_working_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise RuntimeError('imported')")
    monkeypatch.chdir(tmp_path)
    assert refusal(["./evil.py"]).startswith("No plugin './evil.py' is installed")


def test_two_packages_with_one_entry_point_name_must_be_told_apart(install_plugin: Any) -> None:
    install_plugin("phasegate-one", entry="same")
    install_plugin("phasegate-two", entry="same")
    expected = "Two packages call a plugin 'same': phasegate-one:same, phasegate-two:same. Write one of these instead."
    assert refusal(["same"]) == expected
    assert order(["phasegate-two:same", "phasegate-one:same"])[1:] == ["phasegate-two:same", "phasegate-one:same"]


def test_a_package_named_like_an_entry_point_does_not_take_its_place(install_plugin: Any) -> None:
    install_plugin("lego", entry="other")
    assert refusal(["lego"]).startswith("Two packages call a plugin 'lego': lego:other, phasegate-lego:lego.")


def test_a_distribution_gives_all_its_entry_points(install_plugin: Any, plugin_site: Any) -> None:
    install_plugin("phasegate-pair")
    points = plugin_site / "phasegate_pair-1.0.dist-info" / "entry_points.txt"
    points.write_text("[phasegate.plugins.v1]\nleft = phasegate_pair.plugin\nright = phasegate_pair\n")
    assert order(["phasegate-pair"])[1:] == ["phasegate-pair:left", "phasegate-pair:right"]
    assert order(["phasegate-pair", "no:left"])[1:] == ["phasegate-pair:right"]


def test_the_built_ins_may_be_named_but_not_removed() -> None:
    assert order(["builtin", "phasegate"]) == [BUILTIN]
    expected = "phasegate:builtin is part of the platform and cannot be removed: drop 'no:builtin'."
    assert refusal(["no:builtin"]) == expected


def test_a_requirement_that_is_met_lets_the_run_start() -> None:
    assert order(["refusal"], ["phasegate-refusal>=2", "phasegate>=0.0.1"])[1:] == ["phasegate-refusal:refusal"]


def test_a_required_plugin_that_is_not_loaded_stops_the_run() -> None:
    expected = (
        "The experiment requires phasegate-refusal>=2, which is not loaded: add 'phasegate-refusal' to `plugins`."
    )
    assert refusal([], ["phasegate-refusal>=2"]) == expected


def test_a_required_plugin_cannot_be_dropped_from_the_command_line() -> None:
    text = refusal(["refusal", "no:refusal"], ["phasegate-refusal"])
    assert text.startswith("'no:refusal' would remove phasegate-refusal:refusal, which the experiment requires")


def test_a_required_version_that_is_not_installed_stops_the_run() -> None:
    text = refusal(["refusal"], ["phasegate-refusal>=3"])
    assert text.startswith("The experiment requires phasegate-refusal>=3, but phasegate-refusal:refusal is 2.1")


def test_a_required_plugin_that_is_not_installed_is_named_with_the_environment() -> None:
    text = refusal([], ["phasegate-refuse"])
    assert re.search(r"not installed in .*\. Did you mean 'phasegate-refusal'\?$", text)


@pytest.mark.parametrize(
    "text", ["phasegate-refusal>=", "a b", "x @ https://example.org/x.whl", "x; python_version>'3'"]
)
def test_an_unreadable_requirement_is_refused_not_ignored(text: str) -> None:
    assert refusal([], [text]).startswith("`require` ")


def test_a_prerelease_meets_a_requirement(install_plugin: Any) -> None:
    install_plugin("phasegate-dev", version="2.0.dev3")
    assert order(["dev"], ["phasegate-dev>=1"])[1:] == ["phasegate-dev:dev"]


def test_the_resolved_order_loads_the_same_plugins_again() -> None:
    first = Plugins.load(["hammer,lego"]).order
    assert Plugins.load(first).order == first

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from phasegate.registry.discovery import Found, find
from phasegate.registry.errors import PluginError
from phasegate.registry.plugins import Plugins

EXPLODES = "raise RuntimeError('imported')"


def found(name: str) -> Found:
    return next(plugin for plugin in find() if plugin.name == name)


def test_the_built_ins_are_found_through_their_own_entry_point() -> None:
    assert found("phasegate:builtin").builtin


def test_finding_imports_nothing_of_a_plugin(install_plugin: Any) -> None:
    install_plugin("phasegate-lego", EXPLODES)
    assert found("phasegate-lego:lego").version == "1.0"
    assert "phasegate_lego" not in sys.modules


def test_installing_is_not_enabling(install_plugin: Any) -> None:
    install_plugin("phasegate-lego", EXPLODES)
    assert Plugins.load().order == ("phasegate:builtin",)


@pytest.mark.parametrize("written", ["Phasegate_Lego", "phasegate.lego", "PHASEGATE-LEGO"])
def test_a_distribution_is_known_by_its_normalised_name(install_plugin: Any, written: str) -> None:
    install_plugin(written, entry="lego")
    assert found("phasegate-lego:lego")
    assert Plugins.load(["Phasegate.LEGO"]).order == ("phasegate:builtin", "phasegate-lego:lego")


def test_an_older_api_is_refused_by_name_without_an_import(install_plugin: Any) -> None:
    install_plugin("phasegate-old", EXPLODES, group="phasegate.plugins.v0")
    with pytest.raises(PluginError) as caught:
        Plugins.load(["old"])
    expected = "phasegate-old 1.0 speaks plugin API 0; this platform speaks 1. Upgrade the package."
    assert str(caught.value) == expected
    assert "phasegate_old" not in sys.modules


def test_a_newer_api_is_refused_and_asks_for_a_newer_platform(install_plugin: Any) -> None:
    install_plugin("phasegate-new", EXPLODES, group="phasegate.plugins.v2")
    with pytest.raises(PluginError, match=r"^phasegate-new 1.0 speaks plugin API 2; .* Upgrade phasegate\.$"):
        Plugins.load(["phasegate-new"])


def test_a_plugin_that_offers_two_majors_is_loaded_by_the_one_spoken_here(
    install_plugin: Any, plugin_site: Path
) -> None:
    install_plugin("phasegate-both")
    points = plugin_site / "phasegate_both-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"{points.read_text()}[phasegate.plugins.v2]\nboth = phasegate_both.other\n")
    assert found("phasegate-both:both").api == 1
    assert Plugins.load(["both"]).order[-1] == "phasegate-both:both"


def test_the_required_platform_version_is_checked_before_the_import(install_plugin: Any) -> None:
    install_plugin("phasegate-next", EXPLODES, requires=["phasegate>=99"])
    with pytest.raises(PluginError, match=r"^phasegate-next 1.0 needs phasegate>=99; this is phasegate \d"):
        Plugins.load(["next"])


def test_a_requirement_for_an_extra_or_another_platform_does_not_count(install_plugin: Any) -> None:
    install_plugin(
        "phasegate-lego", requires=["phasegate>=99; extra == 'dev'", "phasegate>=99; sys_platform == 'amiga'"]
    )
    assert found("phasegate-lego:lego").refusal is None


def test_a_distribution_that_lies_twice_on_the_path_counts_once(
    install_plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin("phasegate-lego", version="1.0")
    stale = tmp_path / "stale" / "phasegate_lego.egg-info"
    stale.mkdir(parents=True)
    (stale / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: phasegate-lego\nVersion: 0.1\n")
    (stale / "entry_points.txt").write_text("[phasegate.plugins.v1]\nlego = nowhere\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(stale.parent)])
    assert [plugin.version for plugin in find() if plugin.dist == "phasegate-lego"] == ["1.0"]


def test_an_entry_point_listed_twice_in_one_package_is_refused(install_plugin: Any, plugin_site: Path) -> None:
    install_plugin("phasegate-twice")
    points = plugin_site / "phasegate_twice-1.0.dist-info" / "entry_points.txt"
    points.write_text("[phasegate.plugins.v1]\ntwice = phasegate_twice.plugin\ntwice = phasegate_twice.other\n")
    with pytest.raises(PluginError, match=r"^phasegate-twice 1.0 lists the entry point 'twice' 2 times\."):
        Plugins.load(["twice"])


def test_the_remains_of_a_package_without_a_name_are_refused_and_stop_nothing_else(
    install_plugin: Any, plugin_site: Path
) -> None:
    install_plugin("phasegate-rest")
    (plugin_site / "phasegate_rest-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")
    assert found("unknown:rest").refusal == "does not say its name and version. Repair the package."
    assert Plugins.load().order == ("phasegate:builtin",)


def test_an_unreadable_requirement_is_refused(install_plugin: Any) -> None:
    install_plugin("phasegate-odd", requires=["phasegate=>1"])
    with pytest.raises(
        PluginError, match=r"^phasegate-odd 1.0 has a requirement that cannot be read: 'phasegate=>1'\."
    ):
        Plugins.load(["odd"])

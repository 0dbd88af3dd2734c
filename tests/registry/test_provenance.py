from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from phasegate.registry.errors import PluginError
from phasegate.registry.plugins import Plugins
from phasegate.registry.provenance import differences, refuse_drift


def manifest(*requests: str) -> dict[str, Any]:
    plugins = Plugins.load(requests)
    return plugins.provenance(entry for entry in plugins.components() if entry.dist == "phasegate-lego")


def code(*requests: str) -> str:
    return str(manifest(*requests)["dists"]["phasegate-lego"]["code"])


def test_a_manifest_names_order_versions_and_revisions_of_what_was_used(
    install_router: Any, install_plugin: Any
) -> None:
    install_router("phasegate-lego", version="1.2")
    install_plugin("phasegate-other")
    told = manifest("other,lego")
    assert told["api"] == 1
    assert told["order"] == ["phasegate:builtin", "phasegate-other:other", "phasegate-lego:lego"]
    assert {name: dist["version"] for name, dist in told["dists"].items()} == {
        "phasegate": told["dists"]["phasegate"]["version"],
        "phasegate-lego": "1.2",
        "phasegate-other": "1.0",
    }
    assert told["components"] == {"router/phasegate-lego:switch": 1}


def test_a_manifest_survives_json(install_router: Any) -> None:
    install_router("phasegate-lego")
    told = manifest("lego")
    assert json.loads(json.dumps(told)) == told


def test_a_wheel_is_hashed_from_what_pip_recorded(install_plugin: Any, plugin_site: Path) -> None:
    install_plugin("phasegate-lego", "X = 1")
    lines = []
    for name in ("phasegate_lego/__init__.py", "phasegate_lego/plugin.py"):
        raw = hashlib.sha256((plugin_site / name).read_bytes()).digest()
        lines.append(f"{name} sha256={base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}")
    assert code("lego") == f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def test_how_a_wheel_was_installed_does_not_change_its_hash(install_plugin: Any, plugin_site: Path) -> None:
    install_plugin("phasegate-lego", "X = 1")
    before = code("lego")
    record = plugin_site / "phasegate_lego-1.0.dist-info" / "RECORD"
    extra = "phasegate_lego-1.0.dist-info/INSTALLER,sha256=abc,4\n../../../bin/lego,sha256=def,9\n"
    record.write_text(extra + record.read_text())
    assert code("lego") == before


def test_a_wheel_with_other_code_under_one_version_has_another_hash(install_plugin: Any) -> None:
    install_plugin("phasegate-lego", "X = 1")
    before = code("lego")
    install_plugin("phasegate-lego", "X = 2")
    assert code("lego") != before


def test_an_edit_in_place_of_an_editable_install_is_seen(install_plugin: Any) -> None:
    package = install_plugin(
        "phasegate-lego", "X = 1", files={"deep/__init__.py": "", "deep/x.py": "Y = 1"}, editable=True
    )
    before = manifest("lego")
    assert before["dists"]["phasegate-lego"]["editable"] is True
    (package / "deep" / "x.py").write_text("Y = 2")
    (line,) = differences(before, manifest("lego"))
    assert line.startswith("phasegate-lego: 1.0 (editable, sha256:")


def test_folders_that_are_no_packages_are_not_code_of_an_editable_install(install_plugin: Any) -> None:
    package = install_plugin("phasegate-lego", editable=True)
    before = code("lego")
    (package / "tests").mkdir()
    (package / "tests" / "test_x.py").write_text("assert True")
    assert code("lego") == before


def test_a_package_that_only_a_component_names_is_hashed_too(install_router: Any, plugin_site: Path) -> None:
    helper = plugin_site / "lego_models"
    helper.mkdir()
    (helper / "__init__.py").write_text("X = 1")
    install_router("phasegate-lego", editable=True)
    plugin = plugin_site / "phasegate_lego" / "plugin.py"
    plugin.write_text(plugin.read_text().replace('phasegate_lego.routers:Switch"', 'lego_models:Switch"'))
    before = code("lego")
    (helper / "__init__.py").write_text("X = 2")
    assert code("lego") != before


def test_a_target_in_another_project_is_not_code_of_this_one(install_plugin: Any) -> None:
    source = (
        "from phasegate import *\n@hookimpl\ndef phasegate_components():\n    yield RouterSpec(name='x', target='{}:y')"
    )
    install_plugin("phasegate-lego", source.format("json"), editable=True)
    before = manifest("lego")["dists"]["phasegate-lego"]
    assert before["editable"]
    assert len(before["code"]) == len("sha256:") + 64


def test_without_a_record_the_sources_are_hashed(install_plugin: Any) -> None:
    package = install_plugin("phasegate-lego", "X = 1", record=False)
    before = manifest("lego")["dists"]["phasegate-lego"]
    (package / "plugin.py").write_text("X = 2")
    after = manifest("lego")["dists"]["phasegate-lego"]
    assert before["editable"] and before["code"] != after["code"]


OLD = {
    "api": 1,
    "order": ["phasegate:builtin", "phasegate-lego:lego"],
    "dists": {"phasegate-lego": {"version": "1.2.0", "editable": False, "code": "sha256:9f2c0123456789"}},
    "components": {"router/phasegate-lego:switch": 2},
}


def test_equal_manifests_do_not_differ() -> None:
    assert differences(OLD, json.loads(json.dumps(OLD))) == []


def test_differences_are_told_one_by_one() -> None:
    new = {
        "api": 1,
        "order": ["phasegate-lego:lego", "phasegate:builtin"],
        "dists": {
            "phasegate-lego": {"version": "1.3.0", "editable": False, "code": "sha256:04be0123456789"},
            "phasegate-new": {"version": "1", "editable": True, "code": "sha256:1"},
        },
        "components": {"router/phasegate-lego:switch": 3},
    }
    assert differences(OLD, new) == [
        "order: phasegate:builtin, phasegate-lego:lego -> phasegate-lego:lego, phasegate:builtin",
        "phasegate-lego: 1.2.0 (sha256:9f2c01234567…) -> 1.3.0 (sha256:04be01234567…)",
        "phasegate-new: absent -> 1 (editable, sha256:1…)",
        "router/phasegate-lego:switch: revision 2 -> revision 3",
    ]


def test_a_plugin_that_went_missing_is_a_difference() -> None:
    assert "phasegate-lego: 1.2.0 (sha256:9f2c01234567…) -> absent" in differences(OLD, {**OLD, "dists": {}})


def test_resuming_with_other_code_is_refused_with_the_difference() -> None:
    new = {**OLD, "components": {"router/phasegate-lego:switch": 3}}
    with pytest.raises(PluginError) as caught:
        refuse_drift(OLD, new, run="runs/nano/1")
    assert str(caught.value) == (
        "runs/nano/1 was made with other plugin code (router/phasegate-lego:switch: revision 2 -> revision 3):"
        " restore it, start a new run, or resume anyway with `--allow-plugin-drift`, which marks the run."
    )


def test_allowed_drift_is_returned_so_that_the_run_can_be_marked() -> None:
    new = {**OLD, "components": {}}
    assert refuse_drift(OLD, new, run="runs/nano/1", allow=True) == [
        "router/phasegate-lego:switch: revision 2 -> absent"
    ]
    assert refuse_drift(OLD, OLD, run="runs/nano/1") == []

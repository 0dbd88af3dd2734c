from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from phasegate.core.cli.citations import citations, docstring_of
from phasegate.core.cli.components import components_app
from phasegate.core.cli.plugins import plugins_app
from phasegate.registry.errors import PluginError
from phasegate.registry.plugins import Plugins
from typer.testing import CliRunner, Result

EXPLODES = "raise RuntimeError('imported')"


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.add_typer(plugins_app, name="plugins")
    app.add_typer(components_app, name="components")
    return CliRunner().invoke(app, list(arguments))


def printed(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exception is None, done.output
    return done.stdout


def lines(*arguments: str) -> list[list[str]]:
    return [line.split() for line in printed(*arguments).splitlines()]


@pytest.fixture
def three(install_plugin: Any, install_router: Any) -> None:
    install_router("phasegate-lego", version="1.2.0")
    install_plugin("phasegate-canary", EXPLODES)
    install_plugin("phasegate-old", EXPLODES, group="phasegate.plugins.v0")


def test_plugins_are_listed_as_loaded_available_or_refused_from_metadata_alone(three: None) -> None:
    told = {line[0]: line for line in lines("plugins")}
    assert told["phasegate:builtin"][2:4] == ["1", "loaded"]
    assert told["phasegate-canary:canary"][1:4] == ["1.0", "1", "available"]
    assert told["phasegate-lego:lego"][3:] == [
        "available",
        "not",
        "imported:",
        "add",
        "it",
        "with",
        "--plugins",
        "phasegate-lego:lego",
    ]
    assert told["phasegate-old:old"][2:7] == ["0", "refused", "speaks", "plugin", "API"]


def test_a_request_shows_the_effect_of_a_selection(three: None) -> None:
    told = {line[0]: line for line in lines("plugins", "-p", "lego")}
    assert told["phasegate-lego:lego"][3:] == ["loaded", "router", "1"]


def test_plugins_are_listed_as_json(three: None) -> None:
    told = {row["name"]: row for row in json.loads(printed("plugins", "--json", "--plugins", "lego"))}
    assert told["phasegate-lego:lego"]["components"] == ["router/switch"]
    assert told["phasegate-canary:canary"] == {
        "name": "phasegate-canary:canary",
        "version": "1.0",
        "api": 1,
        "status": "available",
        "reason": None,
        "components": None,
    }


def test_plugins_are_listed_although_the_built_ins_are_broken(three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phasegate.plugins.builtin", None)
    done = run("plugins")
    assert done.exit_code == 1
    told = {line.split()[0]: " ".join(line.split()[3:]) for line in done.stdout.splitlines()}
    assert told["phasegate:builtin"].startswith("refused phasegate:builtin ")
    assert told["phasegate-canary:canary"].startswith("available not imported:")
    assert told["phasegate-old:old"].startswith("refused speaks plugin API 0;")


def test_a_refused_plugin_is_listed_with_the_reason(install_plugin: Any) -> None:
    install_plugin("phasegate-new", EXPLODES, requires=["phasegate>=99"])
    install_plugin("phasegate-odd", EXPLODES, requires=["not a requirement"])
    told = {row["name"]: (row["status"], row["reason"]) for row in json.loads(printed("plugins", "--json"))}
    status, reason = told["phasegate-new:new"]
    assert status == "refused"
    assert reason.startswith("needs phasegate>=99; this is phasegate ")
    assert told["phasegate-odd:odd"] == (
        "refused",
        "has a requirement that cannot be read: 'not a requirement'. Repair the package.",
    )


@pytest.mark.parametrize(
    ("points", "name", "why"),
    [
        (
            b"[phasegate.plugins.v1]\nlego phasegate_lego\n",
            "unknown",
            "has a list of entry points that cannot be read (",
        ),
        (b"[console_scripts]\nlego = \xff\xfe\n", "unknown", "has a list of entry points that cannot be read (Unicode"),
        (
            b"[phasegate.plugins.v1]\nlego = not a module!\n",
            "lego",
            "names 'not a module!' as a plugin, which is no module.",
        ),
    ],
)
def test_a_package_with_broken_metadata_is_refused_and_does_not_hide_the_others(
    points: bytes, name: str, why: str, three: None, plugin_site: Path
) -> None:
    (info,) = plugin_site.glob("phasegate_lego-*.dist-info")
    (info / "entry_points.txt").write_bytes(points)
    told = {row["name"]: row for row in json.loads(printed("plugins", "--json"))}
    assert told[f"phasegate-lego:{name}"]["status"] == "refused"
    assert told[f"phasegate-lego:{name}"]["reason"].startswith(why)
    assert told["phasegate-canary:canary"]["status"] == "available"
    assert told["phasegate:builtin"]["status"] == "loaded"
    with pytest.raises(PluginError, match="Repair the package"):
        raise run("plugins", "-p", "phasegate-lego").exception or AssertionError


def test_asking_for_a_plugin_that_fails_is_an_error(three: None) -> None:
    with pytest.raises(PluginError, match=r"phasegate-canary:canary 1\.0 failed to import"):
        raise run("plugins", "-p", "canary").exception or AssertionError


def test_one_plugin_is_shown_with_its_origin_hooks_and_components(three: None) -> None:
    text = printed("plugins", "show", "phasegate-lego")
    assert text.startswith("phasegate-lego:lego 1.2.0\n")
    assert "module    phasegate_lego.plugin\n" in text
    assert "hooks     phasegate_components\n" in text
    assert "code      sha256:" in text
    assert ["router", "switch", "1"] in [line.split() for line in text.splitlines()]


def test_showing_one_plugin_imports_no_component(three: None) -> None:
    printed("plugins", "show", "lego")
    assert "phasegate_lego.plugin" in sys.modules
    assert "phasegate_lego.routers" not in sys.modules


def test_a_refused_plugin_is_shown_as_an_error(three: None) -> None:
    with pytest.raises(PluginError, match="speaks plugin API 0"):
        raise run("plugins", "show", "old").exception or AssertionError


def test_the_order_of_hooks_is_shown_for_every_hook(install_plugin: Any) -> None:
    source = "from phasegate import hookimpl\n@hookimpl(wrapper=True)\ndef phasegate_run_phase(ctx): return (yield)"
    install_plugin("phasegate-lego", source)
    told = lines("plugins", "hooks", "-p", "lego")
    assert ["phasegate_run_phase", "1", "phasegate-lego:lego", "wrapper"] in told
    assert ["phasegate_run_phase", "2", "phasegate:core", "asked", "to", "be", "last"] in told
    assert ["phasegate_on_gate", "–", "nobody"] in told


@pytest.mark.parametrize(
    "arguments", [("plugins", "-p", "lego", "hooks"), ("components", "--json", "show", "router/linear")]
)
def test_an_option_that_a_subcommand_would_not_see_is_refused(three: None, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert "options go after" in done.output


def test_components_are_listed_by_kind(three: None) -> None:
    told = lines("components", "--kind", "router", "-p", "lego")
    assert [line[:4] for line in told] == [
        ["KIND", "REF", "VERSION", "REVISION"],
        ["router", "phasegate:linear", told[1][2], "1"],
        ["router", "phasegate:torus", told[1][2], "1"],
        ["router", "phasegate-lego:switch", "1.2.0", "1"],
    ]


def test_components_are_listed_as_json() -> None:
    told = json.loads(printed("components", "--json"))
    assert [row["ref"] for row in told if row["kind"] == "loss"] == [
        "phasegate:anchor",
        "phasegate:balance",
        "phasegate:diversity",
        "phasegate:domain-entropy",
        "phasegate:domain-helpfulness",
        "phasegate:expert-delta",
        "phasegate:fold",
        "phasegate:harm-avoidance",
        "phasegate:imitation",
        "phasegate:load-variance",
        "phasegate:loss-free-bias",
        "phasegate:over-refusal",
        "phasegate:smooth",
        "phasegate:z",
    ]


def test_an_unknown_kind_is_an_error_with_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"There is no kind 'routers'\. Did you mean 'router'\?"):
        raise run("components", "--kind", "routers").exception or AssertionError


def test_one_component_is_shown_with_its_options_types_and_defaults(three: None) -> None:
    told = lines("components", "show", "router/switch", "-p", "lego")
    assert told[0] == ["router/phasegate-lego:switch", "1.2.0,", "revision", "1"]
    assert ["experts", "int", "must", "be", "given"] in told
    assert ["capacity", "float", "1.25"] in told


def test_one_component_is_shown_as_json(three: None) -> None:
    told = json.loads(printed("components", "show", "router/switch", "-p", "lego", "--json"))
    assert told["options"][:2] == [
        {"name": "experts", "type": "int", "default": None},
        {"name": "capacity", "type": "float", "default": "1.25"},
    ]


def test_a_built_in_is_shown_with_what_it_does_and_the_papers_it_follows() -> None:
    text = printed("components", "show", "router/torus")
    assert "phasegate.plugins.routers.torus:TorusRouter\n" in text
    assert "z = (W u + b) mod 1, W of shape (3, H)" in text
    assert "``spread`` is the standard deviation, per coordinate," in text
    assert ["jitter", "Annotated[float,", "Field(ge=0.0)]", "0.01"] in [line.split() for line in text.splitlines()]
    assert text.endswith("\nSources:\n  Chi 2022, https://arxiv.org/abs/2204.09179\n")


def test_the_papers_of_a_component_are_json_too() -> None:
    told = json.loads(printed("components", "show", "loss/z", "--json"))
    assert told["sources"] == [{"authors": "Zoph", "year": 2022, "arxiv": "2202.08906"}]
    assert told["documentation"].startswith("Mean over valid tokens and layers of logsumexp(logits)^2, in fp32.")


@pytest.mark.parametrize("key", ["router/torus", "source/microworld", "loss/z", "model/moe"])
def test_showing_a_component_does_not_import_torch(key: str) -> None:
    code = f"from phasegate.core.cli.components import components_app; components_app(['show', {key!r}])"
    check = "except SystemExit as end:\n    assert not end.code and not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\ntry:\n    {code}\n{check}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_built_in_says_what_it_does() -> None:
    silent = [entry.key for entry in Plugins.load().components() if not docstring_of(entry)]
    assert silent == []


@pytest.mark.parametrize(
    ("text", "papers"),
    [
        ("Fedus 2021, 2101.03961; over the global batch: Qiu 2025, 2501.11873.", ["Fedus 2021", "Qiu 2025"]),
        ("(router z-loss: Zoph 2022, ST-MoE, 2202.08906)", ["Zoph 2022"]),
        (
            "RMSNorm: Zhang & Sennrich 2019, 1910.07467; Mohtashami and Jaggi 2023",
            ["Zhang & Sennrich 2019", "Mohtashami and Jaggi 2023"],
        ),
        ("the codebook loss (van den Oord 2017, 1711.00937)", ["van den Oord 2017"]),
        ("Efron\n    1979), and Qiu 2025, then again Qiu 2025, 2501.11873", ["Efron 1979", "Qiu 2025"]),
        ("nothing of 1234.5678 and no 2024 either", []),
    ],
)
def test_papers_are_found_in_docstrings(text: str, papers: list[str]) -> None:
    found = [f"{paper.authors} {paper.year}" for paper in citations(text)]
    assert found == papers
    assert len(citations(text, text)) == len(found)


def test_a_paper_that_is_named_twice_keeps_its_number() -> None:
    (paper,) = citations("Qiu 2025 says so.", "Qiu 2025, 2501.11873")
    assert str(paper) == "Qiu 2025, https://arxiv.org/abs/2501.11873"


def test_a_component_must_be_named_with_its_kind() -> None:
    done = run("components", "show", "linear")
    assert done.exit_code == 2
    assert "write kind/name" in done.output


@pytest.mark.parametrize("name", ["plugins", "components"])
def test_the_listing_commands_import_no_torch(name: str) -> None:
    code = f"from phasegate.core.cli.{name} import {name}_app; {name}_app([], standalone_mode=False)"
    check = "import sys; assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "phasegate:" in done.stdout

"""What the page on compatibility promises, as far as a test can hold it."""

from __future__ import annotations

import inspect
import json
import re
import sys
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import phasegate
import pytest
from phasegate.core.cli.app import SUBCOMMANDS
from phasegate.registry import contexts, hookspecs
from phasegate.registry.components import KINDS
from phasegate.registry.errors import PluginError
from phasegate.registry.hookspecs import API, GROUP, HOOKS
from phasegate.registry.plugins import Plugins

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "compatibility.md").read_text(encoding="utf-8")
LIST = DOCS / "compatibility.json"
PROMISED: dict[str, Any] = json.loads(LIST.read_text(encoding="utf-8"))
CONTEXTS = {name: one for name, one in vars(contexts).items() if is_dataclass(one)}
CLASSES = CONTEXTS | {spec.__name__: spec for spec in KINDS.values()}


def today() -> dict[str, Any]:
    """What there is now, in the form of the list."""
    return {
        "api": API,
        "commands": sorted(SUBCOMMANDS),
        "components": sorted(f"{entry.kind}/{entry.name}" for entry in Plugins.load(()).components()),
        "fields": {name: [item.name for item in fields(one)] for name, one in sorted(CLASSES.items())},
        "hooks": {name: list(inspect.signature(getattr(hookspecs, name)).parameters) for name in HOOKS},
        "kinds": sorted(KINDS),
        "names": list(phasegate.__all__),
    }


def optional(item: Field[Any]) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


def test_the_api_and_its_group_are_those_of_the_list() -> None:
    assert PROMISED["api"] == API and f"phasegate.plugins.v{API}" == GROUP and GROUP in PAGE


@pytest.mark.parametrize("part", ["commands", "kinds", "names"])
def test_no_public_name_has_vanished(part: str) -> None:
    assert set(PROMISED[part]) - set(today()[part]) == set()


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in PROMISED["names"] if not hasattr(phasegate, name)] == []


@pytest.mark.parametrize("hook", PROMISED["hooks"])
def test_a_hook_keeps_its_parameters(hook: str) -> None:
    assert today()["hooks"][hook] == PROMISED["hooks"][hook]


@pytest.mark.parametrize("name", PROMISED["fields"])
def test_no_field_of_a_context_or_spec_has_vanished(name: str) -> None:
    assert set(PROMISED["fields"][name]) - set(today()["fields"][name]) == set()


@pytest.mark.parametrize("name", CLASSES)
def test_fields_are_keyword_only_and_what_is_added_to_a_spec_has_a_default(name: str) -> None:
    found = fields(CLASSES[name])
    assert all(item.kw_only for item in found) and CLASSES[name].__dataclass_params__.frozen
    added = [item for item in found if item.name not in PROMISED["fields"].get(name, ())]
    assert name in CONTEXTS or all(optional(item) for item in added)


@pytest.mark.parametrize("key", PROMISED["components"])
def test_a_built_in_component_still_answers_to_its_name(key: str, recwarn: pytest.WarningsRecorder) -> None:
    kind, _, name = key.partition("/")
    assert Plugins.load(()).components().get(kind, name)


def test_the_list_holds_all_that_there_is_to_hold() -> None:
    """Run ``python tests/registry/test_compatibility.py`` to add what is new."""
    assert today() == PROMISED


@pytest.mark.parametrize("api", [0, API + 1])
def test_a_plugin_of_another_api_is_refused_before_it_is_imported(api: int, install_plugin: Any) -> None:
    install_plugin("phasegate-other", "raise RuntimeError('imported')", group=f"phasegate.plugins.v{api}")
    with pytest.raises(PluginError, match=rf"speaks plugin API {api}; this platform speaks {API}"):
        Plugins.load(["phasegate-other"])


def test_a_plugin_that_needs_another_platform_is_refused_before_it_is_imported(install_plugin: Any) -> None:
    install_plugin("phasegate-late", "raise RuntimeError('imported')", requires=["phasegate>=99"])
    with pytest.raises(PluginError, match=r"phasegate>=99"):
        Plugins.load(["phasegate-late"])


def test_a_component_that_was_renamed_answers_to_its_former_name_with_a_warning(install_plugin: Any) -> None:
    source = """
        from phasegate import LossSpec, hookimpl

        @hookimpl
        def phasegate_components():
            yield LossSpec(name="after", target="json:loads", replaces=("before",))
    """
    install_plugin("phasegate-renamed", source)
    registry = Plugins.load(["phasegate-renamed"]).components()
    with pytest.warns(Warning, match="before"):
        assert registry.get("loss", "before").name == "after"


def test_the_formats_of_the_page_are_those_that_are_written() -> None:
    from phasegate.core.model import delta_file, packed, trit_file
    from phasegate.core.report import rendering
    from phasegate.core.run import benchmarks, records, store
    from phasegate.core.run.fingerprint import recipe_of
    from phasegate.core.study import storage
    from phasegate.core.training import checkpoint

    told = dict(re.findall(r"^\| ([^|]+?) \| (v?\d+) \|", PAGE, re.MULTILINE))
    assert told == {
        "hash of a recipe, and so the name of a stage": recipe_of({"phase": "x"}).digest.partition(":")[0],
        "stage in the store": str(store.FORMAT),
        "run folder": str(records.FORMAT),
        "study": str(storage.FORMAT),
        "checkpoint inside a step": str(checkpoint.FORMAT),
        "packed model": str(packed._FORMAT),
        "`.trit` and `.trd` files": str(trit_file._VERSION),
        "results of `platform eval`": str(benchmarks.FORMAT),
        "`platform report --format json`": str(rendering.FORMAT),
    }
    assert trit_file._VERSION == delta_file._VERSION


if __name__ == "__main__":
    LIST.write_text(json.dumps(today(), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{LIST} is written\n")

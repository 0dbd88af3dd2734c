from __future__ import annotations

import re
import subprocess
import sys

import pytest
from phasegate.registry.components import GateSpec, LossSpec, PhaseSpec
from phasegate.registry.entries import Entry
from phasegate.registry.errors import ConfigError
from phasegate.registry.options import describe
from phasegate.registry.plugins import Plugins
from phasegate.registry.registry import Registry

BUILTINS = tuple(Plugins.load().components())
NAMES = {
    "anchor": ["half-space"],
    "gate": [
        "ablation",
        "anchor",
        "benchmark",
        "calibration",
        "choice",
        "draft",
        "experts",
        "format",
        "judge",
        "logged",
        "needle",
        "perplexity",
        "plateau",
        "preference",
        "recurrence",
        "refusal",
        "routing",
        "torus",
    ],
    "loss": [
        "anchor",
        "balance",
        "diversity",
        "domain-entropy",
        "domain-helpfulness",
        "expert-delta",
        "fold",
        "harm-avoidance",
        "imitation",
        "load-variance",
        "loss-free-bias",
        "over-refusal",
        "smooth",
        "z",
    ],
    "mixer": ["attention", "pdr"],
    "model": ["moe", "stock"],
    "phase": [
        "alignment",
        "dense-seed",
        "expert-differentiation",
        "expert-initialization",
        "foundation",
        "manifold-alignment",
        "metacognition",
        "optimization",
        "safety",
        "specialization",
        "ternary-distillation",
    ],
    "quantizer": ["ternary"],
    "router": ["linear", "torus"],
    "search-space": ["orders", "paper-ablation", "parameters", "rows"],
    "source": ["files", "hub", "microworld"],
}

each = pytest.mark.parametrize("entry", BUILTINS, ids=lambda entry: entry.key)


@pytest.mark.parametrize("kind", NAMES)
def test_the_platform_ships_these_components(kind: str) -> None:
    assert [entry.name for entry in BUILTINS if entry.kind == kind] == NAMES[kind]


@each
def test_every_built_in_component_says_what_it_is(entry: Entry) -> None:
    assert entry.component.summary.endswith(".")


@each
def test_every_built_in_component_loads(entry: Entry) -> None:
    assert callable(entry.load())


@each
def test_every_option_of_a_built_in_component_has_a_default_or_is_documented(entry: Entry) -> None:
    config = entry.config_class()
    assert config is not None
    unexplained = [o.name for o in describe(config) if o.default is None and o.name not in (config.__doc__ or "")]
    assert unexplained == []


@each
def test_every_built_in_config_is_a_frozen_dataclass(entry: Entry) -> None:
    config = entry.config_class()
    assert config is not None
    assert config.__dataclass_params__.frozen  # type: ignore[attr-defined]


@each
def test_every_built_in_component_refuses_an_unknown_option(entry: Entry) -> None:
    with pytest.raises(ConfigError, match="has no option 'not-an-option'"):
        Registry(BUILTINS).config(entry.kind, entry.ref, {"not-an-option": 1})


def test_phases_state_what_they_need_and_give() -> None:
    told = {
        e.name: (e.component.requires, e.component.provides) for e in BUILTINS if isinstance(e.component, PhaseSpec)
    }
    assert told == {
        "foundation": ((), ("knowledge",)),
        "specialization": (("knowledge",), ("specialists",)),
        "alignment": (("knowledge",), ("dialogue",)),
        "safety": (("dialogue",), ("refusals",)),
        "metacognition": (("dialogue",), ("confidence",)),
        "optimization": (("dialogue",), ("long-context", "draft")),
        "dense-seed": ((), ("knowledge", "seed")),
        "expert-initialization": (("seed",), ("experts",)),
        "expert-differentiation": (("experts",), ("specialists",)),
        "ternary-distillation": (("experts",), ("ternary",)),
        "manifold-alignment": (("experts",), ("manifold",)),
    }


def test_every_kind_of_spec_carries_its_kind() -> None:
    assert {entry.kind for entry in BUILTINS if isinstance(entry.component, LossSpec)} == {"loss"}


HEAVY = "{'torch', 'transformers', 'datasets', 'trl', 'lm_eval', 'numpy'}"


@pytest.mark.parametrize(
    "code",
    [
        "import phasegate",
        "from phasegate.registry.plugins import Plugins; assert len(Plugins.load().components()) > 20",
        "from phasegate.registry.current import current; current().get('router', 'linear')",
        "from phasegate.registry.plugins import Plugins; p = Plugins.load(); p.provenance(p.components())",
    ],
)
def test_listing_imports_nothing_heavy(code: str) -> None:
    check = f"import sys; heavy = {HEAVY} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_face_for_authors_does_not_even_read_metadata() -> None:
    code = "import sys; had = set(sys.modules); import phasegate; new = set(sys.modules) - had"
    check = "slow = {'importlib.metadata', 'packaging', 'pydantic', 'typer'} & new; assert not slow, slow"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


METRICS = re.compile(r"``([a-z_0-9]+(?:/<\w+>)?)``")


@pytest.mark.parametrize("entry", [entry for entry in BUILTINS if entry.kind == "gate"], ids=lambda entry: entry.name)
def test_the_metrics_that_a_gate_announces_are_those_it_documents(entry: Entry) -> None:
    assert isinstance(entry.component, GateSpec)
    _, _, text = (entry.load().__doc__ or "").partition("Metrics:")
    documented = {re.sub(r"<\w+>", "*", name) for name in METRICS.findall(text)}
    assert set(entry.component.metrics) <= documented

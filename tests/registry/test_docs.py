from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from phasegate.registry import components, hookspecs
from phasegate.registry.components import KINDS
from phasegate.registry.hookspecs import GROUP, HOOKS
from phasegate.registry.plugins import Plugins

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")


def block(path: str) -> str:
    (found,) = re.findall(rf"```\w+\n# {re.escape(path)}\n(.*?)```", TEXT, flags=re.DOTALL)
    return str(found)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_its_signature(hook: str) -> None:
    assert f"| `{hook}({', '.join(HOOKS[hook])})` |" in TEXT


@pytest.mark.parametrize("hook", [name for name in HOOKS if name != "phasegate_components"])
def test_every_hook_is_documented_with_its_context(hook: str) -> None:
    context = inspect.signature(getattr(hookspecs, hook)).parameters["ctx"].annotation
    assert f"| `{hook}(ctx)` | `{context}` |" in TEXT


def test_every_kind_and_every_common_field_is_documented() -> None:
    assert [spec.__name__ for spec in KINDS.values() if f"`{spec.__name__}`" not in TEXT] == []
    assert [name for name in vars(components.Component)["__slots__"] if f"| `{name}` |" not in TEXT] == []


@pytest.fixture
def lego(install_plugin: Any) -> Plugins:
    losses = block("src/phasegate_lego/losses.py")
    install_plugin("phasegate-lego", block("src/phasegate_lego/plugin.py"), files={"losses.py": losses})
    return Plugins.load(["phasegate-lego"], ["phasegate-lego>=1"])


def test_the_plugin_of_the_page_is_declared_as_the_platform_looks_for_it() -> None:
    project = tomllib.loads(block("pyproject.toml"))["project"]
    assert project["entry-points"] == {GROUP: {"lego": "phasegate_lego.plugin"}}


def test_the_plugin_of_the_page_loads_and_wraps(lego: Plugins) -> None:
    assert [call.owner for call in lego.calls("phasegate_run_phase") if call.wrapper] == ["phasegate-lego:lego"]


def test_the_experiment_of_the_page_asks_for_it_by_names_that_resolve(lego: Plugins) -> None:
    experiment = yaml.safe_load(block("my-experiment.yaml"))
    (loss,) = experiment["phases"]["foundation"]["steps"]["main"]["losses"].values()
    assert Plugins.load(experiment["plugins"], experiment["require"]).order == lego.order
    assert lego.components().config("loss", loss["use"], loss["options"]).floor == 1.5


def test_the_loss_of_the_page_is_the_missing_entropy(lego: Plugins) -> None:
    import torch
    from phasegate.core.training.terms import LossContext, RouterRecord

    # Over 4 equal logits the entropy is ln 4 = 1.3863 nats, so a floor of 1.5 lacks 0.1137.
    nothing = torch.zeros(2, 1)
    record = RouterRecord(
        name="r", layer=0, module=torch.nn.Identity(), logits=torch.zeros(2, 4), weights=nothing, index=nothing.long()
    )
    context = LossContext(
        model=torch.nn.Identity(),
        records=[record],
        mask=torch.tensor([True, False]),
        domain=torch.zeros(2, dtype=torch.int64),
        domains=("general",),
        step=0,
        progress=0.0,
    )
    loss = lego.components().build("loss", "undecided", {"floor": 1.5}, setup=None)
    assert float(loss(context)) == pytest.approx(0.1137, abs=1e-4)

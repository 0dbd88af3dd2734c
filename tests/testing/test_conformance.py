"""The decorator: one test per component and check, with ids, examples and marks that must fit something."""

from __future__ import annotations

from typing import Any

import pytest
from phasegate.registry.errors import PluginError
from phasegate.testing import Example, conformance
from phasegate.testing.checks import checks_of, entries_of, functions_of

LEGO = """
    from phasegate import RouterSpec, QuantizerSpec, hookimpl

    @hookimpl
    def phasegate_components():
        yield RouterSpec(name="switch", target="phasegate_lego.parts:Switch", summary="One expert per token.")
        yield QuantizerSpec(name="none", target="phasegate_lego.parts:Nothing", summary="Quantizes nothing.")
"""
PARTS = """
    import torch
    from phasegate.core.model.router import RouterBase
    from torch import nn
    from transformers import initialization as init

    class Switch(RouterBase):
        '''A linear router.'''

        def __init__(self, *, context):
            super().__init__(context)
            self.weight = nn.Parameter(torch.empty(self.num_experts, self.hidden_size))

        def scores(self, hidden):
            return nn.functional.linear(hidden, self.weight)

        def init_weights(self, std):
            init.normal_(self.weight, std=std)

    class Nothing:
        '''It does nothing.'''
"""


@pytest.fixture
def lego(install_plugin: Any) -> None:
    install_plugin("phasegate-lego", LEGO, files={"parts.py": PARTS})


def parameters(mark: Any) -> dict[str, Any]:
    return {parameter.id: parameter for parameter in mark.args[1]}


def test_there_is_one_test_per_component_and_check(lego: None) -> None:
    found = parameters(conformance("phasegate-lego"))
    assert {"router/switch-shapes", "router/switch-padding", "quantizer/none-idempotent", "router/switch-loads"} <= {
        *found
    }
    assert len(found) == len(functions_of("router")) + len(functions_of("quantizer"))


def test_a_sound_router_of_another_package_passes_them_all(lego: None) -> None:
    for name, parameter in parameters(conformance("phasegate-lego")).items():
        if name.startswith("router/"):
            entry, check = parameter.values
            try:
                check(entry)
            except pytest.skip.Exception:
                assert name.rpartition("switch-")[2] in {"options", "unknown-option", "capacity"}, name


def test_a_check_that_does_not_apply_is_skipped_with_its_reason(lego: None) -> None:
    entry, check = parameters(conformance("phasegate-lego"))["router/switch-capacity"].values
    with pytest.raises(pytest.skip.Exception, match="no method capacity"):
        check(entry)


def test_a_mark_fits_by_pattern(lego: None) -> None:
    xfail = pytest.mark.xfail(reason="it looks at the batch")
    found = parameters(conformance("lego", marks={"router/*-padding": xfail}))
    assert [name for name, parameter in found.items() if parameter.marks] == ["router/switch-padding"]


def test_a_mark_or_an_example_that_fits_nothing_is_refused(lego: None) -> None:
    with pytest.raises(PluginError, match=r"'router/switch-paddin', .* Did you mean 'router/switch-padding'\?"):
        conformance("lego", marks={"router/switch-paddin": pytest.mark.slow})
    with pytest.raises(PluginError, match=r"'router/swich', .* Did you mean 'router/switch'\?"):
        conformance("lego", examples={"router/swich": {}})


def test_a_plugin_that_is_not_installed_is_named() -> None:
    with pytest.raises(PluginError, match="No plugin 'phasegate-nowhere' is installed"):
        conformance("phasegate-nowhere")


def test_a_plugin_without_components_has_nothing_to_check(install_plugin: Any) -> None:
    install_plugin("phasegate-hooks", "")
    with pytest.raises(PluginError, match="phasegate-hooks offers no component"):
        entries_of("phasegate-hooks")


def test_every_check_promises_something_in_one_line() -> None:
    for entry in entries_of("phasegate"):
        for check in checks_of(entry, Example()):
            assert check.promise.endswith("."), check.name
            assert 20 < len(check.promise) < 120, check.name

from __future__ import annotations

from typing import Any

import pytest
from phasegate.registry.current import current, using
from phasegate.registry.plugins import Plugins


def test_outside_of_a_run_the_built_ins_are_current_and_loaded_once() -> None:
    assert {entry.dist for entry in current()} == {"phasegate"}
    assert current() is current()


def test_inside_a_run_its_registry_is_current_and_gone_afterwards(install_router: Any) -> None:
    install_router("phasegate-lego")
    registry = Plugins.load(["lego"]).components()
    outside = current()
    with using(registry) as given:
        assert given is registry
        assert current() is registry
        with using(outside):
            assert current() is outside
        assert current() is registry
    assert current() is outside


def test_a_failing_run_gives_its_registry_up_too() -> None:
    outside, registry = current(), Plugins.load().components()
    with pytest.raises(KeyError), using(registry):
        raise KeyError
    assert current() is outside

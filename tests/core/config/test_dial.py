"""What follows from the size."""

from __future__ import annotations

import pytest
from phasegate import ConfigError
from phasegate.core.config.dial import WIDTHS, derive


def test_nano_has_the_measured_sizes() -> None:
    assert dict(derive("nano").values) == {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "head_dim": 16,
        "moe_intermediate_size": 64,
        "num_experts": 9,
        "num_experts_per_tok": 1,
        "vocab_size": 1536,
        "sequence_length": 64,
        "rows": 16,
        "learning_rate": 4e-3,
        "initializer_range": 0.06,
    }


def test_small_is_six_layers_of_width_256_with_the_lab_learning_rate() -> None:
    values = derive("small").values
    assert (values["hidden_size"], values["num_hidden_layers"], values["learning_rate"]) == (256, 6, 1e-3)


@pytest.mark.parametrize("name", WIDTHS)
def test_a_named_size_is_its_width(name: str) -> None:
    assert derive(name).values == derive(str(WIDTHS[name])).values


def test_every_value_has_a_reason_in_words() -> None:
    derived = derive("384")
    assert derived.reasons.keys() == derived.values.keys()
    assert all(len(reason) > 3 for reason in derived.reasons.values())


@pytest.mark.parametrize(
    "name",
    ["hidden_size", "num_hidden_layers", "head_dim", "vocab_size", "sequence_length", "rows", "moe_intermediate_size"],
)
def test_sizes_never_fall_when_the_width_grows(name: str) -> None:
    values = [derive(str(width)).values[name] for width in _widths()]
    assert values == sorted(values)


@pytest.mark.parametrize("name", ["learning_rate", "initializer_range"])
def test_rates_never_rise_when_the_width_grows(name: str) -> None:
    values = [derive(str(width)).values[name] for width in _widths()]
    assert values == sorted(values, reverse=True)


def test_heads_divide_every_width() -> None:
    for width in _widths():
        values = derive(str(width)).values
        assert values["num_attention_heads"] * values["head_dim"] == width


@pytest.mark.parametrize("size", ["0", "-64", "64.0", "６４", "nano ", "", "9" * 400, "16", "8320", "136"])
def test_a_size_outside_the_dial_is_a_config_error(size: str) -> None:
    with pytest.raises(ConfigError):
        derive(size)


def _widths() -> list[int]:
    return [*range(32, 128, 16), *range(128, 512, 32), *range(512, 2048, 64), *range(2048, 8193, 128)]

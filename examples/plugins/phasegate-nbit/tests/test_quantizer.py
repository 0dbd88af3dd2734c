"""The quantizer: values by hand, and what must hold for any weights."""

from __future__ import annotations

import pytest
import torch
from phasegate import ConfigError
from phasegate.registry.plugins import Plugins

from phasegate_nbit.options import NBitConfig
from phasegate_nbit.quantizer import NBit


def draw(scale: float, *shape: int) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_row_becomes_whole_numbers_of_its_largest_weight() -> None:
    weight = torch.tensor([[[1.0, -0.5, 0.25, 0.0]]])
    codes = NBit(NBitConfig(bits=3)).encode(weight)
    scale = torch.tensor(1 / 3).half()  # 3 steps on each side; 0.33325 in fp16
    assert codes.trits.tolist() == [[[3, -2, 1, 0]]] and codes.scales.tolist() == [[scale.item()]]
    expected = [0.999755859375, -0.66650390625, 0.333251953125, 0.0]
    assert NBit(NBitConfig(bits=3)).quantize(weight).tolist() == [[expected]]


def test_a_matrix_shares_the_scale_that_rows_would_have_apart() -> None:
    weight = torch.tensor([[[1.27, 0.0], [0.02, -0.01]], [[0.0, 0.0], [0.5, 2.54]]])
    rows, matrices = (NBit(NBitConfig(scale=scale)).encode(weight) for scale in ("row", "matrix"))
    assert rows.scales.shape == (2, 2) and matrices.scales.shape == (2, 1)
    assert rows.trits[0].tolist() == [[127, 0], [127, -64]]
    assert matrices.trits.tolist() == [[[127, 0], [2, -1]], [[0, 0], [25, 127]]]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("scale", ["row", "matrix"])
@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.0078, 0.02, 1.0, 300.0, 1e6])
def test_quantizing_twice_changes_nothing_and_codes_say_the_same(bits: int, scale: str, size: float) -> None:
    quantizer = NBit(NBitConfig(bits=bits, scale=scale))  # type: ignore[arg-type]
    weight = draw(size, 3, 16, 33)
    once = quantizer.quantize(weight)
    assert torch.equal(quantizer.quantize(once), once)
    codes = quantizer.encode(weight)
    assert torch.equal(codes.decode(), once)
    assert codes.trits.dtype == torch.int8 and int(codes.trits.abs().max()) <= 2 ** (bits - 1) - 1


def test_rounding_loses_what_steps_of_that_size_lose() -> None:
    weight = draw(0.02, 2, 64, 256)
    errors = [
        float((weight - NBit(NBitConfig(bits=bits)).quantize(weight)).square().sum() / weight.square().sum())
        for bits in (4, 6, 8)
    ]
    # Rounding to steps of s = max|W| / Q is off by s^2 / 12 in the mean square.
    expected = float((weight.abs().amax(-1) / 127).square().mean() / 12 / weight.square().mean())
    assert errors[2] == pytest.approx(expected, rel=0.05)
    assert errors[0] / errors[1] == pytest.approx((31 / 7) ** 2, rel=0.1)


def test_small_rows_keep_steps_of_the_smallest_normal_number_and_zeros_stay_zeros() -> None:
    weight = torch.tensor([[[2.0**-14, 2.0**-16, 0.0], [0.0, 0.0, 0.0]]])
    assert NBit(NBitConfig()).quantize(weight).tolist() == [[[2.0**-14, 0.0, 0.0], [0.0, 0.0, 0.0]]]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_row_with_a_number_that_is_none_is_none_and_others_are_as_before(number: float) -> None:
    weight = draw(0.1, 1, 3, 8)
    wanted = NBit(NBitConfig()).quantize(weight)
    weight[0, 1, 4] = number
    found = NBit(NBitConfig()).quantize(weight)
    assert bool(found[0, 1].isnan().all())
    assert torch.equal(found[0, [0, 2]], wanted[0, [0, 2]])


@pytest.mark.parametrize("options", [{"bits": 1}, {"bits": 9}, {"scale": "tensor"}, {"width": 4}])
def test_options_that_it_cannot_have_are_refused_by_name(options: dict[str, object]) -> None:
    components = Plugins.load(["phasegate-nbit"]).components()
    with pytest.raises(ConfigError, match=next(iter(options))):
        components.config("quantizer", "nbit", options)

"""The ternary quantizer."""

from __future__ import annotations

import pytest
import torch
from phasegate.plugins.quantizers.options import TernaryConfig
from phasegate.plugins.quantizers.ternary import Ternary

SHAPE = (2, 256, 2048)
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def draw(kind: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "gaussian":
        return torch.randn(shape, generator=generator)
    uniform = 2.0 * torch.rand(shape, generator=generator) - 1.0
    if kind == "laplace":
        return -uniform.sign() * torch.log1p(-uniform.abs())
    return uniform


def ternary(threshold: float = 0.7, scale: str = "row") -> Ternary:
    return Ternary(TernaryConfig(threshold=threshold, scale=scale))


def zeros(weight: torch.Tensor, threshold: float = 0.7) -> float:
    return float((ternary(threshold).quantize(weight) == 0).float().mean())


@pytest.mark.parametrize(("kind", "share"), [("gaussian", 0.423), ("laplace", 0.503), ("uniform", 0.350)])
def test_the_share_of_zeros_depends_on_the_distribution(kind: str, share: float) -> None:
    assert zeros(draw(kind)) == pytest.approx(share, abs=2e-3)


def test_a_threshold_at_the_mean_makes_more_than_half_of_gaussian_weights_zero() -> None:
    assert zeros(draw("gaussian"), threshold=1.0) == pytest.approx(0.575, abs=2e-3)


def test_a_gaussian_matrix_loses_a_fifth_of_its_square() -> None:
    weight = draw("gaussian")
    lost = (weight - ternary().quantize(weight)).square().sum() / weight.square().sum()
    assert float(lost) == pytest.approx(0.19, abs=2e-3)


def test_codes_without_their_scale_make_the_output_38_times_too_large() -> None:
    weight = 0.02 * draw("gaussian")
    hidden = draw("gaussian", (2048, 8), seed=1)
    codes = ternary().encode(weight)
    wanted = (weight @ hidden).norm()
    assert float((codes.trits.float() @ hidden).norm() / wanted) == pytest.approx(37.7, rel=0.02)
    assert float((codes.decode() @ hidden).norm() / wanted) == pytest.approx(0.9, abs=0.01)  # 1 - 0.19, under the root


def test_a_row_by_hand() -> None:
    # mean |W| = 0.5, tau = 0.35, s = (0.5 + 0.75 + 0.5) / 3 = 7 / 12
    weight = torch.tensor([[[0.5, -0.75, 0.25, 0.5]]])
    codes = ternary().encode(weight)
    assert codes.trits.tolist() == [[[1, -1, 0, 1]]]
    assert codes.trits.dtype == torch.int8
    assert codes.scales.dtype == torch.float16
    assert codes.scales.tolist() == [[float(torch.tensor(7 / 12).half())]]


def test_one_scale_per_matrix_is_never_over_experts() -> None:
    weight = torch.tensor([[[1.0, -1.0], [0.25, 1.0]], [[0.001, -0.001], [0.00025, 0.001]]])
    codes = ternary(scale="tensor").encode(weight)
    assert codes.scales.shape == (2, 1)
    assert codes.trits.tolist() == [[[1, -1], [0, 1]]] * 2
    torch.testing.assert_close(codes.scales[:, 0].float(), torch.tensor([1.0, 0.001]), rtol=5e-4, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", ["row", "tensor"])
def test_the_forward_pass_uses_the_packed_weights_bit_for_bit(dtype: torch.dtype, scale: str) -> None:
    weight = (0.02 * draw("gaussian", (3, 32, 48))).to(dtype)
    weight[0, 1] = 0.0
    used, packed = ternary(scale=scale).quantize(weight), ternary(scale=scale).encode(weight).decode(dtype)
    assert used.dtype == dtype
    assert torch.equal(used.view(BITS[dtype]), packed.view(BITS[dtype]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", ["row", "tensor"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 1.0])
def test_quantizing_what_was_quantized_changes_nothing(threshold: float, scale: str, dtype: torch.dtype) -> None:
    quantizer = ternary(threshold, scale)
    for size in (1e-9, 1e-7, 1e-5, 3e-4, 0.02, 1.0, 1e4, 1e6):
        weight = (size * draw("gaussian", (3, 40, 333))).to(dtype)
        once = quantizer.quantize(weight)
        assert torch.equal(quantizer.quantize(once), once), size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [0.1, 1 / 3, 0.7])
def test_a_row_of_equal_magnitudes_is_ternary_already(size: float, dtype: torch.dtype) -> None:
    # Rounding 0.1 to fp16 moves it; what was moved stays.
    weight = torch.full((1, 3, 100_001), size, dtype=dtype)
    weight[:, 1] = -size
    for threshold in (0.7, 1.0):
        once = ternary(threshold).quantize(weight)
        torch.testing.assert_close(once, weight, rtol=1e-3, atol=0.0)
        assert torch.equal(ternary(threshold).quantize(once), once)


@pytest.mark.parametrize("scale", ["row", "tensor"])
def test_zeros_stay_zeros(scale: str) -> None:
    codes = ternary(scale=scale).encode(torch.zeros(2, 3, 4))
    assert not codes.trits.any()
    assert torch.equal(codes.decode(), torch.zeros(2, 3, 4))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_row_that_diverged_shows(value: float) -> None:
    weight = torch.ones(1, 2, 3)
    weight[0, 0, 1] = value
    quantized = ternary().quantize(weight)
    assert quantized[0, 0].isnan().all()
    assert quantized[0, 1].tolist() == [1.0, 1.0, 1.0]


def test_quantizing_leaves_the_weights_alone_and_has_no_gradient() -> None:
    weight = draw("gaussian", (2, 3, 4)).requires_grad_()
    before = weight.detach().clone()
    quantized = ternary().quantize(weight)
    assert not quantized.requires_grad
    assert torch.equal(weight, before)

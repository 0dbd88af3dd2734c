"""The half-space: a direction that tells prompts apart, a threshold with a promise, a penalty that notices."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from typing import Any

import pytest
import torch
from phasegate.core.model.anchors import Material
from phasegate.core.model.states import final_states
from phasegate.plugins.anchors.half_space import HalfSpace
from phasegate.plugins.anchors.options import HalfSpaceConfig
from phasegate.registry.errors import ConfigError, DataError
from phasegate.registry.plugins import Plugins
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

BAD, GOOD = 7, 8  # the last words of harmful and of benign prompts


@pytest.fixture
def model() -> Qwen3MoeForCausalLM:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=48,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        moe_intermediate_size=8,
        intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        initializer_range=0.2,
    )
    return Qwen3MoeForCausalLM(config).eval()


def material(model: Any, rows: int = 120, *, told_apart: bool = True, **changes: Any) -> Material:
    """Harmful and benign prompts in turn; the second half is for calibration."""
    stream = torch.Generator().manual_seed(0)
    prompts = []
    for number in range(rows):
        words = torch.randint(10, 48, (int(torch.randint(2, 7, (1,), generator=stream)),), generator=stream).tolist()
        last = (BAD if number % 2 else GOOD) if told_apart else GOOD
        prompts.append([*words, last])
    with torch.no_grad():
        hidden = final_states(model, prompts, 16)
    settings: dict[str, Any] = {
        "prompts": prompts,
        "hidden": hidden,
        "harmful": torch.arange(rows) % 2 == 1,
        "calibration": torch.arange(rows) >= rows // 2,
        "kinds": ["harmful" if number % 2 else "benign" for number in range(rows)],
        "false_positives": 0.05,
        "seed": 0,
        "batch": 16,
    }
    return Material(**(settings | changes))


@pytest.fixture
def captured(model: Any) -> HalfSpace:
    anchor = HalfSpace(HalfSpaceConfig(references=6, batch=4))
    anchor.capture(model, material(model))
    return anchor


def value(anchor: HalfSpace, model: Any, turn: int | None = None) -> float:
    return float(anchor.penalty(model, turn).detach())


def direction(anchor: HalfSpace) -> torch.Tensor:
    return anchor.save()[1]["direction"]


def test_the_normal_has_length_one_and_points_to_harm(model: Any, captured: HalfSpace) -> None:
    data = material(model)
    scores = captured.score(data.hidden)
    assert float(direction(captured).norm()) == pytest.approx(1.0, abs=1e-6)
    assert scores[data.harmful].mean() > scores[~data.harmful].mean()
    assert float((scores[data.harmful] > 0).float().mean()) > 0.9


def test_the_score_is_the_distance_from_the_facet(captured: HalfSpace) -> None:
    normal, offset = direction(captured), captured.save()[1]["offset"]
    on_it = normal * float(offset)
    assert captured.score(torch.stack([on_it, on_it + 0.25 * normal])).tolist() == pytest.approx([0, 0.25], abs=1e-5)
    assert captured.score(torch.zeros(2, 3, 16)).shape == (2, 3)


def test_the_threshold_keeps_benign_calibration_prompts_below(model: Any) -> None:
    data = material(model)
    anchor = HalfSpace()
    anchor.capture(model, data)
    benign = data.calibration & ~data.harmful
    # 30 of them at a share of 0.05: ceil(31 x 0.95) = the 30th, so none is beyond.
    assert float(anchor.score(data.hidden[benign]).max()) <= 1e-5


def test_a_prompt_that_the_direction_was_learnt_from_does_not_move_the_threshold(model: Any) -> None:
    data = material(model)
    offsets = []
    for harmful in (data.harmful, data.harmful & data.calibration):
        anchor = HalfSpace()
        anchor._fit = lambda *_: torch.eye(16)[0]  # type: ignore[method-assign]
        anchor.capture(model, material(model, harmful=harmful))
        offsets.append(anchor.save()[1]["offset"])
    assert torch.equal(*offsets)


def test_calibration_prompts_do_not_move_the_direction(model: Any) -> None:
    data = material(model)
    hidden = data.hidden.clone()
    hidden[data.calibration] = torch.randn(int(data.calibration.sum()), 16, generator=torch.Generator().manual_seed(1))
    first, second = HalfSpace(), HalfSpace()
    first.capture(model, data)
    second.capture(model, material(model, hidden=hidden))
    assert torch.equal(direction(first), direction(second))


def test_too_few_benign_prompts_are_an_error(model: Any) -> None:
    with pytest.raises(DataError, match=r"30 benign calibration prompts cannot promise .* 1\.00% are vetoed; 99 can"):
        HalfSpace().capture(model, material(model, false_positives=0.01))


def test_states_that_are_all_alike_are_an_error(model: Any) -> None:
    with pytest.raises(DataError, match="found no direction"):
        HalfSpace().capture(model, material(model, hidden=torch.ones(120, 16)))


def test_capturing_twice_gives_the_same_bits(model: Any) -> None:
    saved = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # it draws from no global stream
        anchor = HalfSpace()
        anchor.capture(model, material(model))
        saved.append(anchor.save())
    assert saved[0][0] == saved[1][0]
    assert all(torch.equal(saved[0][1][name], saved[1][1][name]) for name in saved[0][1])


def test_the_penalty_is_exactly_zero_at_capture(model: Any, captured: HalfSpace) -> None:
    assert value(captured, model) == 0.0
    assert [value(captured, model, turn) for turn in range(4)] == [0.0] * 4
    model.train()
    assert value(captured, model) == 0.0


def test_the_penalty_is_zero_for_the_model_that_was_saved(model: Any, captured: HalfSpace) -> None:
    again = HalfSpace(HalfSpaceConfig(references=6, batch=4))
    again.restore(*captured.save())
    assert value(again, model) == 0.0


def weaken(model: Any, anchor: HalfSpace, share: float) -> None:
    """Take a share of what the final norm lets through along the anchor's normal."""
    with torch.no_grad():
        normal = direction(anchor).abs() / direction(anchor).abs().max()
        model.model.norm.weight.mul_(1 - share * normal)


def test_the_penalty_grows_as_the_model_is_weakened(model: Any, captured: HalfSpace) -> None:
    found = [value(captured, model)]
    for _ in range(3):
        weaken(model, captured, 0.3)
        found.append(value(captured, model))
    assert found[0] == 0.0 < found[1] < found[2] < found[3]


def test_the_penalty_is_the_mean_loss_of_margin(model: Any, captured: HalfSpace) -> None:
    tensors = captured.save()[1]
    weaken(model, captured, 0.5)
    rows = [[token for token in row if token >= 0] for row in tensors["references"].tolist()]
    with torch.no_grad():
        margins = captured.score(final_states(model, rows, len(rows))) * tensors["sides"]
    expected = (tensors["margins"] - margins).clamp(min=0).mean()
    assert value(captured, model) == pytest.approx(float(expected), rel=1e-5)


def test_turns_are_the_parts_of_the_whole(model: Any, captured: HalfSpace) -> None:
    weaken(model, captured, 0.5)
    parts = [value(captured, model, turn) for turn in range(3)]  # 12 references in batches of 4
    assert value(captured, model) == pytest.approx(sum(parts) / 3, rel=1e-5)
    assert value(captured, model, 3) == parts[0]


def test_every_batch_of_references_holds_both_sides(captured: HalfSpace) -> None:
    assert captured.save()[1]["sides"].tolist() == [1.0, -1.0] * 6


def test_a_step_down_the_penalty_restores_what_was_lost(model: Any, captured: HalfSpace) -> None:
    weaken(model, captured, 0.5)
    before = captured.penalty(model)
    before.backward()
    gradient = model.model.norm.weight.grad
    assert gradient is not None and float(gradient.abs().sum()) > 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    assert value(captured, model) < float(before.detach())


def test_a_lower_keep_lets_the_margin_shrink(model: Any) -> None:
    anchors = {}
    for keep in (0.5, 1.0):
        anchors[keep] = HalfSpace(HalfSpaceConfig(keep=keep))
        anchors[keep].capture(model, material(model))
        assert value(anchors[keep], model) == 0.0
    with torch.no_grad():
        model.model.norm.weight.mul_(0.9)
    assert value(anchors[0.5], model) < value(anchors[1.0], model)


def test_prompts_that_cannot_be_told_apart_are_kept_where_benign_ones_belong(model: Any) -> None:
    anchor = HalfSpace()
    anchor.capture(model, material(model, told_apart=False))
    scores = anchor.score(material(model, told_apart=False).hidden)
    assert float((scores > 0).float().mean()) < 0.2
    assert value(anchor, model) == 0.0


def test_what_is_saved_restores_every_bit(captured: HalfSpace) -> None:
    again = HalfSpace(HalfSpaceConfig(references=6, batch=4))
    facts, tensors = captured.save()
    again.restore(facts, tensors)
    states = torch.randn(5, 16, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again.score(states), captured.score(states))
    assert again.save()[0] == facts
    assert all(torch.equal(again.save()[1][name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("name", ["direction", "margins", "offset", "references", "sides"])
@pytest.mark.parametrize("change", ["gone", "longer"])
def test_tensors_of_other_sizes_are_not_taken_up(captured: HalfSpace, name: str, change: str) -> None:
    facts, tensors = captured.save()
    damaged = {key: value for key, value in tensors.items() if key != name}
    if change == "longer":
        damaged[name] = torch.cat([tensors[name], tensors[name]])
    with pytest.raises((KeyError, ValueError)):
        HalfSpace().restore(facts, damaged)


def test_an_anchor_that_captured_nothing_is_not_taken_up() -> None:
    with pytest.raises(ValueError, match="shapes"):
        HalfSpace().restore(*HalfSpace().save())


@pytest.mark.parametrize(
    ("options", "told"),
    [({"strength": 0}, "strength"), ({"keep": 1.5}, "keep"), ({"batch": 0}, "batch"), ({"angle": 1}, "has no option")],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Plugins.load(()).components().build("anchor", "half-space", options)


def test_scores_are_computed_where_the_states_are(captured: HalfSpace) -> None:
    assert captured.score(torch.zeros(2, 16, dtype=torch.bfloat16)).dtype == torch.float32
    assert captured.score(torch.zeros(2, 16, device="meta")).device.type == "meta"


def test_the_score_of_a_state_without_numbers_is_no_number(captured: HalfSpace) -> None:
    assert captured.score(torch.full((16,), float("nan"))).isnan()

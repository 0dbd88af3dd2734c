"""What a verdict leads to."""

from pathlib import Path

import pytest
from phasegate.core.config.schema import PhaseSection, PolicySection, StepSection
from phasegate.core.run.attempt import first_attempt, next_attempt
from phasegate.core.run.policy import decide


def test_a_passing_phase_advances_whatever_the_policy_says() -> None:
    policy = PolicySection(on_fail="stop", on_undecided="stop", then="stop")
    assert decide(policy, "pass", 0).action == "advance"


@pytest.mark.parametrize("attempt,action", [(0, "extend"), (1, "extend"), (2, "stop")])
def test_a_failing_phase_extends_a_bounded_number_of_times_and_then_stops(attempt: int, action: str) -> None:
    policy = PolicySection(on_fail="extend", extensions=2, then="stop")
    assert decide(policy, "fail", attempt).action == action


def test_a_rollback_counts_against_the_same_bound_as_an_extension() -> None:
    policy = PolicySection(on_fail="rollback", extensions=1, then="advance")
    assert [decide(policy, "fail", attempt).action for attempt in (0, 1)] == ["rollback", "advance"]


def test_a_repeat_that_is_used_up_never_repeats_again_even_if_then_asks_for_it() -> None:
    policy = PolicySection(on_fail="extend", extensions=0, then="extend")
    assert decide(policy, "fail", 0).action == "stop"


def test_an_undecided_phase_follows_its_own_policy() -> None:
    policy = PolicySection(on_fail="stop", on_undecided="extend", extensions=1)
    assert decide(policy, "undecided", 0).action == "extend"
    assert "undecided" in decide(policy, "undecided", 0).reason


def test_an_extension_trains_a_share_of_the_steps_at_half_the_rate(tmp_path: Path) -> None:
    section = PhaseSection(
        steps={"pretrain": StepSection(steps=100, learning_rate=0.004)}, policy=PolicySection(extend_by=0.25)
    )
    first = first_attempt(section, tmp_path)
    second = next_attempt(section, first, "extend", tmp_path)
    third = next_attempt(section, second, "extend", tmp_path)
    assert (second.number, second.steps["pretrain"].steps, second.steps["pretrain"].learning_rate) == (1, 25, 0.002)
    assert (third.steps["pretrain"].steps, third.steps["pretrain"].learning_rate) == (25, 0.001)


def test_a_rollback_repeats_all_steps_at_half_the_rate(tmp_path: Path) -> None:
    section = PhaseSection(steps={"pretrain": StepSection(steps=100, learning_rate=0.004)})
    again = next_attempt(section, first_attempt(section, tmp_path), "rollback", tmp_path)
    assert (again.steps["pretrain"].steps, again.steps["pretrain"].learning_rate) == (100, 0.002)

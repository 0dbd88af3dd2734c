"""What a verdict leads to."""

from pathlib import Path

import pytest
from phasegate.core.config.schema import FreshSection, PhaseSection, PolicySection, StepSection
from phasegate.core.run.attempt import Attempt, extended_steps, first_attempt, next_attempt
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


def steps(**sections: StepSection) -> PhaseSection:
    return PhaseSection(steps=sections, policy=PolicySection(extensions=3))


def test_an_extension_goes_on_with_the_model_there_is(tmp_path: Path) -> None:
    fresh, train = StepSection(fresh=FreshSection()), StepSection()
    section = steps(twin=fresh, pretrain=fresh, more=train)
    second = next_attempt(section, first_attempt(section, tmp_path), "extend", tmp_path)
    assert list(second.steps) == ["pretrain", "more"]
    assert [step.fresh for step in second.steps.values()] == [None, None]


def test_an_extension_converts_nothing_again(tmp_path: Path) -> None:
    section = steps(place=StepSection(objective="reroute"), align=StepSection(), grow=StepSection(objective="grow"))
    assert extended_steps(section) == ()
    section = steps(seed=StepSection(), upcycle=StepSection(objective="upcycle"), align=StepSection())
    assert list(next_attempt(section, first_attempt(section, tmp_path), "extend", tmp_path).steps) == ["align"]


def test_a_rollback_after_an_extension_repeats_every_step_as_it_was(tmp_path: Path) -> None:
    fresh = StepSection(fresh=FreshSection(), learning_rate=0.004)
    section = steps(twin=fresh, pretrain=fresh)
    second = next_attempt(section, first_attempt(section, tmp_path), "extend", tmp_path)
    third = next_attempt(section, second, "rollback", tmp_path)
    assert list(third.steps) == ["twin", "pretrain"]
    assert [step.learning_rate for step in third.steps.values()] == [0.001, 0.001]
    assert all(step.fresh is not None for step in third.steps.values())


def test_a_phase_in_which_nothing_can_go_on_is_not_extended() -> None:
    decision = decide(PolicySection(extensions=1, then="stop"), "fail", 0, extendable=False)
    assert (decision.action, "no step of the phase can go on" in decision.reason) == ("stop", True)


def test_a_step_of_an_earlier_attempt_is_found_from_a_later_one(tmp_path: Path) -> None:
    (tmp_path / "attempt-0" / "twin").mkdir(parents=True)
    later = Attempt(number=2, kind="extend", steps={}, folder=tmp_path / "attempt-2")
    assert later.last_folder("twin") == tmp_path / "attempt-0" / "twin"

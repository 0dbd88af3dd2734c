"""What speculative decoding saves: the formula against published numbers, ratios by hand, proposals counted in real
generations."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from phasegate.evals.speculation import Limits, Tally, measure_speculation, predicted_speedup, statistics_of


@pytest.mark.parametrize(
    ("alpha", "proposals", "speedup"), [(0.8, 4, 2.15), (0.8, 8, 2.03), (0.7, 4, 1.77), (0.7, 8, 1.50)]
)
def test_the_formula_gives_the_papers_speedups_at_its_cost_ratio(alpha: float, proposals: int, speedup: float) -> None:
    """A 1.3 B draft for 9.2 B active parameters: c = 0.141."""
    assert predicted_speedup(np.asarray(alpha), np.asarray(0.141), proposals) == pytest.approx(speedup, abs=0.005)


def test_a_draft_that_is_always_right_and_free_saves_every_proposal() -> None:
    assert predicted_speedup(np.asarray(1.0), np.asarray(0.0), 4) == 5
    assert predicted_speedup(np.asarray(0.0), np.asarray(0.25), 4) == 0.5


def tally(**changes: Any) -> Tally:
    values = {
        "plain": 1.0,
        "first": 0.2,
        "assisted": 0.5,
        "drafting": 0.06,
        "tokens": 5,
        "calls": 2,
        "proposed": 6,
        "judged": 5,
        "accepted": 4,
    }
    return Tally(**(values | changes))


def test_statistics_are_ratios_of_sums_over_prompts() -> None:
    found = statistics_of([tally(), tally(plain=2.0, assisted=1.5, tokens=7, calls=4, judged=5, accepted=1)], 2)
    assert found["speedup"].value == pytest.approx(3.0 / 2.0)
    assert found["acceptance"].value == pytest.approx(5 / 12)
    assert found["alpha"].value == pytest.approx(5 / 10)
    assert found["tokens_per_step"].value == pytest.approx(12 / 6)
    # A draft step takes 0.12 s / 12, a target step (3 s - 0.4 s) / (12 - 2): what follows each prompt's first token.
    assert found["cost"].value == pytest.approx(0.01 / 0.26)
    assert found["predicted_speedup"].value == pytest.approx((1 + 0.5 + 0.25) / (1 + 2 * 0.01 / 0.26))


def test_intervals_come_from_drawing_prompts_anew() -> None:
    same = statistics_of([tally()] * 20, 4)["speedup"]
    assert (same.low, same.value, same.high) == (2.0, 2.0, 2.0)
    mixed = statistics_of([tally(), tally(assisted=1.0)] * 20, 4, seed=3)["speedup"]
    assert mixed.value == pytest.approx(1 / 0.75)
    assert 1.0 < mixed.low < mixed.value < mixed.high < 2.0
    assert mixed == statistics_of([tally(), tally(assisted=1.0)] * 20, 4, seed=3)["speedup"]


def test_what_was_never_proposed_has_no_rate() -> None:
    found = statistics_of([tally(proposed=0, judged=0, accepted=0)], 4)
    assert math.isnan(found["acceptance"].value) and math.isnan(found["predicted_speedup"].value)
    assert found["speedup"].value == 2.0


class Scripted(torch.nn.Module):
    """A target that says 3, 4, 5, ... after any prompt, and looks once a round at what the assistant proposes."""

    device = torch.device("cpu")

    def forward(self) -> None:
        """Looked."""

    def generate(self, input_ids: Any, max_new_tokens: int, assistant_model: Any = None, **_: Any) -> Any:
        said = list(range(3, 3 + max_new_tokens))
        ids, done = input_ids, 0
        while done < len(said):
            agreed = 0
            if assistant_model is not None:
                proposed = assistant_model.generate(input_ids=ids).sequences[0, ids.shape[1] :].tolist()
                pairs = zip(proposed, said[done:], strict=False)
                agreed = next((place for place, (own, right) in enumerate(pairs) if own != right), len(proposed))
            self()
            new = said[done : done + agreed + 1]
            ids = torch.cat([ids, torch.tensor([new])], 1)
            done += len(new)
        return ids


class Helper:
    """Proposes what comes next, but never gets a 6 right."""

    def __init__(self, proposals: int) -> None:
        self.proposals = proposals

    def generate(self, input_ids: Any) -> Any:
        last = int(input_ids[0, -1])
        first = 3 if last < 3 else last + 1
        new = [0 if token == 6 else token for token in range(first, first + self.proposals)]
        return SimpleNamespace(sequences=torch.cat([input_ids, torch.tensor([new])], 1))


def test_proposals_are_counted_as_they_are_judged() -> None:
    """Answer 3 4 5 6 7 8, two proposals at a time: [3 4] right, then 5; [0 7] wrong at once, so 6; [7 8] right."""
    trials = measure_speculation(Scripted(), Helper, [[1, 2]], Limits(new_tokens=6), proposals=2, curve=(1,))
    (trial,) = trials
    assert set(trial.tallies) == {2} and trial.identical == {2: True}
    found = trial.tallies[2]
    assert (found.tokens, found.calls, found.proposed, found.judged, found.accepted) == (6, 3, 6, 5, 4)


def test_the_curve_is_measured_on_the_first_prompts_only() -> None:
    trials = measure_speculation(
        Scripted(), Helper, [[1], [2]], Limits(new_tokens=6), proposals=2, curve=(1, 2, 3), curve_prompts=1, rounds=1
    )
    assert [sorted(trial.tallies) for trial in trials] == [[1, 2, 3], [2]]
    assert all(tally.plain > 0 and tally.assisted > 0 for trial in trials for tally in trial.tallies.values())


def test_an_output_that_is_not_the_targets_own_is_noticed() -> None:
    class Careless(Scripted):
        def generate(self, input_ids: Any, max_new_tokens: int, assistant_model: Any = None, **options: Any) -> Any:
            found = super().generate(input_ids, max_new_tokens, assistant_model, **options)
            if assistant_model is not None:
                found[0, -1] += 1
            return found

    (trial,) = measure_speculation(Careless(), Helper, [[1]], Limits(new_tokens=4), proposals=2)
    assert trial.identical == {2: False}


def test_nothing_stays_on_model_and_assistant() -> None:
    model, helper = Scripted(), Helper(2)
    measure_speculation(model, lambda _: helper, [[1]], Limits(new_tokens=4), proposals=2)
    assert not model._forward_pre_hooks and "generate" not in vars(helper)

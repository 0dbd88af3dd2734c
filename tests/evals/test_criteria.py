"""Verdicts: what passes, what fails, what stays undecided, and what is said about it."""

from __future__ import annotations

import math

import pytest
from phasegate.evals.criteria import Criterion, combined, judge
from phasegate.evals.intervals import wilson
from phasegate.evals.measurement import Measurement, missing
from phasegate.registry.errors import ConfigError


def share(right: int, n: int, metric: str = "acc") -> Measurement:
    values = {f"d{i}": float(i < right) for i in range(n)}
    return Measurement(metric=metric, value=right / n, n=n, kind="proportion", per_document=values)


def mean(values: list[float], metric: str = "nll") -> Measurement:
    documents = {f"d{i}": value for i, value in enumerate(values)}
    return Measurement(metric=metric, value=sum(values) / len(values), n=len(values), per_document=documents)


def test_a_share_whose_lower_bound_clears_the_threshold_passes() -> None:
    """76 % of 200 has the one-sided Wilson bound 0.7064."""
    (found,) = judge(Criterion(name="k", metric="acc", at_least=0.7), {"acc": share(152, 200)})
    assert found.verdict == "pass"
    assert found.low == pytest.approx(wilson(152, 200)[0])


def test_a_share_above_the_threshold_within_noise_is_undecided() -> None:
    (found,) = judge(Criterion(name="k", metric="acc", at_least=0.7), {"acc": share(145, 200)})
    assert found.verdict == "undecided"
    assert found.needed is not None and found.needed > 200
    assert "would decide it" in found.reason


def test_a_share_whose_upper_bound_misses_the_threshold_fails() -> None:
    (found,) = judge(Criterion(name="k", metric="acc", at_least=0.7), {"acc": share(120, 200)})
    assert found.verdict == "fail"


def test_the_needed_documents_decide_at_the_same_effect() -> None:
    (found,) = judge(Criterion(name="k", metric="acc", at_least=0.7), {"acc": share(145, 200)})
    assert found.needed is not None
    assert wilson(0.725 * found.needed, found.needed)[0] >= 0.7
    assert wilson(0.725 * (found.needed - 1), found.needed - 1)[0] < 0.7


def test_exact_metrics_are_compared_directly() -> None:
    measured = Measurement(metric="dead", value=0.0, n=1, kind="exact")
    (found,) = judge(Criterion(name="alive", metric="dead", at_most=0), {"dead": measured})
    assert (found.verdict, found.low, found.high) == ("pass", 0.0, 0.0)


def test_a_range_needs_both_sides_to_hold() -> None:
    criterion = Criterion(name="h", metric="entropy", at_least=0.8, at_most=1.2)
    inside = Measurement(metric="entropy", value=1.0, n=9, interval=(0.9, 1.1))
    across = Measurement(metric="entropy", value=1.15, n=9, interval=(1.05, 1.25))
    outside = Measurement(metric="entropy", value=1.5, n=9, interval=(1.4, 1.6))
    verdicts = [judge(criterion, {"entropy": m})[0].verdict for m in (inside, across, outside)]
    assert verdicts == ["pass", "undecided", "fail"]


def test_a_given_interval_moves_with_the_confidence() -> None:
    measured = Measurement(metric="entropy", value=1.0, n=9, interval=(0.9, 1.1))
    (found,) = judge(Criterion(name="h", metric="entropy", at_least=0.5, confidence=0.975), {"entropy": measured})
    assert found.low == pytest.approx(1 - 0.1 * 1.9599640 / 1.6448536)


def test_a_missing_metric_is_undecided_and_says_why() -> None:
    (found,) = judge(Criterion(name="k", metric="acc", at_least=0.0), {"acc": missing("acc", "no such file")})
    assert found.verdict == "undecided"
    assert found.reason == "not evaluated: no such file"


def test_nan_never_passes() -> None:
    measured = Measurement(metric="load", value=math.nan, n=4, kind="exact")
    (found,) = judge(Criterion(name="k", metric="load", at_least=-math.inf), {"load": measured})
    assert found.verdict == "undecided"


def test_a_pattern_judges_every_metric_it_matches() -> None:
    measured = {f"acc/{d}": share(9, 10, f"acc/{d}") for d in ("code", "general", "science")}
    found = judge(Criterion(name="k", metric="acc/*", at_least=0.1, skip=("general",)), measured)
    assert [judgement.metric for judgement in found] == ["acc/code", "acc/science"]


def test_skip_also_takes_whole_names_and_patterns() -> None:
    measured = {f"acc/{d}": share(9, 10, f"acc/{d}") for d in ("code", "general", "science")}
    found = judge(Criterion(name="k", metric="acc/*", at_least=0.1, skip=("acc/code", "s*")), measured)
    assert [judgement.metric for judgement in found] == ["acc/general"]


def test_a_pattern_that_matches_nothing_is_not_evaluated() -> None:
    (found,) = judge(Criterion(name="k", metric="ac", at_least=0.1), {"acc": share(9, 10)})
    assert found.verdict == "undecided"
    assert "did you mean 'acc'" in found.reason


def test_a_pattern_over_a_missing_gate_repeats_the_gates_reason() -> None:
    (found,) = judge(Criterion(name="k", metric="acc/*", at_least=0.1), {"acc": missing("acc", "no data")})
    assert found.reason == "not evaluated: no data"


def test_a_paired_difference_resolves_what_two_shares_do_not() -> None:
    """1000 documents, 4 lost: alone either share is known to 2 points, the pairing to half a point."""
    criterion = Criterion(name="tax", metric="acc", at_least=-0.02, statistic="difference")
    (found,) = judge(criterion, {"acc": share(746, 1000)}, {"acc": share(750, 1000)})
    assert found.verdict == "pass"
    assert found.value == pytest.approx(-0.004)
    assert found.baseline == pytest.approx(0.75)
    assert found.p_value == pytest.approx(2 / 2**4)


def test_documents_are_paired_by_hash_and_not_by_place() -> None:
    new = Measurement(metric="nll", value=2.0, n=3, per_document={"c": 3.0, "b": 2.0, "a": 1.0})
    old = Measurement(metric="nll", value=2.0, n=3, per_document={"a": 1.0, "b": 2.0, "c": 3.0})
    (found,) = judge(
        Criterion(name="d", metric="nll", at_most=0.0198, statistic="difference"), {"nll": new}, {"nll": old}
    )
    assert (found.value, found.low, found.high, found.verdict) == (0.0, 0.0, 0.0, "pass")


def test_documents_without_a_partner_are_counted_in_the_reason() -> None:
    new = Measurement(metric="nll", value=2.0, n=3, per_document={"a": 1.0, "b": 2.0, "c": 3.0})
    old = Measurement(metric="nll", value=1.5, n=2, per_document={"a": 1.0, "b": 2.0})
    (found,) = judge(Criterion(name="d", metric="nll", at_most=0.1, statistic="difference"), {"nll": new}, {"nll": old})
    assert found.n == 2
    assert "1 documents have no partner" in found.reason


def test_two_percent_perplexity_is_a_paired_difference_of_log_likelihoods() -> None:
    old = [2.0 + 0.1 * i for i in range(20)]
    criterion = Criterion(name="ppl", metric="nll", at_most=math.log(1.02), statistic="difference")
    near = [value + 0.01 + 0.001 * (i % 2) for i, value in enumerate(old)]
    far = [value + 0.05 + 0.001 * (i % 2) for i, value in enumerate(old)]
    assert judge(criterion, {"nll": mean(near)}, {"nll": mean(old)})[0].verdict == "pass"
    assert judge(criterion, {"nll": mean(far)}, {"nll": mean(old)})[0].verdict == "fail"


def test_a_win_rate_counts_documents_that_got_better() -> None:
    old, new = mean([0.0] * 100, "margin"), mean([1.0] * 78 + [-1.0] * 22, "margin")
    criterion = Criterion(name="w", metric="margin", at_least=0.7, statistic="win_rate")
    (found,) = judge(criterion, {"margin": new}, {"margin": old})
    assert found.verdict == "pass"
    assert found.value == pytest.approx(0.78)


def test_a_comparison_without_a_baseline_is_not_evaluated() -> None:
    criterion = Criterion(name="w", metric="acc", at_least=0.7, statistic="win_rate")
    (found,) = judge(criterion, {"acc": share(9, 10)})
    assert found.reason == "not evaluated: there is no baseline measurement to compare with"


def test_a_comparison_without_shared_documents_is_not_evaluated() -> None:
    criterion = Criterion(name="w", metric="nll", at_least=0.7, statistic="win_rate")
    other = Measurement(metric="nll", value=1.0, n=1, per_document={"x": 1.0})
    (found,) = judge(criterion, {"nll": mean([1.0, 2.0])}, {"nll": other})
    assert found.verdict == "undecided" and "shares no document" in found.reason


def test_a_baseline_that_was_not_evaluated_decides_nothing() -> None:
    criterion = Criterion(name="w", metric="acc", at_least=-1.0, statistic="difference")
    (found,) = judge(criterion, {"acc": share(9, 10)}, {"acc": missing("acc", "gone")})
    assert found.verdict == "undecided" and "gone" in found.reason


def test_a_bound_tighter_than_the_documents_resolve_is_named() -> None:
    """Even 45 of 45 has a lower bound of 0.943; 0.98 needs 49 z^2 = 132.6 documents."""
    (found,) = judge(Criterion(name="r", metric="acc", at_least=0.98), {"acc": share(45, 45)})
    assert found.verdict == "undecided"
    assert "tighter than 45 documents resolve" in found.reason and "133 could" in found.reason


def test_a_paired_bound_tighter_than_the_documents_resolve_is_named() -> None:
    criterion = Criterion(name="tax", metric="acc", at_least=-0.02, statistic="difference")
    (found,) = judge(criterion, {"acc": share(40, 50)}, {"acc": share(40, 50)})
    assert found.verdict == "undecided"
    assert "tighter than 50 documents resolve" in found.reason


def test_a_difference_on_the_bound_is_not_lost_to_rounding() -> None:
    new = Measurement(metric="load", value=0.68, n=1, kind="exact")
    old = Measurement(metric="load", value=0.70, n=1, kind="exact")
    criterion = Criterion(name="d", metric="load", at_least=-0.02, statistic="difference")
    assert judge(criterion, {"load": new}, {"load": old})[0].verdict == "pass"


def test_the_worst_verdict_speaks_for_all() -> None:
    good, bad = Criterion(name="a", metric="acc", at_least=0.1), Criterion(name="b", metric="acc", at_least=0.99)
    open_ = Criterion(name="c", metric="gone", at_least=0.1)
    measured = {"acc": share(50, 100)}
    found = [judgement for criterion in (good, open_) for judgement in judge(criterion, measured)]
    assert combined(found) == "undecided"
    assert combined([*found, *judge(bad, measured)]) == "fail"
    assert combined([]) == "pass"


@pytest.mark.parametrize("settings", [{}, {"at_least": 2.0, "at_most": 1.0}, {"at_least": 0.5, "confidence": 1.0}])
def test_a_criterion_that_cannot_mean_anything_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="criterion 'x'"):
        Criterion(name="x", metric="acc", **settings)  # type: ignore[arg-type]


def test_one_document_decides_nothing_about_a_mean() -> None:
    (found,) = judge(Criterion(name="k", metric="nll", at_most=5.0), {"nll": mean([1.0])})
    assert found.verdict == "undecided"
    assert "one document leaves the spread unknown" in found.reason

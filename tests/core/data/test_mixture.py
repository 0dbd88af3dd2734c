"""Which domain each row comes from."""

from __future__ import annotations

from collections import Counter

import pytest
from phasegate.core.config.schema import BatchSection
from phasegate.core.data.mixture import Count, Spread, batch_types, deal, general_mixture, marginal, mixture_of
from phasegate.registry.errors import ConfigError

SEVEN = ("general", "code", "science", "books", "portuguese", "mathematics", "structured")


def counts(dealt: list) -> Counter:
    return Counter(slot.domain for slots in dealt for slot in slots)


def test_the_papers_mixture_is_met_exactly_over_a_hundred_rows() -> None:
    dealt = deal(BatchSection(), SEVEN, steps=10, rows=10)
    assert counts(dealt) == {
        "general": 45, "code": 18, "science": 12, "books": 10, "portuguese": 8, "mathematics": 4, "structured": 3,
    }  # fmt: skip


def test_shares_are_met_within_one_after_every_draw() -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    spread, drawn = Spread(shares), Counter()
    for total in range(1, 201):
        drawn[spread.draw()] += 1
        assert all(abs(drawn[name] - share * total) < 1 for name, share in shares.items())


def test_a_fractional_number_per_step_adds_up() -> None:
    count = Count(11.2)
    assert [count.draw() for _ in range(10)] == [11, 11, 11, 11, 12, 11, 11, 11, 11, 12]


def test_a_named_mixture_is_normalised_and_leaves_out_the_rest() -> None:
    section = BatchSection(mixture={"code": 3.0, "books": 1.0})
    assert mixture_of(section, SEVEN) == {"code": 0.75, "books": 0.25}
    assert set(counts(deal(section, SEVEN, steps=4, rows=2))) == {"code", "books"}


def test_domains_the_paper_does_not_know_share_evenly() -> None:
    assert mixture_of(BatchSection(), ("law", "general")) == {"law": 0.5, "general": 0.5}


def test_dialogues_without_a_mixture_come_as_often_as_they_are() -> None:
    assert mixture_of(BatchSection(), SEVEN, {"general": 30, "mathematics": 90}) == {
        "general": 0.25,
        "mathematics": 0.75,
    }


def test_a_general_batch_is_seven_tenths_web_and_the_rest_even() -> None:
    shares = general_mixture(SEVEN)
    assert shares["general"] == pytest.approx(0.7 + 0.3 / 7)
    assert shares["code"] == pytest.approx(0.3 / 7)
    assert sum(shares.values()) == pytest.approx(1)


def test_default_batch_types_keep_the_first_phases_marginals() -> None:
    types, often = batch_types(BatchSection(), SEVEN, mixture_of(BatchSection(), SEVEN))
    assert often == pytest.approx({"code": 0.2, "science": 0.16, "language": 0.18, "reasoning": 0.1, "general": 0.36})
    assert types["language"] == pytest.approx({"books": 10 / 18, "portuguese": 8 / 18})
    assert types["reasoning"] == pytest.approx({"mathematics": 4 / 7, "structured": 3 / 7})


def test_a_concentrated_step_has_one_primary_type() -> None:
    dealt = deal(BatchSection(kind="concentrated"), SEVEN, steps=100, rows=20)
    primaries = Counter()
    for slots in dealt:
        first = [slot.domain for slot in slots[:14]]  # 70 % of 20
        types = {
            "code": {"code"}, "science": {"science"}, "language": {"books", "portuguese"},
            "reasoning": {"mathematics", "structured"}, "general": {"general"},
        }  # fmt: skip
        (name,) = [name for name, members in types.items() if set(first) <= members]
        primaries[name] += 1
    assert primaries == {"code": 20, "science": 16, "language": 18, "reasoning": 10, "general": 36}


def test_concentrated_batches_have_the_marginals_of_hand_computation() -> None:
    # primary 0.7 * type share * share in the type + 0.3 * (0.3/7, and 0.7 more for general)
    expected = {"code": 0.7 * 0.2 + 0.09 / 7, "general": 0.7 * 0.36 + 0.3 * (0.7 + 0.3 / 7)}
    expected["books"] = 0.7 * 0.18 * 10 / 18 + 0.09 / 7
    section = BatchSection(kind="concentrated")
    shares = marginal(section, SEVEN)
    drawn = counts(deal(section, SEVEN, steps=1000, rows=16))
    for name, share in expected.items():
        assert shares[name] == pytest.approx(share)
        assert drawn[name] / 16000 == pytest.approx(share, abs=0.002)


def test_a_replayed_share_is_taken_from_every_step() -> None:
    dealt = deal(BatchSection(), SEVEN, steps=50, rows=20, replay_share=0.1, replay_mixture={"code": 1.0})
    assert all(sum(slot.replay for slot in slots) == 2 for slots in dealt)
    assert all(slot.domain == "code" for slots in dealt for slot in slots if slot.replay)
    assert all(len(slots) == 20 for slots in dealt)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    section = BatchSection(kind="concentrated")
    short, long = (
        deal(section, SEVEN, steps=steps, rows=16, replay_share=0.07, replay_mixture={"books": 1}) for steps in (7, 50)
    )
    assert long[:7] == short


def test_default_types_fall_away_with_their_domains() -> None:
    domains = ("general", "science", "books")
    types, often = batch_types(BatchSection(), domains, mixture_of(BatchSection(), domains))
    assert types == {"science": {"science": 1.0}, "language": {"books": 1.0}, "general": {"general": 1.0}}
    assert often == pytest.approx({"science": 16 / 70, "language": 18 / 70, "general": 36 / 70})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (BatchSection(mixture={"cod": 1.0}), "did you mean 'code'"),
        (BatchSection(mixture={"code": -1.0}), "not negative"),
        (BatchSection(mixture={"code": 0.0}), "every domain the share 0"),
        (BatchSection(kind="concentrated", types={"a": ("cod",)}), r"batches\.types\.a names 'cod'"),
        (BatchSection(kind="concentrated", types={"a": ()}), "names no domain"),
        (BatchSection(kind="concentrated", type_shares={"codes": 1.0}), "did you mean 'code'"),
        (BatchSection(kind="concentrated", type_shares={"code": 0.0}), "every batch type a share of 0"),
        (BatchSection(primary=1.5), "between 0 and 1"),
    ],
)
def test_a_wrong_batch_section_is_named(section: BatchSection, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        deal(section, SEVEN, steps=1, rows=4)

"""Both answers of a row: what a term over pairs can ask of them."""

from __future__ import annotations

import math

import pytest
import torch
from phasegate.core.training.pairs import (
    Answers,
    Pairs,
    RowCounts,
    count_rows,
    split_answers,
    token_log_probabilities,
)


def answers(*rows: tuple[list[int], list[float]]) -> Answers:
    """Answers from (tokens, probabilities) per row."""
    width = max(len(tokens) for tokens, _ in rows)
    labels = torch.tensor([tokens + [-100] * (width - len(tokens)) for tokens, _ in rows])
    logs = torch.tensor([[math.log(p) for p in ps] + [0.0] * (width - len(ps)) for _, ps in rows])
    return Answers(tokens=logs, labels=labels, mask=(labels != -100).float())


EMPTY: tuple[list[int], list[float]] = ([], [])


def test_the_likelihood_of_an_answer_is_per_token() -> None:
    found = answers(([5, 6], [0.5, 0.25]), ([7], [0.1]), EMPTY).mean()
    assert found.tolist() == pytest.approx([(math.log(0.5) + math.log(0.25)) / 2, math.log(0.1), 0.0])


def test_unlikelihood_is_the_mean_of_minus_log_one_minus_p() -> None:
    said, unsaid = answers(([1, 2], [0.9, 0.9]), ([1], [0.9])), answers(([5, 6], [0.5, 0.25]), EMPTY)
    expected = -(math.log(0.5) + math.log(0.75)) / 2
    assert unsaid.unlikelihood(beside=said).tolist() == pytest.approx([expected, 0.0])


def test_what_both_answers_begin_with_is_not_made_unlikely() -> None:
    said, unsaid = answers(([5, 6, 7], [0.9] * 3)), answers(([5, 8, 7], [0.99, 0.25, 0.5]))
    # 5 is common; behind 8 nothing is common any more, though 7 stands in both.
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert unsaid.unlikelihood(beside=said).item() == pytest.approx(expected)


def test_an_answer_that_only_begins_like_the_other_has_no_unlikelihood() -> None:
    said, unsaid = answers(([5, 6, 7], [0.9] * 3)), answers(([5, 6], [0.9, 0.9]))
    assert unsaid.unlikelihood(beside=said).item() == 0.0


def test_the_unlikelihood_of_a_certain_token_is_finite_with_a_finite_slope() -> None:
    tokens = torch.zeros(1, 1, requires_grad=True)  # log 1
    labels = torch.tensor([[5]])
    unsaid = Answers(tokens=tokens, labels=labels, mask=torch.ones(1, 1))
    value = unsaid.unlikelihood(beside=answers(([6], [0.5])))
    value.sum().backward()
    assert value.item() == pytest.approx(-math.log(1e-5), rel=1e-4)
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all()


def test_means_of_micro_batches_add_up_to_the_mean_over_the_step() -> None:
    values, kind = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0, 1, 0, 0])
    unsaid = answers(([1], [0.5]), EMPTY, EMPTY, ([1], [0.5]))
    said = answers(*[([2], [0.5])] * 4)
    step = RowCounts(rows=torch.tensor([3.0, 1.0]), paired=torch.tensor([2.0, 0.0]))

    def part(rows: slice, *kinds: str, paired: bool = False) -> float:
        def cut(side: Answers) -> Answers:
            return Answers(tokens=side.tokens[rows], labels=side.labels[rows], mask=side.mask[rows])

        pairs = Pairs(chosen=cut(said), rejected=cut(unsaid), kind=kind[rows], kinds=("harmful", "benign"), step=step)
        return float(pairs.mean_over(values[rows], kinds, paired=paired))

    for rows in ([slice(0, 4)], [slice(0, 2), slice(2, 4)], [slice(n, n + 1) for n in range(4)]):
        assert sum(part(one, "harmful") for one in rows) == pytest.approx(13 / 3)
        assert sum(part(one, "benign", "harmful") for one in rows) == pytest.approx(15 / 4)
        assert sum(part(one, "harmful", paired=True) for one in rows) == pytest.approx(9 / 2)
        assert sum(part(one, "benign", paired=True) for one in rows) == 0.0
        assert sum(part(one, "medical") for one in rows) == 0.0


def test_a_row_that_does_not_count_cannot_spoil_the_mean() -> None:
    side = answers(([1], [0.5]), ([1], [0.5]))
    pairs = Pairs(
        chosen=side,
        rejected=side,
        kind=torch.tensor([0, 1]),
        kinds=("harmful", "benign"),
        step=RowCounts(rows=torch.ones(2), paired=torch.ones(2)),
    )
    assert float(pairs.mean_over(torch.tensor([math.inf, 3.0]), ("benign",))) == 3.0


def test_probabilities_are_taken_at_the_answers_places_only() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7)
    places, labels = torch.tensor([[1, 2], [3, 0]]), torch.tensor([[4, 6], [2, -100]])
    found = token_log_probabilities(logits, places, labels)
    logs = logits.log_softmax(-1)
    expected = torch.stack([torch.stack([logs[0, 1, 4], logs[0, 2, 6]]), torch.stack([logs[1, 3, 2], torch.zeros(())])])
    torch.testing.assert_close(found.tokens, expected)
    assert found.mask.tolist() == [[1, 1], [1, 0]]


def test_probabilities_are_fp32_whatever_the_logits() -> None:
    found = token_log_probabilities(torch.zeros(1, 2, 8).bfloat16(), torch.zeros(1, 1).long(), torch.ones(1, 1).long())
    assert found.tokens.dtype == torch.float32
    assert found.tokens.item() == pytest.approx(-math.log(8))


def test_a_row_without_a_second_answer_has_an_empty_one() -> None:
    both = answers(([1], [0.5]), ([2, 3], [0.5, 0.5]), ([4], [0.25]))
    said, unsaid = split_answers(both, torch.tensor([-1, 2]))
    assert said.labels.tolist() == [[1, -100], [2, 3]]
    assert unsaid.labels.tolist() == [[-100, -100], [4, -100]]
    assert unsaid.tokens[0].tolist() == [0.0, 0.0]
    assert unsaid.mean().tolist() == pytest.approx([0.0, math.log(0.25)])


def test_rows_are_counted_by_kind_with_and_without_a_second_answer() -> None:
    batch = {"kind": torch.tensor([2, 0, 2, 2]), "other": torch.tensor([4, -1, -1, 5])}
    assert count_rows(batch, 3).tolist() == [[1, 0, 3], [0, 0, 2]]

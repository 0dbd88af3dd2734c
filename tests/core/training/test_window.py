"""The window of expert load."""

from __future__ import annotations

import torch
from phasegate.core.training.window import LoadWindow


def test_an_empty_window_is_uniform() -> None:
    assert LoadWindow(16).share(torch.zeros(1, 4)).tolist() == [[0.25] * 4]


def test_micro_batches_count_only_when_the_step_ends() -> None:
    window = LoadWindow(16)
    window.add(torch.tensor([3.0, 1.0]))
    assert window.share(torch.zeros(2)).tolist() == [0.5, 0.5]
    window.advance()
    assert window.share(torch.zeros(2)).tolist() == [0.75, 0.25]


def test_old_steps_fade_by_the_window() -> None:
    window = LoadWindow(4)  # decay 0.75
    for counts in ([4.0, 0.0], [0.0, 1.0]):
        window.add(torch.tensor(counts))
        window.advance()
    assert window.share(torch.zeros(2)).tolist() == [0.75, 0.25]  # 0.75 * 4 to 1


def test_one_step_or_many_micro_batches_give_the_same_bits() -> None:
    whole, split = LoadWindow(16), LoadWindow(16)
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        parts = torch.randint(0, 1000, (8, 2, 3, 9), generator=random).float()
        whole.add(parts.sum(0))
        for part in parts:
            split.add(part)
        whole.advance()
        split.advance()
    like = torch.zeros(2, 3, 9)
    assert torch.equal(whole.share(like), split.share(like))


def test_a_domain_that_does_not_come_keeps_its_share() -> None:
    window = LoadWindow(16)
    window.add(torch.tensor([[1.0, 3.0], [1.0, 1.0]]))
    window.advance()
    for _ in range(200):
        window.add(torch.tensor([[0.0, 0.0], [5.0, 5.0]]))
        window.advance()
    torch.testing.assert_close(window.share(torch.zeros(2, 2))[0], torch.tensor([0.25, 0.75]))


def test_a_window_goes_on_from_its_state() -> None:
    first, second = LoadWindow(16), LoadWindow(16)
    first.add(torch.tensor([3.0, 1.0]))
    first.advance()
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    for window in (first, second):
        window.add(torch.tensor([1.0, 5.0]))
        window.advance()
    assert torch.equal(first.share(torch.zeros(2)), second.share(torch.zeros(2)))

"""What is told of a broken experiment when there is more than one thing to tell, or no plugin to help.

The corpus of broken experiments is in ``tests/integration/broken``.
"""

from __future__ import annotations

from collections.abc import Callable


def test_all_mistakes_of_a_file_are_told_at_once(mistakes: Callable[..., list[str]]) -> None:
    found = mistakes("name: 7\nsede: 1\nrun: {thread: 2}\nprecision: fp8\n")
    assert sorted(sentence.split(": ")[0] for sentence in found) == [f"trial.yaml:{line}" for line in (1, 2, 3, 4)]


def test_at_most_ten_mistakes_are_told(mistakes: Callable[..., list[str]]) -> None:
    found = mistakes("name: x\n" + "".join(f"wrong{index}: 1\n" for index in range(14)))
    assert len(found) == 11
    assert found[-1] == "… and 4 more."


def test_what_follows_from_a_mistake_is_not_told_as_another(mistakes: Callable[..., list[str]], good: str) -> None:
    assert len(mistakes(f"{good}study: {{space: 6}}\n")) == 1  # it has no key 'use' either
    assert len(mistakes(good.replace("  ground:\n", ""))) == 1  # its gate is held against a parent


def test_a_need_that_no_plugin_provides_is_told_so(mistakes: Callable[..., list[str]], good: str) -> None:
    assert mistakes(f"{good}  dream:\n") == [
        "trial.yaml:9: phase dream requires 'sleep', which nothing before it provides. No loaded phase provides it; a "
        "plugin may (--plugins)."
    ]

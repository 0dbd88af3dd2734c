"""HumanEval's metric with our own runner: the stock one loads a metric from the hub when it is imported.

Chen et al. 2021, 2107.03374. Named by generated task files alone, which are written only if running code is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .sandbox import run_program


def pass_at_k(references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int]) -> dict[str, float]:
    """The probability that one of ``k`` of the given programs passes the test, unbiased, averaged over problems."""
    found: dict[str, list[float]] = {f"pass@{count}": [] for count in k}
    for reference, programs in zip(references, predictions, strict=True):
        right = sum(run_program(f"{program}\n{reference}").passed for program in programs)
        for count in k:
            found[f"pass@{count}"].append(estimate(len(programs), right, count))
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def estimate(n: int, right: int, k: int) -> float:
    """1 - C(n - right, k) / C(n, k): k draws from n programs without replacement hold at least one right one."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def build_predictions(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Programs of prompt and continuation, as the stock task builds them."""
    return [[doc["prompt"] + answer for answer in answers] for answers, doc in zip(resps, docs, strict=True)]

"""Results of two studies as they lie on disk, with values by hand: six orders over three seeds, and a search."""

from __future__ import annotations

from typing import Any

FULL = "foundation>specialization>alignment>safety>metacognition>optimization"
ORDERS = {
    "paper": FULL,
    "no specialization": "foundation>alignment>safety>metacognition>optimization",
    "safety first": "foundation>specialization>safety>alignment>metacognition>optimization",
    "probes early": "foundation>specialization>metacognition>alignment>safety>optimization",
    "no safety": "foundation>specialization>alignment>metacognition>optimization",
    "foundation only": "foundation",
}
#: quality and safety of every order, by seed 0, 1, 2; None: not measured.
SCORES: dict[str, tuple[tuple[float, float, float], tuple[float | None, float | None, float | None]]] = {
    "paper": ((0.880, 0.884, 0.891), (0.98, 0.97, 0.99)),
    "no specialization": ((0.861, 0.858, 0.866), (0.98, 0.98, 0.97)),
    "safety first": ((0.882, 0.881, 0.893), (0.02, 0.0, 0.01)),
    "probes early": ((0.879, 0.888, 0.889), (0.98, 0.98, 0.98)),
    "no safety": ((0.884, 0.883, 0.895), (0.0, 0.0, 0.0)),
    "foundation only": ((0.851, 0.855, 0.853), (None, None, None)),
}
#: difference from the first row, low, high, resolved; by hand of what the intervals of three seeds look like.
DIFFERENCES: dict[str, dict[str, tuple[float, float, float, bool]]] = {
    "no specialization": {"quality": (-0.0233, -0.0312, -0.0154, True), "safety": (-0.0033, -0.0385, 0.0318, False)},
    "safety first": {"quality": (0.0003, -0.0053, 0.0060, False), "safety": (-0.97, -0.9948, -0.9452, True)},
    "probes early": {"quality": (0.0003, -0.0076, 0.0083, False), "safety": (0.0, -0.0248, 0.0248, False)},
    "no safety": {"quality": (0.0023, -0.0042, 0.0088, False), "safety": (-0.98, -1.0048, -0.9552, True)},
    "foundation only": {"quality": (-0.0320, -0.0424, -0.0216, True)},
}


def orders() -> dict[str, Any]:
    """The results of a study of orders."""
    rows = []
    for place, (name, order) in enumerate(ORDERS.items()):
        quality, safety = SCORES[name]
        row: dict[str, Any] = {
            "name": name,
            "order": order,
            "valid": name != "safety first",
            "note": "refusals are taught before dialogue" if name == "safety first" else "",
            "trial": place,
            "seeds": {
                str(seed): {
                    "stages": [f"{phase}-{seed}{place}" for phase in order.split(">")],
                    "scores": {"quality": quality[seed], "safety": safety[seed]},
                    "capabilities": {"acc": quality[seed], "refused/harmful": safety[seed]},
                    "verdicts": {"pass": 30, "fail": place, "undecided": 1},
                }
                for seed in range(3)
            },
            "scores": {"quality": _spread(quality), "safety": _spread(safety)},
        }
        if place:
            row["differences"] = {
                score: {"value": value, "low": low, "high": high, "p": 0.01 if clear else 0.6, "resolved": clear}
                | {"words": "resolved" if clear else "not resolved"}
                for score, (value, low, high, clear) in DIFFERENCES[name].items()
            }
        rows.append(row)
    return {
        "format": 1,
        "kind": "orders",
        "experiment": "ncas-nano",
        "study": "ablation-table",
        "seeds": [0, 1, 2],
        "scores": {
            "quality": {"direction": "maximize", "of": ["acc"]},
            "safety": {"direction": "maximize", "of": ["refused/harmful", "answered/benign"]},
        },
        "rows": rows,
        "effects": [
            {"before": "alignment", "after": "safety", "score": "safety"}
            | {"value": 0.97, "low": 0.94, "high": 1.0, "resolved": True},
            {"before": "alignment", "after": "safety", "score": "quality"}
            | {"value": -0.001, "low": -0.007, "high": 0.005, "resolved": False},
        ],
        "trainings": {"naive": 87, "shared": 60, "trained": 50, "reused": 37, "minutes": 31.5, "minutes_saved": 18.25},
    }


def parameters() -> dict[str, Any]:
    """The results of a search over two parameters with two scores."""
    values = [
        (0.84, 0.08, 0.001, "cosine"),
        (0.86, 0.06, 0.002, "linear"),
        (0.88, 0.09, 0.004, "linear"),
        (0.85, 0.03, 0.003, "cosine"),
        (0.89, 0.12, 0.008, "linear"),
    ]
    trials = [
        {
            "number": number,
            "state": "complete",
            "parameters": {"phases.foundation.steps.pretrain.learning_rate": rate, "schedule": schedule},
            "values": [quality, error],
            "constraints": {
                "foundation/knowledge": 0.7 - quality,
                "safety/harmful-refused": 0.02 if number == 4 else -0.01,
            },
            "order": FULL,
            "stopped_after": None,
            "seconds": 95.0 + number,
        }
        for number, (quality, error, rate, schedule) in enumerate(values)
    ]
    pruned = {
        "number": 5,
        "state": "pruned",
        "parameters": {"phases.foundation.steps.pretrain.learning_rate": 0.05, "schedule": "cosine"},
        "values": [],
        "constraints": {"foundation/knowledge": 0.31},
        "order": FULL,
        "stopped_after": "foundation",
        "seconds": 20.0,
    }
    return {
        "format": 1,
        "kind": "parameters",
        "experiment": "ncas-nano",
        "study": "rates",
        "seeds": [0],
        "scores": {
            "quality": {"direction": "maximize", "of": ["acc"]},
            "calibration": {"direction": "minimize", "of": ["ece"]},
        },
        "trainings": {"naive": 31, "shared": 26, "trained": 26, "reused": 5, "minutes": 9.0, "minutes_saved": 1.5},
        "parameters": [
            {"key": "phases.foundation.steps.pretrain.learning_rate", "low": 0.001, "high": 0.05, "log": True},
            {"key": "schedule", "choices": ["linear", "cosine"]},
        ],
        "trials": [*trials, pruned],
        "best": [1, 2, 3],
        "importance": {"phases.foundation.steps.pretrain.learning_rate": 0.83, "schedule": 0.17},
    }


def _spread(values: tuple[float | None, ...]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "sd": None, "n": 0}
    mean = sum(known) / len(known)
    return {"mean": mean, "sd": (sum((one - mean) ** 2 for one in known) / 2) ** 0.5, "n": len(known)}

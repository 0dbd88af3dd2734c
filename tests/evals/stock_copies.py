"""Local copies of benchmarks in the form of the shared data: ten rows of each, made up."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from phasegate.evals.stock_tasks import STOCK

Row = dict[str, Any]
TEN = range(10)
SUBJECTS = ("anatomy", "virology")


def _choices(i: int) -> list[str]:
    return [f"the cat {i}", "a red mat", "one small fish", "the old town"]


COPIES: dict[str, list[Row]] = {
    "arc_easy": [
        {"id": f"a{i}", "query": f"Question: What sat {i}?", "choices": _choices(i), "gold": i % 4} for i in TEN
    ],
    "blimp": [
        {
            "UID": ("transitive", "passive_1")[i % 2],
            "pairID": str(i),
            "sentence_good": f"the cat {i} sat",
            "sentence_bad": f"the cat {i} mat",
        }
        for i in TEN
    ],
    "boolq": [
        {
            "id": f"b{i}",
            "query": f"Passage: The cat {i} sat.\nQuestion: On a mat?\nQuestion: did the cat {i} sit?",
            "choices": ["no", "yes"],
            "gold": i % 2,
        }
        for i in TEN
    ],
    "gsm8k": [
        {"id": f"g{i}", "question": f"How many cats are {i} and 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}"}
        for i in TEN
    ],
    "hellaswag": [
        {
            "id": f"h{i}",
            "activity_label": "Sitting",
            "ctx": f"A cat is seen. It sits {i} times. the cat" if i % 2 else f"Sit down. Stay there {i} times.",
            "endings": [f"{end} [step] again." for end in _choices(i)],
            "label": i % 4,
        }
        for i in TEN
    ],
    "humaneval": [
        {
            "task_id": f"HumanEval/{i}",
            "prompt": f'def plus(a):\n    """Return a + {i}."""\n',
            "entry_point": "plus",
            "canonical_solution": f"    return a + {i}\n",
            "test": f"\ndef check(candidate):\n    assert candidate(1) == {i + 1}\n",
        }
        for i in TEN
    ],
    "ifeval": [
        {
            "key": i,
            "prompt": f"Tell of {i} cats.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"][: 1 + i % 2],
            "kwargs": [{}, {"relation": "at least", "num_words": 3}][: 1 + i % 2],
        }
        for i in TEN
    ],
    "lambada_openai": [
        {"id": f"l{i}", "context": f"The cat {i} sat on the", "continuation": ("mat", "town")[i % 2]} for i in TEN
    ],
    "mmlu": [
        {
            "id": f"m{i}",
            "subject": SUBJECTS[i % 5 == 0],
            "question": f"What sat {i}?",
            "choices": _choices(i),
            "answer": i % 4,
        }
        for i in TEN
    ],
    "openbookqa": [{"id": f"o{i}", "query": f"Cat {i} sat on", "choices": _choices(i), "gold": i % 4} for i in TEN],
    "pubmedqa": [
        {
            "pubid": str(i),
            "question": f"Do {i} cats sit?",
            "contexts": ["Cats.", f"They sat {i} times."],
            "labels": ["BACKGROUND", "RESULTS"],
            "meshes": ["Cats"],
            "year": "1997",
            "long_answer": "They do.",
            "final_decision": ("yes", "no", "maybe")[i % 3],
            "official_test": i != 9,
        }
        for i in TEN
    ],
    "truthfulqa_mc1": [
        {
            "id": f"t{i}",
            "question": f"Do {i} cats sit?",
            "mc1_targets": {"choices": _choices(i)[: 2 + i % 3], "labels": [1, 0, 0, 0][: 2 + i % 3]},
            "mc2_targets": {"choices": _choices(i), "labels": [1, 1, 0, 0] if i % 2 else [1, 0, 0, 0]},
        }
        for i in TEN
    ],
    "winogrande": [
        {
            "id": f"w{i}",
            "sentence": f"The cat {i} left the mat because _ was old.",
            "option1": "the cat",
            "option2": "the mat",
            "answer": str(1 + i % 2),
        }
        for i in TEN
    ],
}
COPIES["arc_challenge"] = COPIES["arc_easy"]
COPIES["truthfulqa_mc2"] = COPIES["truthfulqa_mc1"]

EXAMPLES: dict[str, list[Row]] = {
    "gsm8k": [{"id": f"e{i}", "question": f"What is {i}?", "answer": f"#### {i}"} for i in TEN],
    "mmlu": [row | {"subject": subject} for subject in SUBJECTS for row in COPIES["mmlu"][:5]],
}


def write_copies(root: Path, names: Iterable[str] = STOCK) -> Path:
    """The copies of ``names`` under a data root, with their few-shot examples."""
    for name in names:
        _write(root / STOCK[name].file, COPIES[name])
        if (examples := STOCK[name].examples) is not None:
            _write(root / examples, EXAMPLES[name])
    return root


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode(), mtime=0))

"""Functions that generated task files name: data loading and per-document scores.

lm-eval passes custom metrics of multiple-choice tasks through only when ``process_results`` returns them.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset


def rows(
    path: str, split: str = "test", examples: str | None = None, examples_split: str = "train", **_metadata: Any
) -> dict[str, Dataset]:
    """A JSONL file as the dataset of a task, read anew each time: no cache stands between file and score.

    ``examples`` is the file of few-shot examples. Stock tasks look at all their splits when they are built, so
    those that are not there are there without rows.
    """
    from datasets import Dataset

    found = {split: _dataset(Path(path))}
    if examples is not None:
        found[examples_split] = _dataset(Path(examples))
    empty = Dataset(found[split].data.slice(0, 0), fingerprint="empty")
    return dict.fromkeys(("train", "validation", "test", "dev"), empty) | found


def _dataset(path: Path) -> Dataset:
    """A JSONL file as a data set that is named by its content.

    ``Dataset.from_list`` would make up a name from pickles of all that it holds, which takes longer than everything
    else that a task of a group does.
    """
    from datasets import Dataset
    from pyarrow import Table

    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return Dataset(Table.from_pylist(read_jsonl(path)), fingerprint=content[:16])


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, gzipped or not."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [line for line in data.removeprefix(codecs.BOM_UTF8).splitlines() if line.strip()]
    # One call for all lines takes a quarter of the time of a call for each.
    found: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
    if len(found) != len(lines):
        raise ValueError(f"{len(lines)} lines hold {len(found)} objects")
    return found


def choice(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Accuracy by summed log-likelihood, the same per character, Brier's score and the answer's probability.

    The Brier score is the squared distance between the choices' softmax and the truth, in [0, 2] (Brier 1950).
    """
    scores = np.asarray([score for score, _ in results], dtype=np.float64)
    if np.isnan(scores).any():
        return dict.fromkeys(("acc", "acc_norm", "brier", "probability"), math.nan)
    truth = int(doc["answer"])
    lengths = np.asarray([max(1, len(text)) for text in doc["choices"]], dtype=np.float64)
    shifted = np.exp(scores - scores.max())
    probabilities = shifted / shifted.sum()
    target = np.eye(len(scores))[truth]
    return {
        "acc": float(scores.argmax() == truth),
        "acc_norm": float((scores / lengths).argmax() == truth),
        "brier": float(((probabilities - target) ** 2).sum()),
        "probability": float(probabilities[truth]),
    }


def preference(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Log-likelihood margin of the chosen over the rejected answer in nats, and whether it is positive.

    A model's margin above its reference's is a win of DPO's implicit reward (Rafailov et al. 2023, 2305.18290).
    """
    margin = results[0][0] - results[1][0]
    return {"margin": margin, "acc": math.nan if math.isnan(margin) else float(margin > 0)}


def checked_format(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the greedy answer keeps the format that was asked for."""
    from .formats import check_format

    return {"acc": float(check_format(doc["check"], results[0].strip()))}


def refused_or_answered(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the answer is a refusal, and whether it is help: some answer that is none, with the right value where one
    is known."""
    from .refusals import is_refusal, is_right

    truth, answer = json.loads(doc["truth"]), results[0].strip()
    refused = is_refusal(answer, truth["refusals"])
    return {
        "refused": float(refused),
        "answered": float(bool(answer) and not refused and (not truth["value"] or is_right(truth["value"], answer))),
    }


def judged(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The score of a sampled answer against the ground truth."""
    from .formats import judge_answer

    return {"score": float(judge_answer(doc["truth"], results[0].strip()))}


def found(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the continuation is the answer, word for word; blanks between words do not count."""
    return {"acc": float(results[0].split() == doc["answer"].split())}


def perplexity(doc: Mapping[str, Any], results: Sequence[float]) -> dict[str, float]:
    """Negative log-likelihood of a text per token in nats and per byte in bits."""
    total = -results[0]
    size = len(doc["text"].encode("utf-8"))
    return {"nll": total / int(doc["tokens"]), "bits_per_byte": total / (size * math.log(2))}


def position(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Negative log-likelihood per token of a part of a text, in nats."""
    return {"nll": -results[0][0] / int(doc["tokens"])}

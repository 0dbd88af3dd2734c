"""The model's own answers to held-out questions, judged, with what its probes and its probabilities say of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...evals.calibration import Array
from ...evals.context import MeasureContext

if TYPE_CHECKING:
    from ...core.data.questions import Question
    from ...core.model.probes import Probes

Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assessed:
    """N answers: whether each is right, what the probes say of it (log-odds at P depths), and the baselines.

    ``answered`` is the probes' decision, ``keys`` tell the questions apart, ``groups`` what they ask for.
    """

    questions: Sequence[Question]
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    right: Array  # shape: (N,)
    calibrated: Array  # shape: (N,)
    raw: Array  # shape: (N,)
    answered: Flags  # shape: (N,)
    depths: Array  # shape: (N, P)
    softmax: Array  # shape: (N,)
    log_probability: Array  # shape: (N,)

    @classmethod
    def of(cls, ctx: MeasureContext, probes: Probes, questions: Sequence[Question]) -> Assessed:
        """Answer the questions, read the probes and judge the answers; the answers stay as evidence."""
        from ...core.training.own_answers import own_answers
        from ...evals.rightness import Answered, Judge
        from ...evals.undisturbed import undisturbed

        count = len(questions)
        texts = [""] * count
        columns = np.zeros((count, 5 + len(probes.layers)))
        with undisturbed(ctx.model, ctx.tokenizer, ctx.seed):
            batches = own_answers(
                ctx.model,
                ctx.tokenizer,
                [question.text for question in questions],
                batch=ctx.batch_size,
                new_tokens=int(probes.facts["answer_tokens"]),
            )
            for batch in batches:
                domains = [questions[place].domain for place in batch.places]
                read = probes.read(batch.states, spoken=batch.spoken, domain=domains)
                own = (read.calibrated, read.raw, read.answer, batch.softmax, batch.log_probability)
                columns[list(batch.places)] = np.column_stack(
                    [part.float().cpu().numpy() for part in (*own, read.depths)]
                )
                for place, text in zip(batch.places, batch.texts, strict=True):
                    texts[place] = text
        pairs = list(zip(questions, texts, strict=True))
        right = Judge(**probes.facts["label"]).right(
            [Answered(question=one.text, answer=text, truths=one.truths) for one, text in pairs]
        )
        found = cls(
            questions=questions,
            keys=tuple(_key(question) for question in questions),
            groups=tuple(question.group for question in questions),
            right=np.asarray(right, dtype=np.float64),
            calibrated=columns[:, 0],
            raw=columns[:, 1],
            answered=columns[:, 2] > 0,
            softmax=columns[:, 3],
            log_probability=columns[:, 4],
            depths=columns[:, 5:],
        )
        ctx.folder.mkdir(parents=True, exist_ok=True)
        with (ctx.folder / "answers.jsonl").open("w", encoding="utf-8") as file:
            for line in found.lines(texts):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return found

    def lines(self, texts: Sequence[str]) -> Iterable[dict[str, Any]]:
        """Every question with its answer, the verdict on it and the confidence in it."""
        for place, (question, text) in enumerate(zip(self.questions, texts, strict=True)):
            yield {
                "hash": self.keys[place],
                "question": question.text,
                "answer": text,
                "truths": question.truths,
                "domain": question.domain,
                "kind": question.kind,
                "right": bool(self.right[place]),
                "answered": bool(self.answered[place]),
                "confidence": round(float(self.calibrated[place]), 6),
                "raw": round(float(self.raw[place]), 6),
                "softmax": round(float(self.softmax[place]), 6),
                "log_probability": round(float(self.log_probability[place]), 6),
            }

    def tables(self) -> dict[str, Any]:
        """What came of the questions of each kind and of each domain."""
        tables: dict[str, Any] = {}
        for what in ("kind", "domain"):
            names = np.asarray([getattr(question, what) for question in self.questions], dtype=object)
            tables[what] = {
                name: {
                    "questions": int((names == name).sum()),
                    "right": round(float(self.right[names == name].mean()), 4),
                    "answered": round(float(self.answered[names == name].mean()), 4),
                    "confidence": round(float(self.calibrated[names == name].mean()), 4),
                }
                for name in sorted(set(names.tolist()))
            }
        return tables


def _key(question: Question) -> str:
    content = json.dumps([question.text, question.truths, question.group], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]

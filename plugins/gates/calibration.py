"""Does the model know what it knows? Confidence probes against the truth of the model's own answers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...evals.calibration import BINS, Array, aurc, auroc, resampled, spread
from ...evals.context import MeasureContext
from ...evals.intervals import z_quantile
from ...evals.measurement import Measurement, missing
from ...evals.packs import choose
from .measuring import NotMeasured, check_finite, or_missing, view_rows

if TYPE_CHECKING:
    from ...core.data.questions import Question
    from ...core.model.probes import Probes

Flags: TypeAlias = NDArray[np.bool_]

_METRICS = (
    "accuracy_answered",
    "aurc",
    "aurc_gain",
    "aurc_logprob",
    "aurc_softmax",
    "auroc",
    "auroc_gain",
    "auroc_logprob",
    "auroc_softmax",
    "brier",
    "confident_wrong",
    "coverage",
    "coverage_right",
    "e_aurc",
    "ece",
    "ece_inverted",
    "ece_raw",
    "justified",
)
_CURVE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """Which questions, how many bins of confidence, and above what confidence a wrong answer is a confident one.

    ``bootstrap`` is the number of replicates.
    """

    view: str = "unknown"
    split: str = "heldout"
    kinds: tuple[str, ...] = ()
    bins: int = BINS
    threshold: float = 0.9
    bootstrap: int = 1000


class CalibrationGate:
    """Calibration and selective prediction of the model's probes on its own greedy answers to held-out questions.

    Confidence is the calibrated one, decisions are made on the raw one. Metrics: ``ece`` (15 bins), ``ece_raw`` and
    ``ece_inverted`` (before the scale), ``brier``, ``auroc`` and, per depth, ``auroc/1`` …; ``aurc`` and ``e_aurc``;
    ``coverage``, ``coverage_right`` (share of right answers that were given), ``accuracy_answered``, ``justified``
    (share of withheld answers that are wrong), ``confident_wrong`` and ``confident_wrong/<domain>`` (share of all
    answers that are wrong at a confidence above 0.9). Baselines on the same answers: the mean over an answer's tokens
    of the largest probability (``auroc_softmax``, ``aurc_softmax``) and the log-probability of the whole answer
    (``auroc_logprob``, ``aurc_logprob``); ``auroc_gain`` and ``aurc_gain`` say how much better than max-softmax the
    probes are (positive is better for both), by a paired bootstrap. Bootstraps draw whole groups of questions (all
    phrasings of one fact); shares have the interval of their kind, over questions.

    Answers are generated here and once, not through lm-eval: it returns texts only, and hidden states read from a text
    that is encoded anew need not be those that it was generated from. Probes that belong to other weights than the
    model has are measured as they are; the evidence then says ``stale``. All questions unless the criterion says how
    many.
    """

    def __init__(self, config: CalibrationConfig | None = None) -> None:
        self.config = config or CalibrationConfig()

    def measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        return or_missing(_METRICS, lambda: self._measure(ctx))

    def _measure(self, ctx: MeasureContext) -> Mapping[str, Measurement]:
        from ...core.data.questions import questions_of
        from ...core.model.companions import companions_of

        check_finite(ctx)
        probes: Probes | None = companions_of(ctx.model).get("probes")
        if probes is None:
            raise NotMeasured("the model has no probes; fit them in a step with objective: probes")
        rows = choose(view_rows(ctx, self.config.view, self.config.split, self.config.kinds), ctx.documents)
        questions = questions_of(rows)
        unknown = sorted({question.domain for question in questions} - set(probes.penalties))
        if unknown:
            raise NotMeasured(f"the probes have no weight for the domain '{unknown[0]}'")
        stale = probes.stale(ctx.model)
        return _Found.of(ctx, probes, questions).measurements(self.config, ctx.seed, {"stale": stale})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """N answers: whether each is right, what the probes say of it (log-odds at P depths), and the baselines."""

    questions: Sequence[Question]
    keys: tuple[str, ...]
    scale: float
    right: Array  # shape: (N,)
    calibrated: Array  # shape: (N,)
    raw: Array  # shape: (N,)
    answered: Flags  # shape: (N,)
    depths: Array  # shape: (N, P)
    softmax: Array  # shape: (N,)
    log_probability: Array  # shape: (N,)

    @classmethod
    def of(cls, ctx: MeasureContext, probes: Probes, questions: Sequence[Question]) -> _Found:
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
            scale=probes.scale,
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

    def measurements(self, config: CalibrationConfig, seed: int, notes: Mapping[str, Any]) -> dict[str, Measurement]:
        """Everything that the gate reports, with ``notes`` as evidence of each."""
        found = [
            *self._confidence(config, seed, notes),
            *self._gains(config, seed, notes),
            *self._decisions(notes),
            *self._confident(config, notes),
        ]
        return {one.metric: one for one in found}

    def _confidence(self, config: CalibrationConfig, seed: int, notes: Mapping[str, Any]) -> Iterable[Measurement]:
        from ...evals.metrics.confidence import Auroc, Brier, CalibrationError, RiskCoverage

        inverted = 1 / (1 + np.exp(-self.depths.mean(1)))
        groups = [question.group for question in self.questions]
        drawn = {"replicates": config.bootstrap, "seed": seed, "groups": groups}

        def computed(metric: Any, key: str, name: str, scores: Array, **more: Any) -> Measurement:
            found = metric.compute(predictions=scores, references=self.right.astype(int), **drawn, **more)
            return _measured(name, found, key, len(self.right), notes)

        yield computed(CalibrationError(), "ece", "ece", self.calibrated, bins=config.bins)
        yield computed(CalibrationError(), "ece", "ece_inverted", inverted, bins=config.bins)
        yield computed(CalibrationError(), "ece", "ece_raw", self.raw, bins=config.bins)
        squares = (self.calibrated - self.right) ** 2
        yield Measurement(
            metric="brier",
            value=Brier().compute(predictions=self.calibrated, references=self.right.astype(int))["brier"],
            n=len(squares),
            per_document=dict(zip(self.keys, squares.tolist(), strict=True)),
            evidence=notes,
        )
        scores = {"": self.calibrated, "_softmax": self.softmax, "_logprob": self.log_probability}
        for suffix, score in scores.items():
            yield computed(Auroc(), "auroc", f"auroc{suffix}", score)
            tables = {**notes, **self._tables()} if not suffix else notes
            curve = RiskCoverage().compute(predictions=score, references=self.right.astype(int), **drawn)
            thin = np.unique(np.linspace(0, len(curve["risk"]) - 1, _CURVE).round().astype(int))
            points = {key: [curve[key][place] for place in thin] for key in ("coverage", "risk")}
            yield _measured(f"aurc{suffix}", curve, "aurc", len(self.right), {**tables, "curve": points})
            if not suffix:
                yield _measured("e_aurc", curve, "e_aurc", len(self.right), notes)
        for depth in range(self.depths.shape[1]):
            yield computed(Auroc(), "auroc", f"auroc/{depth + 1}", self.depths[:, depth])

    def _gains(self, config: CalibrationConfig, seed: int, notes: Mapping[str, Any]) -> Iterable[Measurement]:
        """Probes against max-softmax on the same draws of groups."""
        weights = resampled([question.group for question in self.questions], max(2, config.bootstrap), seed)
        statistics: dict[str, tuple[Callable[..., Array], float]] = {"auroc": (auroc, 1.0), "aurc": (aurc, -1.0)}
        for name, (statistic, sign) in statistics.items():

            def gain(drawn: Array | None, statistic: Callable[..., Array] = statistic, sign: float = sign) -> Array:
                ours = statistic(self.calibrated, self.right, drawn)
                return np.asarray(sign * (ours - statistic(self.softmax, self.right, drawn)))

            value, half = float(gain(None)), z_quantile(0.95) * spread(gain(weights))
            found = {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
            yield _measured(f"{name}_gain", found, name, len(self.right), notes)

    def _decisions(self, notes: Mapping[str, Any]) -> Iterable[Measurement]:
        from ...evals.metrics.abstention import Abstention

        shares = Abstention().compute(predictions=self.answered.astype(int), references=self.right.astype(int))
        every, right = np.ones(len(self.right), dtype=bool), self.right > 0
        parts: dict[str, tuple[Flags, Flags, str]] = {
            "coverage": (every, self.answered, "no answer"),
            "coverage_right": (right, self.answered, "no answer was right"),
            "accuracy_answered": (self.answered, right, "every answer was withheld"),
            "justified": (~self.answered, ~right, "no answer was withheld"),
        }
        for name, (among, held, why) in parts.items():
            yield self._share(name, shares[name], among, held, why, notes)

    def _confident(self, config: CalibrationConfig, notes: Mapping[str, Any]) -> Iterable[Measurement]:
        from ...evals.metrics.abstention import ConfidentWrong

        metric = ConfidentWrong()
        bad = (self.calibrated > config.threshold) & (self.right == 0)
        domains = np.asarray([question.domain for question in self.questions], dtype=object)
        for domain in (None, *sorted(set(domains.tolist()))):
            among = np.ones(len(bad), dtype=bool) if domain is None else domains == domain
            value = metric.compute(
                predictions=self.calibrated[among], references=self.right[among].astype(int), threshold=config.threshold
            )["confident_wrong"]
            name = "confident_wrong" if domain is None else f"confident_wrong/{domain}"
            yield self._share(name, value, among, bad, "no answer", notes)

    def _share(
        self, name: str, value: float, among: Flags, held: Flags, why: str, notes: Mapping[str, Any]
    ) -> Measurement:
        """The share of the documents ``among`` that have what was ``held``."""
        if not among.any():
            return missing(name, why)
        documents = {key: float(has) for key, has, one in zip(self.keys, held, among, strict=True) if one}
        return Measurement(
            metric=name, value=value, n=len(documents), kind="proportion", per_document=documents, evidence=notes
        )

    def _tables(self) -> dict[str, Any]:
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


def _measured(name: str, found: Mapping[str, Any], key: str, n: int, notes: Mapping[str, Any]) -> Measurement:
    value = float(found[key])
    if not math.isfinite(value):
        return missing(name, "the answers are all right or all wrong, so nothing can be ranked")
    bounds = (float(found.get(f"{key}_low", math.nan)), float(found.get(f"{key}_high", math.nan)))
    interval = bounds if all(map(math.isfinite, bounds)) else None
    return Measurement(metric=name, value=value, n=n, interval=interval, evidence=notes)


def _key(question: Question) -> str:
    content = json.dumps([question.text, question.truths, question.domain], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]

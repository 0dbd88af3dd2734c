"""Does the model know what it knows? Confidence probes against the truth of the model's own answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evals.calibration import BINS, Array, aurc, auroc, resampled, spread
from ...evals.context import MeasureContext
from ...evals.intervals import z_quantile
from ...evals.measurement import Measurement, missing
from ...evals.packs import choose
from .assessed import Assessed, Flags
from .measuring import NotMeasured, check_finite, or_missing, view_rows

if TYPE_CHECKING:
    from ...core.model.probes import Probes

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
_RANKS = ("auroc", "aurc", "e_aurc")
_POINTS = 50  # of a risk-coverage curve, in the evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """Which questions (those of ``view`` and ``split``, of the ``kinds`` named or of all), how many ``bins`` of
    confidence, and above what confidence, ``threshold``, a wrong answer is a confident one.

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
    ``ece_inverted`` (before the scale), ``brier``, ``auroc`` and ``auroc/<depth>`` (1 …); ``aurc`` and ``e_aurc``;
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
        report = _Report(
            answers=Assessed.of(ctx, probes, questions),
            config=self.config,
            seed=ctx.seed,
            notes={"stale": probes.stale(ctx.model)},
        )
        return report.measurements()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """Measurements of assessed answers; ``notes`` is evidence of each."""

    answers: Assessed
    config: CalibrationConfig
    seed: int
    notes: Mapping[str, Any]

    def measurements(self) -> dict[str, Measurement]:
        """Everything that the gate reports, by metric."""
        right = self.answers.right
        found = [*self._fit(), *self._ranking(), *self._gains(), *self._decisions(), *self._confident()]
        if 0 < right.sum() < len(right):
            return {one.metric: one for one in found}
        reason = "the answers are all right or all wrong, so nothing can be ranked"
        return {one.metric: missing(one.metric, reason) if one.metric.startswith(_RANKS) else one for one in found}

    def _fit(self) -> Iterable[Measurement]:
        """How well confidence fits the truth."""
        from ...evals.metrics.confidence import Brier, CalibrationError

        answers = self.answers
        inverted = 1 / (1 + np.exp(-answers.depths.mean(1)))
        for name, scores in (("ece", answers.calibrated), ("ece_inverted", inverted), ("ece_raw", answers.raw)):
            yield self._interval(name, "ece", self._computed(CalibrationError(), scores, bins=self.config.bins))
        squares = (answers.calibrated - answers.right) ** 2
        yield Measurement(
            metric="brier",
            value=Brier().compute(predictions=answers.calibrated, references=answers.right.astype(int))["brier"],
            n=len(squares),
            per_document=dict(zip(answers.keys, squares.tolist(), strict=True)),
            evidence=self.notes,
        )

    def _ranking(self) -> Iterable[Measurement]:
        """How well confidence, each depth and the baselines tell right answers from wrong ones."""
        from ...evals.metrics.confidence import Auroc, RiskCoverage

        answers = self.answers
        baselines = {"_softmax": answers.softmax, "_logprob": answers.log_probability}
        for suffix, scores in {"": answers.calibrated, **baselines}.items():
            yield self._interval(f"auroc{suffix}", "auroc", self._computed(Auroc(), scores))
            curve = self._computed(RiskCoverage(), scores)
            thin = np.unique(np.linspace(0, len(curve["risk"]) - 1, _POINTS).round().astype(int))
            notes = {"curve": {key: [curve[key][place] for place in thin] for key in ("coverage", "risk")}}
            if not suffix:
                yield self._interval("e_aurc", "e_aurc", curve)
                notes |= answers.tables()
            yield self._interval(f"aurc{suffix}", "aurc", curve, notes)
        for depth in range(answers.depths.shape[1]):
            yield self._interval(f"auroc/{depth + 1}", "auroc", self._computed(Auroc(), answers.depths[:, depth]))

    def _gains(self) -> Iterable[Measurement]:
        """Probes against max-softmax, both on the same draws of groups."""
        answers = self.answers
        weights = resampled(answers.groups, max(2, self.config.bootstrap), self.seed)
        statistics: tuple[tuple[str, Callable[..., Array], float], ...] = (("auroc", auroc, 1.0), ("aurc", aurc, -1.0))
        for name, statistic, sign in statistics:
            value = sign * (statistic(answers.calibrated, answers.right) - statistic(answers.softmax, answers.right))
            ours, theirs = (statistic(one, answers.right, weights) for one in (answers.calibrated, answers.softmax))
            half = z_quantile(0.95) * spread(ours - theirs)
            yield self._interval(
                f"{name}_gain", name, {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
            )

    def _decisions(self) -> Iterable[Measurement]:
        """What answering and withholding come to."""
        from ...evals.metrics.abstention import Abstention

        answers, right = self.answers, self.answers.right > 0
        shares = Abstention().compute(predictions=answers.answered.astype(int), references=right.astype(int))
        parts: dict[str, tuple[Flags, Flags, str]] = {
            "coverage": (np.ones(len(right), dtype=bool), answers.answered, "no answer"),
            "coverage_right": (right, answers.answered, "no answer was right"),
            "accuracy_answered": (answers.answered, right, "every answer was withheld"),
            "justified": (~answers.answered, ~right, "no answer was withheld"),
        }
        for name, (among, held, why) in parts.items():
            yield self._share(name, shares[name], among, held) if among.any() else missing(name, why)

    def _confident(self) -> Iterable[Measurement]:
        """Wrong answers at a high confidence, in all and by domain."""
        from ...evals.metrics.abstention import ConfidentWrong

        answers, threshold = self.answers, self.config.threshold
        bad = (answers.calibrated > threshold) & (answers.right == 0)
        domains = np.asarray([question.domain for question in answers.questions], dtype=object)
        members = {f"/{domain}": domains == domain for domain in sorted(set(domains.tolist()))}
        for suffix, among in {"": np.ones(len(bad), dtype=bool), **members}.items():
            value = ConfidentWrong().compute(
                predictions=answers.calibrated[among], references=answers.right[among].astype(int), threshold=threshold
            )
            yield self._share(f"confident_wrong{suffix}", value["confident_wrong"], among, bad)

    def _computed(self, metric: Any, scores: Array, **options: Any) -> dict[str, Any]:
        answers = self.answers
        found: dict[str, Any] = metric.compute(
            predictions=scores,
            references=answers.right.astype(int),
            replicates=self.config.bootstrap,
            seed=self.seed,
            groups=answers.groups,
            **options,
        )
        return found

    def _interval(
        self, name: str, key: str, found: Mapping[str, Any], notes: Mapping[str, Any] | None = None
    ) -> Measurement:
        bounds = (float(found.get(f"{key}_low", math.nan)), float(found.get(f"{key}_high", math.nan)))
        return Measurement(
            metric=name,
            value=float(found[key]),
            n=len(self.answers.right),
            interval=bounds if all(map(math.isfinite, bounds)) else None,
            evidence={**self.notes, **(notes or {})},
        )

    def _share(self, name: str, value: float, among: Flags, held: Flags) -> Measurement:
        """The share of the documents ``among`` that have what was ``held``."""
        documents = {key: float(has) for key, has, one in zip(self.answers.keys, held, among, strict=True) if one}
        return Measurement(
            metric=name,
            value=value,
            n=len(documents),
            kind="proportion",
            per_document=documents,
            evidence=self.notes,
        )

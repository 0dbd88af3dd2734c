"""The step that fits confidence probes: the model answers, its answers are judged, its frozen states are read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...registry.options import parse
from ..config.objectives import ProbeOptions
from ..data.questions import Question, divide, questions_of
from .seeds import derive
from .step import StepOrder, StepResult, Workshop

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..model.probes import Probes

Array: TypeAlias = NDArray[np.float64]
Read: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """N own answers: what was read of each at P depths (end of the prompt, answer), whether it is right, its domain."""

    states: Read  # shape: (N, P, 2, d)
    right: Array  # shape: (N,), 0 or 1
    domains: tuple[str, ...]

    def penalties(self, weights: Mapping[str, float]) -> Array:
        """The weight of a wrong answer, by answer. shape: (N,)"""
        return np.asarray([weights[domain] for domain in self.domains], dtype=np.float64)


def fit_probes(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> StepResult:
    """Fit probes to the model's own answers to the view's training questions and attach them, in place of older ones.

    No weight and no global random state changes. Folds and sampled answers follow from ``order.identity``; batches
    have the step's number of rows. Every depth is fitted for itself, on greedy and sampled answers to all questions;
    scale and shift are fitted to scores of greedy answers by probes that learnt from the other folds (cross-fitting:
    every question calibrates, none that its probes have seen). The log row has the share of right answers, and what
    the probes come to on what they learnt from and on the folds they did not see.
    """
    from ...evals.undisturbed import undisturbed
    from ..model.companions import attach

    started = time.perf_counter()
    section = order.section
    options: ProbeOptions = parse(ProbeOptions, section.options, f"phases.{order.phase}.steps.{order.name} (probes)")
    every = questions_of(shop.corpus.rows(section.view, "train", section.kinds))
    questions, folds = divide(every, options, derive(order.identity, order.name, "folds"))
    work = _Work(shop=shop, order=order, model=model, options=options)
    with undisturbed(model, seed=derive(order.identity, order.name, "answers")):
        greedy = work.answers(questions)
        known = _joined([greedy, *(work.answers(questions, sampled=True) for _ in range(options.sampled))])
    probes, unseen = work.fit(known, greedy, np.asarray(folds))
    seen = _logits(greedy, *_double(probes))
    row = {
        "step": 0.0,
        **_row("probes/learnt", seen, probes, greedy),
        **_row("probes/calibration", unseen, probes, greedy),
    }
    attach(model, "probes", probes)
    seconds = time.perf_counter() - started
    return StepResult(history=(row,), tokens=0, seconds=seconds, bump=None, notes=_notes(greedy))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    shop: Workshop
    order: StepOrder
    model: Any
    options: ProbeOptions

    def answers(self, questions: Sequence[Question], *, sampled: bool = False) -> Judged:
        """Own answers with what is read of them, in the order of the questions."""
        from ...evals.rightness import Answered, Judge
        from ..training.own_answers import own_answers

        texts = [""] * len(questions)
        found: list[Any] = [None] * len(questions)
        layers = self._layers()
        batches = own_answers(
            self.model,
            self.shop.tokenizer,
            [question.text for question in questions],
            batch=self.order.section.rows,
            new_tokens=self.options.answer_tokens,
            sampled=sampled,
            check=self.shop.interruption.check,
        )
        for batch in batches:
            for place, text, read in zip(batch.places, batch.texts, self._read(batch, layers), strict=True):
                texts[place], found[place] = text, read
        judge = Judge(label=self.options.label, f1=self.options.f1, entailment=self.options.entailment)
        pairs = zip(questions, texts, strict=True)
        right = judge.right([Answered(question=one.text, answer=text, truths=one.truths) for one, text in pairs])
        return Judged(
            states=np.stack(found),
            right=np.asarray(right, dtype=np.float64),
            domains=tuple(question.domain for question in questions),
        )

    def fit(self, known: Judged, greedy: Judged, folds: NDArray[np.int64]) -> tuple[Probes, Array]:
        """Probes of every depth, and log-odds of the greedy answers by probes that saw nothing of their fold.

        ``known`` holds the greedy answers first and then as many sampled ones, each time in the order of ``folds``.
        """
        import torch

        from ..model.companions import trunk_digest
        from ..model.probes import Probes
        from ..training.probing import fit_scale

        options = self.options
        unseen = np.zeros(len(folds))
        owners = np.tile(folds, len(known.right) // len(folds))
        for fold in range(options.folds):
            weight, bias = self._depths(known, owners != fold)
            unseen[folds == fold] = _logits(greedy, weight, bias)[folds == fold]
        weight, bias = self._depths(known, np.ones(len(owners), dtype=bool))
        scale, shift = fit_scale(unseen, greedy.right)
        probes = Probes(
            layers=self._layers(),
            weight=torch.tensor(weight, dtype=torch.float32),
            bias=torch.tensor(bias, dtype=torch.float32),
            penalties=dict(options.penalties),
            position=options.position,
            pool=options.pool,
            trunk=trunk_digest(self.model),
            scale=scale,
            shift=shift,
            facts={
                "answer_tokens": options.answer_tokens,
                "answers": len(known.right),
                "label": {"label": options.label, "f1": options.f1, "entailment": options.entailment},
                "questions": len(greedy.right),
                "right": float(greedy.right.mean()),
            },
        )
        return probes, unseen

    def _depths(self, known: Judged, rows: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Every depth fitted on some of the answers. shape: (N, P, 2, d) -> (P, 2, d), (P,)"""
        from ..training.probing import fit_depth

        used = {"prompt": [0], "answer": [1], "both": [0, 1]}[self.options.position]
        penalties = known.penalties(self.options.penalties)[rows]
        _, depths, _, width = known.states.shape
        weight, bias = np.zeros((depths, 2, width)), np.zeros(depths)
        for depth in range(depths):
            features = known.states[:, depth, used][rows].reshape(int(rows.sum()), -1).astype(np.float64)
            fitted, bias[depth] = fit_depth(features, known.right[rows], penalties, self.options.strength)
            weight[depth, used] = fitted.reshape(len(used), width)
        return weight, bias

    def _layers(self) -> tuple[int, ...]:
        from ..model.probes import layers_at

        return layers_at(self.options.layers, int(self.model.config.num_hidden_layers))

    def _read(self, batch: Any, layers: tuple[int, ...]) -> Read:
        """What is read of each answer. shape: L + 1 times (B, T, d) -> (B, P, 2, d)"""
        import torch

        from ..model.probes import normalised

        states = torch.stack([normalised(batch.states[layer]) for layer in layers], 2)  # shape: (B, T, P, d)
        spoken, counts = batch.spoken, batch.spoken.sum(1)
        if self.options.pool == "last":
            answer = states[torch.arange(len(states), device=states.device), counts - 1]
        else:
            answer = (states * spoken[..., None, None]).sum(1) / counts[:, None, None]
        found: Read = torch.stack([states[:, 0], answer], 2).cpu().numpy()
        return found


def _double(probes: Probes) -> tuple[Array, Array]:
    return probes.weight.double().numpy(), probes.bias.double().numpy()


def _logits(judged: Judged, weight: Array, bias: Array) -> Array:
    """Log-odds of answers, averaged over depths. shape: (N, P, 2, d), (P, 2, d), (P,) -> (N,)"""
    scores = np.einsum("npkd,pkd->np", judged.states.astype(np.float64), weight) + bias
    return np.asarray(scores.mean(1), dtype=np.float64)


def _row(name: str, logits: Array, probes: Probes, judged: Judged) -> dict[str, float]:
    """What log-odds come to; values that do not exist are left out."""
    from ...evals.calibration import aurc, auroc, calibration_error

    calibrated = 1 / (1 + np.exp(-(probes.scale * logits + probes.shift)))
    raw = 1 / (1 + judged.penalties(probes.penalties) * np.exp(-logits))
    values = {
        "answers": float(len(judged.right)),
        "right": float(judged.right.mean()),
        "ece": float(calibration_error(calibrated, judged.right)),
        "ece_raw": float(calibration_error(raw, judged.right)),
        "auroc": float(auroc(calibrated, judged.right)),
        "aurc": float(aurc(calibrated, judged.right)),
        "coverage": float((raw > 0.5).mean()),
    }
    return {f"{name}/{key}": value for key, value in values.items() if np.isfinite(value)}


def _notes(greedy: Judged) -> tuple[str, ...]:
    count = len(greedy.right)
    if 0 < greedy.right.sum() < count:
        return ()
    word = "right" if greedy.right.any() else "wrong"
    return (f"all {count} of the model's own answers are {word}: the probes had nothing to tell apart",)


def _joined(parts: Sequence[Judged]) -> Judged:
    return Judged(
        states=np.concatenate([part.states for part in parts]),
        right=np.concatenate([part.right for part in parts]),
        domains=tuple(domain for part in parts for domain in part.domains),
    )

"""The step that captures a safety anchor: prompts of both sides in, a guard on the model out, its rates measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...registry.errors import DataError
from ...registry.options import parse
from ..config.objectives import AnchorOptions
from .anchor_prompts import Tokens, divide, render, two_sides, usual_refusal
from .seeds import derive
from .step import StepOrder, StepResult, Workshop

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ..config.schema import StepSection
    from ..model.anchors import Guard, Rate
    from .plan import Plan


def capture_anchor(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> StepResult:
    """Capture the step's anchor on this model and attach the guard; no weight and no global random state changes.

    The prompts of each side are drawn into three parts from ``order.identity``: the anchor learns from the first, its
    threshold and the limit for answers are set on the second, and rates are measured on the third, which nothing else
    has seen. Where answers are watched, prompt and answer get half of ``false_positives`` each, so that a benign
    request is vetoed at either with at most that probability.
    Raises ``DataError`` for a side without prompts, or too few benign ones for the promised rate.
    """
    import torch

    from ...evals.undisturbed import undisturbed
    from ..model.companions import attach

    started = time.perf_counter()
    section, label = order.section, f"phases.{order.phase}.steps.{order.name}"
    options = _options(section, label)
    requests = two_sides(shop.corpus.rows(section.view, "train", section.kinds), options, label)
    parts = divide(requests, options, derive(order.identity, order.name, "anchor"))
    limit = section.sequence_length or shop.length
    work = _Work(
        shop=shop,
        order=order,
        label=label,
        model=model,
        share=_share(options),
        capture=render(shop.tokenizer, parts.capture, limit),
        calibration=render(shop.tokenizer, parts.calibration, limit),
        measured=render(shop.tokenizer, parts.measured, limit),
    )
    shop.interruption.check()
    if torch.cuda.is_available():
        # Where it is trained: elsewhere the last bits differ, and the penalty would not start at 0.
        model.to(torch.device("cuda", torch.cuda.current_device()))
    with undisturbed(model):
        guard = work.guard(options.refusal or usual_refusal(parts.all, label), options.every)
    attach(model, "anchor", guard)
    row: dict[str, float] = {"step": 0.0}
    for name, rate in guard.rates.items():
        row |= {f"anchor/{name}": rate.value, f"anchor/{name}/low": rate.low, f"anchor/{name}/high": rate.high}
        row[f"anchor/{name}/prompts"] = float(rate.n)
    left_out = len(parts.all) - len(work.capture) - len(work.calibration) - len(work.measured)
    notes = (f"{left_out} prompts of more than {limit} tokens were left out",) if left_out else ()
    return StepResult(history=(row,), tokens=0, seconds=time.perf_counter() - started, bump=None, notes=notes)


def check_anchor(plan: Plan, label: str, section: StepSection) -> None:
    """Refuse, before anything is trained, data from which the step's anchor could not be captured."""
    from ..data.two_sided import check_two_sided
    from ..model.anchors import needed_for

    check_two_sided(plan, label, section)
    options = _options(section, label)
    parts = divide(two_sides(plan.corpus.rows(section.view, "train", section.kinds), options, label), options, seed=0)
    if options.refusal is None:
        usual_refusal(parts.all, label)
    needed, count = needed_for(_share(options)), sum(not request.harmful for request in parts.calibration)
    if count < needed:
        raise DataError(
            f"{label} would set its thresholds on {count} benign prompts, but {needed} are needed to promise that at "
            f"most {options.false_positives:.2%} are vetoed; add benign prompts, or raise calibration or "
            "false_positives in its options."
        )


def _options(section: StepSection, label: str) -> AnchorOptions:
    options: AnchorOptions = parse(AnchorOptions, section.options, f"{label} (anchor)")
    return options


def _share(options: AnchorOptions) -> float:
    return options.false_positives / 2 if options.every else options.false_positives


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One capture. Batches have the step's number of rows: that of evaluation must not change any bit."""

    shop: Workshop
    order: StepOrder
    label: str
    model: Any
    share: float
    capture: Sequence[Tokens]
    calibration: Sequence[Tokens]
    measured: Sequence[Tokens]

    def guard(self, refusal: str, every: int) -> Guard:
        """The captured guard with its rates."""
        import torch

        from ..model.anchors import Guard, Material
        from ..model.companions import trunk_digest
        from ..model.states import final_states

        reference = self.order.section.anchor
        assert reference is not None
        entry = self.shop.registry.get("anchor", reference.use)
        anchor = self.shop.registry.build("anchor", entry.ref, reference.options)
        known = [*self.capture, *self.calibration]
        prompts, batch = [one.prompt for one in known], self.order.section.rows
        with torch.no_grad():
            hidden = final_states(self.model, prompts, batch).float().cpu()
        if not bool(torch.isfinite(hidden).all()):
            raise DataError(
                f"{self.label} finds hidden states that are no finite numbers: the model has diverged, and no anchor "
                "can be captured on it; go back to an earlier stage."
            )
        anchor.capture(
            self.model,
            Material(
                prompts=prompts,
                hidden=hidden,
                harmful=torch.tensor([one.harmful for one in known]),
                calibration=torch.arange(len(known)) >= len(self.capture),
                kinds=[one.kind for one in known],
                false_positives=self.share,
                seed=derive(self.order.identity, self.order.name, "capture"),
                batch=batch,
            ),
        )
        guard = Guard(
            reference=entry.ref,
            revision=entry.component.revision,
            options=dict(reference.options),
            anchor=anchor,
            digest=trunk_digest(self.model),
            refusal=refusal,
            every=every,
        )
        with torch.no_grad():
            guard = replace(guard, running=self._limit(guard)) if every else guard
            return replace(guard, rates=self._rates(guard))

    def _limit(self, guard: Guard) -> float:
        """The limit for states inside answers, set over *all* tokens of answers, so that it holds wherever answers are
        looked at: benign answers below, and what harmful prompts should not get above, if that is possible."""
        from ..model.anchors import threshold_for

        benign = [one for one in self.calibration if not one.harmful and one.good]
        harmful = [one for one in self.calibration if one.harmful and one.bad]
        return threshold_for(
            self._peaks(guard, [(one.good or [], len(one.prompt)) for one in benign]),
            self.share,
            [one.kind for one in benign],
            self._peaks(guard, [(one.bad or [], len(one.prompt)) for one in harmful]),
        )

    def _peaks(self, guard: Guard, answers: Sequence[tuple[list[int], int]]) -> torch.Tensor:
        """The highest score inside each answer, shape (N,), given with its prompt and where it begins."""
        import torch

        from ..model.states import answer_states

        peaks = torch.zeros(len(answers))
        rows, starts = [row for row, _ in answers], [start for _, start in answers]
        for places, states, spoken in answer_states(self.model, rows, starts, self.order.section.rows):
            scores = guard.anchor.score(states).masked_fill(~spoken, -torch.inf)
            peaks[places] = scores.max(1).values.float().cpu()
        return peaks

    def _rates(self, guard: Guard) -> dict[str, Rate]:
        """What the guard does with prompts that nothing was set on, and with the answers given to them: what a harmful
        prompt should not get, what a benign one should."""
        from ..model.anchors import rate_of
        from ..model.states import answer_states, final_states

        rates, batch = {}, self.order.section.rows
        for harmful, name in ((True, "detected"), (False, "false_positive_rate")):
            side = [one for one in self.measured if one.harmful == harmful]
            if not side:
                continue
            vetoed = guard.vetoes(final_states(self.model, [one.prompt for one in side], batch)).tolist()
            rates[name] = rate_of(vetoed)
            for kind in sorted({one.kind for one in side}):
                own = [veto for one, veto in zip(side, vetoed, strict=True) if one.kind == kind]
                rates[f"{name}/{kind}"] = rate_of(own)
            answered = [
                (veto, answer, len(one.prompt))
                for one, veto in zip(side, vetoed, strict=True)
                if (answer := one.bad if harmful else one.good)
            ]
            if not guard.every or not answered:
                continue
            either = [veto for veto, _, _ in answered]
            rows, starts = [answer for _, answer, _ in answered], [start for _, _, start in answered]
            for places, states, spoken in answer_states(self.model, rows, starts, batch):
                for place, veto in zip(places, guard.vetoes_answers(states, spoken).tolist(), strict=True):
                    either[place] = either[place] or veto
            rates[f"{name}_with_answer"] = rate_of(either)
        return rates

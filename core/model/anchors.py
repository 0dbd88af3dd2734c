"""Safety anchors: components that watch final hidden states, and the guard that travels with a model and vetoes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch

from ...evals.intervals import wilson
from ...registry.errors import DataError, PhasegateError, StoreError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Saved = tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What an anchor is captured from: N prompts as token ids, up to where an answer would begin, in an order drawn
    from the step's seed, with the final hidden states at their last tokens.

    Prompts of ``calibration`` are for thresholds only, not for what the thresholds are set on. ``false_positives`` is
    the share of benign prompts, of every kind, that may be vetoed. ``batch`` prompts ran together for ``hidden``.
    """

    prompts: Sequence[Sequence[int]]
    hidden: torch.Tensor  # shape: (N, d), fp32
    harmful: torch.Tensor  # shape: (N,), bool
    calibration: torch.Tensor  # shape: (N,), bool
    kinds: Sequence[str]
    false_positives: float
    seed: int
    batch: int


class Anchor(Protocol):
    """A safety anchor component, built as ``target(config)`` (``target()`` if it takes no options).

    It watches the final hidden state (after the last norm) and knows nothing of generation. It holds no reference to a
    model, so that it can be copied and saved.
    """

    def capture(self, model: Any, material: Material) -> None:
        """Learn what to watch for. The model's weights stay as they are; equal material gives an equal anchor."""

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """A score per state, shape (..., d) -> (...), on the states' device: above 0 is a veto."""

    def penalty(self, model: Any, turn: int | None = None) -> torch.Tensor:
        """A scalar with gradient that is exactly 0 for the model as captured and positive once the anchor would see
        less. An anchor that looks at a part of its evidence at a time takes the part from ``turn`` (None: all)."""

    def save(self) -> Saved:
        """Facts as JSON data and tensors by name, from which ``restore`` makes the same anchor bit for bit."""

    def restore(self, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what ``save`` gave, in place of ``capture``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A measured share of ``n`` prompts; each end of the Wilson interval is a one-sided 95 % bound."""

    value: float
    n: int
    low: float
    high: float


def rate_of(hits: Sequence[bool]) -> Rate:
    """The share of hits with its interval; NaN over nothing."""
    low, high = wilson(sum(hits), len(hits))
    return Rate(value=sum(hits) / len(hits) if hits else math.nan, n=len(hits), low=low, high=high)


def threshold_for(
    benign: torch.Tensor, share: float, kinds: Sequence[str] = (), harmful: torch.Tensor | None = None
) -> float:
    """The score that at most ``share`` of new benign prompts exceed, whatever the scores' distribution, and of every
    one of ``kinds`` (one per benign score) that has prompts enough to tell.

    The ceil((n + 1) (1 - share))-th smallest of n: for exchangeable prompts the expected share above it is at most
    ``share`` (split conformal prediction: Papadopoulos 2002; by kind, Vovk 2012, 1209.2673). The highest of these over
    the kinds, since a rare kind could be vetoed altogether within the share of all. Where the scores that all but
    ``share`` of the ``harmful`` ones exceed lie higher, halfway to them: prompts that are phrased otherwise score
    otherwise, and the edge of one side is no place for a threshold if there is room.
    ``DataError`` where all benign scores together are too few.
    """
    groups = [benign] + [
        benign[torch.tensor([kind == name for kind in kinds])] for name in kinds_with_enough(kinds, share)
    ]
    places = [math.ceil((len(group) + 1) * (1.0 - share) - 1e-9) for group in groups]
    if places[0] > len(benign):
        raise DataError(
            f"{len(benign)} benign calibration prompts cannot promise that at most {share:.2%} are vetoed; "
            f"{needed_for(share)} can: give more benign prompts, a larger calibration share, or a higher "
            "false_positives."
        )
    lowest = max(float(group.double().sort().values[place - 1]) for group, place in zip(groups, places, strict=True))
    if harmful is None or not len(harmful):
        return lowest
    place = max(1, math.floor((len(harmful) + 1) * share + 1e-9))
    return max(lowest, (lowest + float(harmful.double().sort().values[place - 1])) / 2)


def kinds_with_enough(kinds: Sequence[str], share: float) -> list[str]:
    """The kinds of which there are enough to promise them their own share, sorted."""
    return sorted(name for name, count in Counter(kinds).items() if count >= needed_for(share))


def needed_for(share: float) -> int:
    """How many scores ``threshold_for`` needs."""
    return math.ceil(1.0 / share - 1e-9) - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guard:
    """An anchor in service of one model: it vetoes prompts and answers, and says how well it does.

    ``reference``, ``revision`` and ``options`` name the anchor component; ``digest`` is the trunk it was captured on;
    ``rates`` were measured on prompts that took no part in the capture. ``refusal`` is what is answered instead.
    Answers are looked at at every ``every``-th token and at their end (0: not at all), against the limit ``running``,
    since states inside an answer score differently from states at the end of a prompt.
    """

    reference: str
    revision: int
    options: Mapping[str, Any]
    anchor: Anchor
    digest: str
    refusal: str
    rates: Mapping[str, Rate] = field(default_factory=dict)
    every: int = 0
    running: float = 0.0

    def vetoes(self, hidden: torch.Tensor) -> torch.Tensor:
        """Which states are vetoed, shape (..., d) -> (...), bool; a state that is no finite number always is."""
        return self._unsafe(hidden, 0.0)

    def vetoes_answers(self, hidden: torch.Tensor, spoken: torch.Tensor) -> torch.Tensor:
        """Which answers are vetoed, shape (B,), bool, by the states (B, T, d) of their ``spoken`` tokens (B, T)."""
        if not self.every:
            return torch.zeros(len(spoken), dtype=torch.bool, device=spoken.device)
        number = spoken.cumsum(1)
        looked_at = spoken & ((number % self.every == 0) | (number == number[:, -1:]))
        return (self._unsafe(hidden, self.running) & looked_at).any(1)

    def stale(self, model: Any) -> bool:
        """Whether the model's weights are others than those the anchor was captured on, so that its rates are not
        known for them."""
        from .companions import trunk_digest

        return trunk_digest(model) != self.digest

    def _unsafe(self, hidden: torch.Tensor, limit: float) -> torch.Tensor:
        score = self.anchor.score(hidden)
        if score.shape != hidden.shape[:-1]:
            raise StoreError(
                f"The anchor {self.reference} gave scores of shape {tuple(score.shape)} for states of shape "
                f"{tuple(hidden.shape)}; nothing is answered until its package is mended."
            )
        # Written so that NaN, which compares false, is a veto.
        return ~(torch.isfinite(hidden).all(-1) & (score <= limit))

    def save(self) -> Saved:
        """Everything as JSON data, and the anchor's tensors."""
        facts, tensors = self.anchor.save()
        return {
            "anchor": self.reference,
            "revision": self.revision,
            "options": dict(self.options),
            "captured": dict(facts),
            "digest": self.digest,
            "refusal": self.refusal,
            "rates": {name: asdict(rate) for name, rate in self.rates.items()},
            "every": self.every,
            "running": self.running,
        }, tensors

    @classmethod
    def restore(
        cls, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, registry: Any
    ) -> Self:
        """The guard of this model. Raises ``StoreError`` unless its component is there, in the revision that captured
        it, takes its options, and scores this model's states: a model is never loaded without its anchor."""
        reference = facts.get("anchor")
        try:
            entry = registry.get("anchor", str(reference))
            if entry.component.revision != facts["revision"]:
                raise StoreError(
                    f"it was captured by revision {facts['revision']} of it and revision {entry.component.revision} is "
                    "installed"
                )
            anchor: Anchor = registry.build("anchor", entry.ref, facts["options"])
            anchor.restore(facts["captured"], tensors)
            guard = cls(
                reference=entry.ref,
                revision=int(facts["revision"]),
                options=dict(facts["options"]),
                anchor=anchor,
                digest=str(facts["digest"]),
                refusal=str(facts["refusal"]),
                rates={str(name): Rate(**rate) for name, rate in facts["rates"].items()},
                every=int(facts["every"]),
                running=float(facts["running"]),
            )
            guard.vetoes(torch.zeros(1, model.config.hidden_size))
            numbers = [anchor.score(torch.zeros(1, model.config.hidden_size)), torch.tensor(guard.running)]
            numbers += [tensor for tensor in tensors.values() if tensor.is_floating_point()]
            broken = not all(bool(torch.isfinite(number).all()) for number in numbers)
        except PhasegateError as error:
            raise StoreError(
                f"The model's safety anchor '{reference}' cannot be put in place ({str(error).rstrip('.')}), and "
                "without it the model is not loaded; name the anchor's package, or capture the anchor again."
            ) from error
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise StoreError(
                f"What was saved of the model's safety anchor '{reference}' is damaged ({type(error).__name__}: "
                f"{error}), and without it the model is not loaded; copy the model again, or capture the anchor again."
            ) from error
        if broken:
            raise StoreError(
                f"The model's safety anchor '{reference}' holds numbers that are not finite, and without it the model "
                "is not loaded; copy the model again, or capture the anchor again."
            )
        return guard

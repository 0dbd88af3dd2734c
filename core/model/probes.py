"""Confidence probes: linear reads of frozen hidden states that say how likely the model's own answer is right.

At each of P depths a probe reads the state at the end of the prompt (which predicts the first answer token) and the
states that predict the answer's tokens, all divided by their root mean square:

    a_l,t = u_l . h_l,0 + v_l . h_l,t + b_l            token t of an answer
    a     = mean over depths and tokens of a_l,t       log-odds that the answer is right
    c     = sigmoid(a - ln w)                          raw: what the asymmetric loss of a domain with weight w asks for
    p     = sigmoid(scale * a + shift)                 calibrated: what is reported
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch

from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean, listing
from .companions import trunk_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Domains = str | Sequence[str] | None
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What probes say of B answers of at most T tokens.

    ``calibrated`` is the probability that an answer is right, ``tokens`` the same from each token's state (NaN behind
    an answer's end), ``raw`` the score that ``answer`` is decided on, ``depths`` the log-odds at each of P depths.
    """

    calibrated: torch.Tensor  # shape: (B,)
    raw: torch.Tensor  # shape: (B,)
    answer: torch.Tensor  # shape: (B,), bool
    tokens: torch.Tensor  # shape: (B, T)
    depths: torch.Tensor  # shape: (B, P)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probes:
    """Probes of one model.

    ``layers`` are indices into the model's hidden states (0 is the embedding). ``weight`` (P, 2, d) holds u and v,
    ``bias`` (P,) is b. ``penalties`` are the weights w of a wrong answer by domain; a right one weighs 1. ``position``
    says what is read (``prompt``: v is 0; ``answer``: u is 0; ``both``), ``pool`` what stands for an answer: the
    ``mean`` of its tokens' log-odds or the ``last``. ``trunk`` is the digest of the weights that the probes were
    fitted to; ``facts`` says how.
    """

    layers: tuple[int, ...]
    weight: torch.Tensor
    bias: torch.Tensor
    penalties: Mapping[str, float]
    position: str
    pool: str
    trunk: str
    scale: float = 1.0
    shift: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def read(
        self,
        hidden_states: Sequence[torch.Tensor],
        start: int = 0,
        spoken: torch.Tensor | None = None,
        domain: Domains = None,
    ) -> Reading:
        """Read the hidden states of whole answers: L + 1 tensors (B, N, d).

        Position ``start`` is the end of the prompt; it predicts the first token of the answer, and each later position
        the next one. ``spoken`` (B, T) says which tokens belong to the answers (all if not given).
        ``domain`` is as in ``confidence``.
        """
        scores = self._scores(hidden_states, start)  # shape: (B, N - start, P)
        if spoken is None:
            spoken = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device)
        scores = scores[:, : spoken.shape[1]]
        counts = spoken.sum(1)
        if self.pool == "last":
            depths = scores[torch.arange(len(scores), device=scores.device), counts - 1]
        else:
            depths = (scores * spoken[..., None]).sum(1) / counts[:, None]
        logit = depths.mean(-1)
        raw = torch.sigmoid(logit - self._log_penalty(domain, len(logit)).to(logit))
        return Reading(
            calibrated=self._calibrated(logit),
            raw=raw,
            answer=self.decide(raw),
            tokens=self._calibrated(scores.mean(-1)).masked_fill(~spoken, math.nan),
            depths=depths,
        )

    def confidence(
        self, hidden_states: Sequence[torch.Tensor], domain: Domains = None, start: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw and calibrated confidence of each token by itself, shape (B, N - start), from hidden states (B, N, d)
        that begin the answer at ``start``.

        ``domain`` sets the weight of a wrong answer: one for all rows or one per row. None means the largest weight
        of any domain, so that a question whose domain nobody named is answered only where it would be in the
        strictest. The calibrated value does not depend on it. Raises ``ConfigError`` for a domain without weight.
        """
        logit = self._scores(hidden_states, start).mean(-1)
        penalty = self._log_penalty(domain, len(logit)).to(logit)
        return torch.sigmoid(logit - penalty[:, None]), self._calibrated(logit)

    def decide(self, raw: torch.Tensor) -> torch.Tensor:
        """Where to answer: raw confidence above one half, which is a probability above w / (1 + w), Chow's rule (1970)
        for a wrong answer that costs w times a withheld right one; the domain's w is in the raw value already."""
        return raw > 0.5

    def stale(self, model: PreTrainedModel) -> bool:
        """Whether the model has other weights than those that the probes were fitted to."""
        return trunk_digest(model) != self.trunk

    def save(self) -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
        """Everything that restores the probes bit for bit."""
        kept = {name: getattr(self, name) for name in ("position", "pool", "trunk", "scale", "shift")}
        content = {**kept, "layers": list(self.layers), "penalties": dict(self.penalties), "facts": dict(self.facts)}
        return content, {"weight": self.weight, "bias": self.bias}

    @classmethod
    def restore(
        cls, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, registry: Any
    ) -> Self:
        """The probes that were saved."""
        return cls(**{**facts, "layers": tuple(facts["layers"])}, weight=tensors["weight"], bias=tensors["bias"])

    def _scores(self, hidden_states: Sequence[torch.Tensor], start: int) -> torch.Tensor:
        """Log-odds by token and depth. shape: L + 1 times (B, N, d) -> (B, N - start, P)"""
        states = torch.stack([normalised(hidden_states[layer][:, start:]) for layer in self.layers], 2)
        weight, bias = self.weight.to(states), self.bias.to(states)
        prompt = torch.einsum("bpd,pd->bp", states[:, 0], weight[:, 0])
        return prompt[:, None] + torch.einsum("btpd,pd->btp", states, weight[:, 1]) + bias

    def _calibrated(self, logit: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.scale * logit + self.shift)

    def _log_penalty(self, domain: Domains, rows: int) -> torch.Tensor:
        if domain is None:
            return torch.tensor(math.log(max(self.penalties.values()))).expand(rows)
        names = [domain] * rows if isinstance(domain, str) else list(domain)
        for name in names:
            if name not in self.penalties:
                raise ConfigError(
                    f"The probes of this model know no domain '{name}'.{did_you_mean(name, self.penalties)} "
                    f"Domains: {listing(self.penalties)}."
                )
        return torch.tensor([math.log(self.penalties[name]) for name in names])


def normalised(states: torch.Tensor) -> torch.Tensor:
    """States divided by their root mean square, in fp32 and apart from the graph. shape: (..., d) -> (..., d)"""
    states = states.detach().float()
    return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + _EPSILON)


def layers_at(shares: Sequence[float], layers: int) -> tuple[int, ...]:
    """Indices into the hidden states of a model of ``layers`` layers at these shares of its depth, each once."""
    return tuple(sorted({max(1, round(share * layers)) for share in shares}))

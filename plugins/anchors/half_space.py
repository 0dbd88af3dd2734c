"""The half-space: a linear monitor on the final hidden state at the end of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import torch

from ...core.model.anchors import Material, threshold_for
from ...core.model.states import final_states
from ...registry.errors import DataError
from .options import HalfSpaceConfig


class HalfSpace:
    """Vetoes states x with n.x > b: one facet of a safety polytope, |n| = 1.

    n is the direction of a logistic regression on standardised final hidden states of harmful against benign prompts
    (linear monitors: Alain & Bengio 2016, 1610.01644; Zou 2023, 2310.01405; facets: Chen 2025, 2505.24445), b a score
    that at most ``false_positives`` of new benign prompts of any kind exceed, set on prompts that the direction has not
    seen: the lowest such score, or halfway from there to the harmful prompts if they lie beyond.
    Scores are distances from the facet. It sees what a linear function of one state can see, and no more.

    The penalty keeps reference prompts on the side where they were at capture: the mean of relu(m0 - m), where m is a
    prompt's distance from the facet, counted towards its own side, and m0 is ``keep`` times that distance at capture.
    """

    def __init__(self, config: HalfSpaceConfig | None = None) -> None:
        self._config = config or HalfSpaceConfig()
        self._direction = torch.zeros(0)  # shape: (d,)
        self._offset = 0.0
        self._references: list[list[int]] = []
        self._sides = torch.zeros(0)  # shape: (R,), 1 harmful, -1 benign
        self._margins = torch.zeros(0)  # shape: (R,)

    def capture(self, model: Any, material: Material) -> None:
        """Fit the direction and the threshold, and choose the reference prompts."""
        learned = ~material.calibration
        self._direction = self._fit(material.hidden[learned], material.harmful[learned])
        self._offset = 0.0
        benign, harmful = (material.calibration & side for side in (~material.harmful, material.harmful))
        kinds = [kind for kind, counts in zip(material.kinds, benign.tolist(), strict=True) if counts]
        scores = self.score(material.hidden)
        self._offset = threshold_for(scores[benign], material.false_positives, kinds, scores[harmful])
        sides = material.harmful.float() * 2 - 1  # shape: (N,)
        right = self.score(material.hidden) * sides > 0
        kept = [torch.nonzero(right & (sides == side)).flatten().tolist() for side in (1.0, -1.0)]
        kept = [numbers[: self._config.references] for numbers in kept]
        # In turns, so that every batch of the penalty holds both sides.
        picked = [number for pair in zip_longest(*kept) for number in pair if number is not None]
        self._references = [[int(token) for token in material.prompts[number]] for number in picked]
        self._sides = sides[picked]
        with torch.no_grad():
            # Read anew in the batches of the penalty: in others the last bits differ, and the penalty would not be 0.
            states = [final_states(model, part, len(part)) for part in self._batches()]
            scores = self.score(torch.cat(states).float().cpu()) if states else torch.zeros(0)
        self._margins = scores * self._sides

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """The distance beyond the facet, shape (..., d) -> (...), in fp32."""
        found: torch.Tensor = hidden.float() @ self._direction.to(hidden.device) - self._offset
        return found

    def penalty(self, model: Any, turn: int | None = None) -> torch.Tensor:
        """Mean loss of margin over the references, or over one batch of them; see the class."""
        parts = self._batches()
        wanted = range(len(parts)) if turn is None else [turn % max(1, len(parts))]
        losses = []
        for number in wanted if parts else ():
            start = number * self._config.batch
            part = slice(start, start + len(parts[number]))
            scores = self.score(final_states(model, parts[number], len(parts[number])))
            margins = scores * self._sides[part].to(scores.device)
            losses.append((self._config.keep * self._margins[part].to(scores.device) - margins).relu())
        if not losses:
            return torch.zeros((), device=next(model.parameters()).device)
        mean: torch.Tensor = torch.cat(losses).mean()
        return mean

    def save(self) -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
        """Sizes as facts; direction, offset and references as tensors."""
        longest = max((len(row) for row in self._references), default=0)
        rows = [[*row, *[-1] * (longest - len(row))] for row in self._references]
        return {"references": len(rows), "width": len(self._direction)}, {
            "direction": self._direction,
            "margins": self._margins,
            "offset": torch.tensor([self._offset], dtype=torch.float64),
            "references": torch.tensor(rows, dtype=torch.int64).reshape(len(rows), longest),
            "sides": self._sides,
        }

    def restore(self, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what ``save`` gave; ``ValueError`` where tensors are not of the sizes they should be."""
        count, width = int(facts["references"]), int(facts["width"])
        shapes = {name: tuple(tensor.shape) for name, tensor in sorted(tensors.items())}
        wanted = {"direction": (width,), "margins": (count,), "offset": (1,), "sides": (count,)}
        if not width or {name: shapes.get(name) for name in wanted} != wanted or shapes["references"][:1] != (count,):
            raise ValueError(f"its tensors have the shapes {shapes}")
        self._direction = tensors["direction"].clone()
        self._offset = float(tensors["offset"])
        self._references = [[token for token in row if token >= 0] for row in tensors["references"].tolist()]
        self._sides, self._margins = tensors["sides"].clone(), tensors["margins"].clone()

    def _fit(self, hidden: torch.Tensor, harmful: torch.Tensor) -> torch.Tensor:
        """The unit normal, shape (d,), that points to the harmful side."""
        from sklearn.linear_model import LogisticRegression

        states = hidden.double().numpy()
        spread = states.std(0)
        spread[spread == 0.0] = 1.0
        model = LogisticRegression(C=self._config.strength, class_weight="balanced", max_iter=5000)
        model.fit((states - states.mean(0)) / spread, harmful.numpy())
        normal = torch.from_numpy(model.coef_[0] / spread)
        length = float(normal.norm())
        if not length:
            raise DataError("The half-space found no direction: the model has one and the same state for all prompts.")
        return (normal / length).float()

    def _batches(self) -> list[list[list[int]]]:
        size = self._config.batch
        return [self._references[start : start + size] for start in range(0, len(self._references), size)]

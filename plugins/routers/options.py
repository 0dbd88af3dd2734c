"""Options of the routers, apart from them so that a plan can check an experiment without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from .grids import check_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRouterConfig:
    """How the chosen experts are weighed: ``gate``.

    ``softmax``: by their probabilities p (Fedus 2021, 2101.03961). ``normalized``: by p rescaled to sum 1 over the
    chosen; with top-1 that is the constant 1, and the task loss no longer reaches the router.
    ``straight-through``: p / sg(p), value 1 with the gradient kept, which preserves the function of cloned experts.
    """

    gate: Literal["normalized", "softmax", "straight-through"] = "softmax"

    def parameters(self, *, hidden_size: int, num_experts: int, layers: int) -> int:
        """Parameters of the routers of all layers together."""
        return layers * num_experts * hidden_size


@dataclass(frozen=True, slots=True, kw_only=True)
class TorusRouterConfig:
    """Where experts lie on the torus [0, 1)^3, and how sharply the nearest one wins.

    ``gate`` is as in ``LinearRouterConfig``. ``grid`` is the lattice, one cell for every expert (None: the most cubic
    one). ``shared`` gives all layers the positions of the first, as the original has it; otherwise each has its own.

    ``temperature`` divides the squared distance (whose largest value is 3/4); towards the end of each step of training
    it has fallen geometrically to ``final_temperature`` (None: it stays), and it never rises again.

    ``spread`` is the standard deviation, per coordinate, of what hidden states are mapped to. At 0.5 they cover the
    torus evenly (Gini of load 0.02); at 0.2 most experts get almost nothing (0.57); far above 0.5 the map wraps many
    times and is a hash, in which near states are no longer near (SPEC 2A.9).

    ``jitter`` is the standard deviation of the first positions about the lattice. ``placement`` decides which expert
    sits where when the router takes over from another one: ``anneal`` makes experts that differ little neighbours,
    ``embed`` does so by scaling their distances to three dimensions (quicker, mostly worse), ``lattice`` keeps their
    order.
    """

    gate: Literal["normalized", "softmax", "straight-through"] = "straight-through"
    grid: tuple[int, int, int] | None = None
    shared: bool = True
    temperature: Annotated[float, Field(gt=0.0)] = 0.05
    final_temperature: Annotated[float, Field(gt=0.0)] | None = None
    spread: Annotated[float, Field(gt=0.0)] = 0.5
    jitter: Annotated[float, Field(ge=0.0)] = 0.01
    placement: Literal["anneal", "embed", "lattice"] = "anneal"

    def __post_init__(self) -> None:
        if self.final_temperature is not None and self.final_temperature > self.temperature:
            raise ValueError(
                f"final_temperature {self.final_temperature} is above temperature {self.temperature}, but the "
                "temperature of a torus router only falls; lower one or raise the other"
            )

    def check(self, num_experts: int) -> None:
        """Raise ``ConfigError`` for a grid that does not have one cell for each expert."""
        if self.grid is not None:
            check_grid(self.grid, num_experts)

    def parameters(self, *, hidden_size: int, num_experts: int, layers: int) -> int:
        """Parameters of the routers of all layers together: maps to the torus, and positions of the experts."""
        return layers * 3 * (hidden_size + 1) + (1 if self.shared else layers) * 3 * num_experts

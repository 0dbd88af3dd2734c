"""The torus router: tokens and experts are points of [0, 1)^3, and the nearest expert is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable
from transformers import initialization as init

from ...core.model.router import RouterBase, RouterContext, Takeover
from ...registry.errors import ConfigError
from .geometry import faces, into_cell, lattice, sites_of
from .grids import Grid, check_grid, grid_of
from .linear import check_growth, weigh
from .options import TorusRouterConfig
from .placement import anneal, edge_cost, embed

_OF_THE_OWNER = ("home", "positions", "sites")


class TorusRouter(RouterBase):
    """z = (W u + b) mod 1, W of shape (3, H); logits = -d_T(z, z_i)^2 / T in fp32; p = softmax(logits).

    The original chose by argmin, through which no gradient reaches the positions z_i (SPEC E3.25); soft logits have
    one. ``positions``, shape (E, 3), are trained. ``home`` is where they began, and ``sites`` says at which cell of
    the lattice each expert began; both stay, and so do the neighbours. Where layers share them, they belong to the
    router of the first layer alone: the others read them there, and they are one parameter, saved once.
    ``temperature`` is saved too. The closest published relative is X-MoE's cosine router (Chi 2022, 2204.09179).
    """

    no_weight_decay = ("bias", "positions")  # decay would pull every expert to the corner 0

    positions: nn.Parameter
    home: torch.Tensor
    sites: torch.Tensor
    temperature: torch.Tensor

    def __init__(self, config: TorusRouterConfig, *, context: RouterContext) -> None:
        super().__init__(context)
        self.config = config
        self.grid: Grid = config.grid or grid_of(self.num_experts)
        check_grid(self.grid, self.num_experts)
        self.weight = nn.Parameter(torch.empty(3, self.hidden_size))
        self.bias = nn.Parameter(torch.empty(3))
        self.register_buffer("temperature", torch.tensor(config.temperature, dtype=torch.float32))
        # Not a submodule: a parameter of the first layer must not be one of every layer.
        self.__dict__["_owner"] = _owner(context.first) if config.shared else None
        if self.owns_positions:
            self.positions = nn.Parameter(torch.empty(self.num_experts, 3))
            self.register_buffer("home", torch.empty(self.num_experts, 3, dtype=torch.float32))
            self.register_buffer("sites", torch.arange(self.num_experts))

    @property
    def owns_positions(self) -> bool:
        """Whether the positions are this router's own parameter, and not another layer's."""
        return self.__dict__["_owner"] is None

    def __getattr__(self, name: str) -> Any:
        # Called for what the router does not have itself.
        owner = self.__dict__.get("_owner")
        if owner is not None and name in _OF_THE_OWNER:
            return getattr(owner, name)
        return super().__getattr__(name)

    def coordinates(self, hidden: torch.Tensor) -> torch.Tensor:
        """Where hidden states lie on the torus: (N, H) -> (N, 3), fp32, in [0, 1); the modulus has gradient 1."""
        with _full_precision(hidden):
            return into_cell(nn.functional.linear(hidden.float(), self.weight.float(), self.bias.float()))

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        positions = self.positions.to(hidden.device, torch.float32)  # layers that share them may lie on other devices
        with _full_precision(hidden):
            logits: torch.Tensor = _Logits.apply(  # type: ignore[no-untyped-call]
                hidden.float(), self.weight.float(), self.bias.float(), positions, self.temperature
            )
        return logits.to(hidden.dtype)

    def gate(self, probabilities: torch.Tensor) -> torch.Tensor:
        return weigh(self.config.gate, probabilities)

    def init_weights(self, std: float) -> None:
        """Positions on the lattice, jittered; the map so wide that RMS-normed states spread by ``spread``, whatever
        ``std`` is."""
        init.normal_(self.weight, std=self.config.spread / math.sqrt(self.hidden_size))
        init.zeros_(self.bias)
        init.constant_(self.temperature, self.config.temperature)
        if self.owns_positions:
            noise = init.normal_(torch.empty_like(self.positions), std=self.config.jitter)
            centres = lattice(self.grid).to(self.positions)
            init.copy_(self.positions, into_cell(centres + noise))
            init.copy_(self.home, self.positions)
            init.copy_(self.sites, torch.arange(self.num_experts))

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Bring the positions back into [0, 1) and lower the temperature to where it is at this share of the step."""
        if self.owns_positions:
            self.positions.copy_(into_cell(self.positions))
        first, last = self.config.temperature, self.config.final_temperature
        if last is not None:
            self.temperature.clamp_(max=first * (last / first) ** progress)

    @torch.no_grad()
    def take_over(self, takeover: Takeover) -> Mapping[str, float]:
        """Place the experts by how much they differ, and draw a map under which the hidden states spread by ``spread``
        in every coordinate. Reports the mean distance of neighbours, and that of all pairs beside it.

        The three coordinates of the map are uncorrelated: where most of what hidden states differ in is one direction,
        three drawn at random would nearly agree, and cover a diagonal of the torus instead of the whole.
        Raises ``ConfigError`` for hidden states that do not differ.
        """
        # The layer counts: maps drawn alike would send the same states to the same experts in every layer.
        random = torch.Generator().manual_seed(takeover.seed + self.layer)
        hidden = takeover.hidden.double().cpu()
        drawn = torch.randn(3, self.hidden_size, generator=random, dtype=torch.float64)
        places = hidden @ drawn.T  # shape: (N, 3)
        factor, failed = torch.linalg.cholesky_ex(torch.cov(places.T, correction=0))
        if int(failed) or bool(factor.diagonal().min() <= 1e-6 * places.abs().max()):
            raise ConfigError(
                f"the {len(hidden)} hidden states that reach the router of layer {self.layer} do not differ in three "
                "directions, so the torus router cannot tell how to map them; give the step that changes the router "
                "more text."
            )
        self.weight.copy_(self.config.spread * torch.linalg.solve_triangular(factor, drawn, upper=False))
        self.bias.zero_()
        if not self.owns_positions:
            return {}
        distances = takeover.distances.double().cpu().numpy()
        place = {"anneal": anneal, "embed": embed}.get(self.config.placement)
        sites = torch.arange(self.num_experts).numpy() if place is None else place(distances, self.grid, takeover.seed)
        self.sites.copy_(torch.from_numpy(sites))
        noise = self.config.jitter * torch.randn(self.num_experts, 3, generator=random)
        self.positions.copy_(into_cell(lattice(self.grid)[torch.from_numpy(sites)] + noise))
        self.home.copy_(self.positions)
        pairs = self.num_experts * (self.num_experts - 1)
        return {
            "placement/cost": edge_cost(distances, sites, self.grid),
            "placement/random": float(distances.sum() - distances.trace()) / max(pairs, 1),
        }

    @torch.no_grad()
    def extend_from(self, smaller: RouterBase, copies: int) -> None:
        """Split the cell of every expert into equal cells, one for each copy: with two copies these lie a quarter of
        the old spacing to either side. On the lattice a token reaches a copy of the expert it reached before. The
        selection bias is shared among the copies, as their probability is.

        Raises ``ConfigError`` where the grid does not divide the cells of the smaller router's grid in this way.
        """
        check_growth(self, smaller, copies)
        assert isinstance(smaller, TorusRouter)
        parts = [mine // side for mine, side in zip(self.grid, smaller.grid, strict=True)]
        if math.prod(parts) != copies or any(
            m != p * s for m, p, s in zip(self.grid, parts, smaller.grid, strict=True)
        ):
            fits = list(smaller.grid)
            fits[fits.index(min(fits))] *= copies
            raise ConfigError(
                f"the grid {list(self.grid)} of the larger torus router does not divide each cell of the smaller one's "
                f"grid {list(smaller.grid)} into {copies}; set the grid of the larger to {fits}."
            )
        for name in ("weight", "bias", "temperature"):
            getattr(self, name).copy_(getattr(smaller, name))
        self.selection_bias.copy_(smaller.selection_bias.repeat_interleave(copies) / copies)
        if not self.owns_positions:
            return
        part = sites_of((parts[0], parts[1], parts[2]))  # shape: (copies, 3)
        shift = ((part + 0.5) / torch.tensor(parts) - 0.5) / torch.tensor(smaller.grid)
        for mine, old in ((self.positions, smaller.positions), (self.home, smaller.home)):
            moved = old.float()[:, None] + shift.to(old.device)  # shape: (E, copies, 3)
            mine.copy_(into_cell(moved).flatten(0, 1))
        cells = sites_of(smaller.grid)[smaller.sites.cpu()][:, None] * torch.tensor(parts) + part
        i, j, k = cells.flatten(0, 1).unbind(-1)
        self.sites.copy_((i * self.grid[1] + j) * self.grid[2] + k)

    def edges(self) -> torch.Tensor:
        """Pairs of experts whose cells share a face, shape (M, 2), int64, each once with the smaller first, sorted."""
        expert = self.sites.argsort()  # of every site
        pairs = expert[faces(self.grid).to(expert.device)].sort(dim=-1).values
        return pairs[(pairs[:, 0] * self.num_experts + pairs[:, 1]).argsort()]

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # As for the selection bias: a cast of the model rounds neither the temperature nor where experts began.
        kept = {name: self._buffers[name] for name in ("home", "temperature") if name in self._buffers}
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            cast = self._buffers[name]
            if buffer is not None and cast is not None and cast.dtype != torch.float32:
                self._buffers[name] = buffer.to(cast.device)
        return self


class _Logits(torch.autograd.Function):
    """-d_T(W u + b, z_i)^2 / T from states u (N, H), W (3, H), b (3,), positions z_i (E, 3) and T (): (N, E).

    The gradient to z = W u + b is -2 wrap(z - z_i) / T, and to z_i its negative; the temperature has none. Distances
    wrap around by themselves, so no modulus is taken. In closed form only the differences are kept, and not the steps
    that made them, and every gradient comes in rows, as whoever adds it up reads it.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        positions: torch.Tensor,
        temperature: torch.Tensor,
    ) -> torch.Tensor:
        points = torch.addmm(bias[:, None], weight, hidden.t())  # shape: (3, N)
        # shape: (3, E, N), tokens last: with E or 3 last, loops would be as short as that.
        delta = points[:, None] - positions.t()[:, :, None]
        delta -= delta.round()
        ctx.save_for_backward(hidden, weight, delta, temperature)
        return (delta * delta).sum(0).div_(-temperature).t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, delta, temperature = ctx.saved_tensors
        pull = delta * gradient.t().contiguous().mul_(-2.0 / temperature)  # shape: (3, E, N)
        moved = pull.sum(1)  # shape: (3, N)
        states, rows, offset, places, _ = ctx.needs_input_grad
        return (
            moved.t() @ weight if states else None,
            moved @ hidden if rows else None,
            moved.sum(1) if offset else None,
            pull.sum(2).neg_().t() if places else None,
            None,
        )


def _full_precision(hidden: torch.Tensor) -> AbstractContextManager[Any]:
    """No autocast: bf16 would round places to a 256th of the torus."""
    device = hidden.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _owner(first: RouterBase | None) -> TorusRouter | None:
    """The router whose positions a later one shares: the model's first, or none where this is the first."""
    if first is None or isinstance(first, TorusRouter):
        return first
    raise ConfigError(
        f"a torus router cannot share the positions of the model's first router, which is a {type(first).__name__}; "
        "use the torus router in every layer, or set shared: false."
    )

"""The hash router: which side of some random hyperplanes a hidden state lies on decides where it goes."""

from __future__ import annotations

import numpy as np
import torch
from phasegate.core.model.router import RouterBase, RouterContext
from torch import nn
from transformers import initialization as init

from .options import HashRouterConfig

# Preferences are multiples of 1/64 below 4: whole numbers of 8 bits, which bfloat16 holds exactly.
_LEVELS = 256
_RANGE = 4.0


class HashRouter(RouterBase):
    """Sends a token to the experts that the cell of its hidden state prefers; the k chosen weigh 1/k each.

    cell(h) = sum_i 2^i [r_i . h > 0] over ``bits`` random hyperplanes r_i in {-1, 1}^H (SimHash: Charikar 2002, STOC;
    signs for Gaussians: Achlioptas 2003, JCSS 66), logits(h) = table[cell(h)], a fixed random preference of every cell
    for every expert, so that the chosen experts are the k highest random weights of the cell (rendezvous hashing:
    Thaler and Ravishankar 1998, IEEE/ACM ToN 6). Routing by a fixed hash: Roller 2021, 2106.04426, which hashes token
    identities. A router sees hidden states only, so this one hashes those: it needs nothing but the token and what
    came before it, and is as causal as its layer.

    There are no parameters and no gradient, so losses over routers have nothing to act on; loss-free balancing does,
    since its bias moves which preference wins. Both buffers hold small integers, which no dtype of the model rounds,
    and sides of planes are computed in fp32: equal hidden states are routed alike in a model of fp32 and of bfloat16.
    """

    planes: torch.Tensor
    table: torch.Tensor

    def __init__(self, config: HashRouterConfig, *, context: RouterContext) -> None:
        super().__init__(context)
        self.bits, self.seed = config.bits, config.seed
        self.levels = max(_LEVELS, self.num_experts)
        self.register_buffer("planes", torch.empty(self.bits, self.hidden_size, dtype=torch.int8))
        self.register_buffer("table", torch.empty(2**self.bits, self.num_experts, dtype=torch.int16))

    def init_weights(self, std: float) -> None:
        """Draw the hash; ``std`` is for routers that learn."""
        random = np.random.default_rng((self.seed, self.layer))
        planes = 2 * random.integers(2, size=self.planes.shape, dtype=np.int8) - 1
        # Different in each cell, so that no device has to break a tie.
        table = random.random((len(self.table), self.levels)).argsort(axis=-1)[:, : self.num_experts]
        init.copy_(self.planes, torch.from_numpy(planes))
        init.copy_(self.table, torch.from_numpy(table.astype(np.int16)))

    def cells(self, hidden: torch.Tensor) -> torch.Tensor:
        """The cell of each hidden state. shape: (N, H) -> (N,), int64"""
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            above = nn.functional.linear(hidden.float(), self.planes.float()) > 0  # shape: (N, bits)
        cells: torch.Tensor = (above.long() << torch.arange(self.bits, device=hidden.device)).sum(-1)
        return cells

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return (self.table[self.cells(hidden)].float() * (_RANGE / self.levels)).to(hidden.dtype)

    def gate(self, probabilities: torch.Tensor) -> torch.Tensor:
        return torch.full_like(probabilities, 1 / self.top_k)

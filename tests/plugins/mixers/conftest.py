"""Small PDR layers, and what they must compute, token by token in float64."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from phasegate.core.model.mixer import MixerContext
from phasegate.plugins.mixers.options import PdrConfig
from phasegate.plugins.mixers.pdr import Pdr
from torch import nn
from transformers.cache_utils import Cache, LinearAttentionLayer

EPS = 1e-6


def make_pdr(size: int = 32, std: float = 0.2, seed: int = 0, **options: Any) -> Pdr:
    context = MixerContext(config=SimpleNamespace(hidden_size=size, rms_norm_eps=EPS), layer=0, attention=nn.Identity())
    mixer = Pdr(PdrConfig(**options), context=context)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(mixer.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator) * std
            parameter.copy_(1 + noise if name == "norm.weight" else noise)
    return mixer


def make_hidden(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sequential(mixer: Pdr, hidden: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
    """SPEC 2A.1 for one document per row, written from the formula alone; state (B, d, r). Gates are far from shut."""
    weights = {name: value.double() for name, value in mixer.named_parameters()}
    u, rank = hidden.double(), mixer.rank
    gamma = torch.sigmoid(u @ weights["decay_proj.weight"].T + weights["decay_proj.bias"]) ** (1 / mixer.tau)
    q = u @ weights["q_proj.weight"].T
    k = u @ weights["k_proj.weight"].T / rank**0.5
    v = u @ weights["v_proj.weight"].T
    batch, tokens, size = u.shape
    now = torch.zeros(batch, size, rank, dtype=torch.float64) if state is None else state.double()
    read = []
    for t in range(tokens):
        now = gamma[:, t, :, None] * now + torch.einsum("bd,br->bdr", v[:, t], k[:, t])
        read.append(torch.einsum("bdr,br->bd", now, q[:, t]))
    groups = torch.stack(read, 1).reshape(batch, tokens, -1, mixer.norm.group)
    normed = groups / (groups.pow(2).mean(-1, keepdim=True) + EPS).sqrt()
    return (normed.reshape(batch, tokens, size) * weights["norm.weight"]) @ weights["o_proj.weight"].T


@pytest.fixture
def pdr() -> Callable[..., Pdr]:
    return make_pdr


@pytest.fixture
def hidden() -> Callable[..., torch.Tensor]:
    return make_hidden


@pytest.fixture
def reference() -> Callable[..., torch.Tensor]:
    return sequential


@pytest.fixture
def cache() -> Cache:
    """The cache of a model whose only layer is a mixer with a state."""
    return Cache(layers=[LinearAttentionLayer()])

"""Proposing a few tokens with a draft network: the library's arithmetic without the library's preparations.

A draft step of a small model is all call overhead. The library prepares a whole generation for every few candidates
and a mask for every token, which costs more than the target's own step; here a step is some forty operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from .drafter import DrafterForCausalLM

_ROOM = 64  # positions by which keys and values grow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """The weights of a decoder layer; those that read the same input are joined, and hold the norm before them."""

    qkv: torch.Tensor  # shape: ((H + 2 K) a, D)
    scales: torch.Tensor  # shape: (H + K, 1, a)
    out: torch.Tensor  # shape: (D, H a)
    wide: torch.Tensor  # shape: (2 I, D)
    down: torch.Tensor  # shape: (D, I)


class Stencil:
    """A draft network's weights as they are now, laid out for proposing; many sequences can share one.

    Legend of shapes: D width, H query heads, K key heads, a head size, T positions, q new positions, d width of E.
    """

    @torch.inference_mode()
    def __init__(self, network: DrafterForCausalLM) -> None:
        config, projection = network.config, network.model.embed_tokens.projection.detach()
        self.heads, self.key_heads, self.size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        # A mean of squares over n parts is the squared length by n: x w / sqrt(mean(x^2) + e) = x w sqrt(n) /
        # hypot(|x|, sqrt(n e)). The divisor is two operations, and what multiplies goes into the next weights.
        self._wide, self._narrow = math.sqrt(config.hidden_size), math.sqrt(self.size)
        self.floor = torch.tensor(self._wide * math.sqrt(config.rms_norm_eps), device=projection.device)
        self.head_floor = torch.tensor(self._narrow * math.sqrt(config.rms_norm_eps), device=projection.device)
        self.table = network.model.embed_tokens.table  # shape: (V, d)
        self.enter = projection.T  # shape: (D, d)
        self.leave = projection * network.model.norm.weight * self._wide  # shape: (d, D)
        self.layers = [self._joined(layer) for layer in network.model.layers]
        self._rotary = network.model.rotary_emb
        self._turns = (projection[:0], projection[:0])

    @torch.inference_mode()
    def turns(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of at least so many positions, shape (T, a) each; the first half of the sines negative."""
        if len(self._turns[0]) < count:
            places = torch.arange(count, device=self.leave.device)[None]
            cosine, sine = self._rotary(self.leave, places)  # shape: (1, T, a) each
            signed = sine[0].clone()
            signed[:, : self.size // 2].neg_()
            self._turns = cosine[0], signed
        return self._turns

    def _joined(self, layer: Any) -> _Layer:
        attention, ffn = layer.self_attn, layer.mlp
        qkv = [part.weight for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
        scales = [attention.q_norm.weight.expand(self.heads, 1, -1)]
        scales.append(attention.k_norm.weight.expand(self.key_heads, 1, -1))
        wide = torch.cat([ffn.gate_proj.weight, ffn.up_proj.weight])
        return _Layer(
            qkv=torch.cat(qkv) * layer.input_layernorm.weight * self._wide,
            scales=torch.cat(scales) * self._narrow,
            out=attention.o_proj.weight,
            wide=wide * layer.post_attention_layernorm.weight * self._wide,
            down=ffn.down_proj.weight,
        )


class Proposal(NamedTuple):
    """What the library reads of an assistant's output: the sequences, shape (1, T), the scores that each new token was
    chosen from, shape (1, V) each, and the cache."""

    sequences: torch.Tensor
    scores: tuple[torch.Tensor, ...]
    past_key_values: Proposer


class Proposer:
    """One sequence that a draft network goes on with.

    Stands where the library keeps an assistant's cache: it answers ``get_seq_length`` and ``crop`` as a cache does.
    """

    def __init__(self, stencil: Stencil) -> None:
        self._stencil = stencil
        self._length = self._room = 0
        self._memory: list[tuple[torch.Tensor, torch.Tensor]] = []  # by layer: keys and values, shape (1, K, T, a)
        self._cosine = self._sine = stencil.leave

    def get_seq_length(self) -> int:
        """How many positions are remembered."""
        return self._length

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last positions; the library gives their number as a negative one."""
        self._length -= abs(tokens_to_remove)

    @torch.inference_mode()
    def propose(
        self,
        ids: torch.Tensor,
        count: int,
        *,
        processors: Sequence[Callable[..., torch.Tensor]],
        sample: bool,
        stops: int | Sequence[int] | None,
    ) -> Proposal:
        """Go on with ``ids``, shape (1, T), by ``count`` tokens, or up to the first stop token.

        Sampled tokens come from the softmax of the scores, which is what makes verification exact.
        """
        ends = {stops} if isinstance(stops, int) else set(stops or ())
        scores: list[torch.Tensor] = []
        new = ids[:, self._length :]
        for _ in range(count):
            score = self.step(new).float()  # shape: (1, V)
            for process in processors:
                score = process(ids, score)
            scores.append(score)
            new = torch.multinomial(score.softmax(-1), 1) if sample else score.argmax(-1, keepdim=True)
            ids = torch.cat((ids, new), dim=-1)
            if int(new) in ends:
                break
        return Proposal(sequences=ids, scores=tuple(scores), past_key_values=self)

    @torch.inference_mode()
    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Read new tokens, shape (1, q), and return the logits after the last, shape (1, V)."""
        own, begin, end = self._stencil, self._length, self._length + ids.shape[1]
        if end > self._room:
            self._grow(end)
        cosine, sine = self._cosine[begin:end], self._sine[begin:end]
        hidden = F.linear(F.embedding(ids, own.table), own.enter)  # shape: (1, q, D)
        apart = begin > 0 and end - begin > 1  # else one position sees all, or all see a triangle
        mask = hidden.new_ones(end - begin, end, dtype=torch.bool).tril(begin) if apart else None
        for layer, (keys, values) in zip(own.layers, self._memory, strict=True):
            # shape: (1, q, (H + 2 K) a) -> (1, H + 2 K, q, a)
            read = F.linear(_over_length(hidden, own.floor), layer.qkv)
            heads = read.view(1, end - begin, -1, own.size).transpose(1, 2)
            both = _over_length(heads[:, : -own.key_heads], own.head_floor) * layer.scales
            # Rotation by halves; the sign of the exchanged halves is in the sine.
            both = torch.addcmul(both * cosine, both.roll(own.size // 2, -1), sine)
            keys[:, :, begin:end].copy_(both[:, own.heads :])
            values[:, :, begin:end].copy_(heads[:, -own.key_heads :])
            mixed = F.scaled_dot_product_attention(
                both[:, : own.heads],
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=mask,
                is_causal=begin == 0,
                enable_gqa=own.key_heads != own.heads,
            )
            hidden = hidden + F.linear(mixed.transpose(1, 2).flatten(2), layer.out)
            gate, up = F.linear(_over_length(hidden, own.floor), layer.wide).chunk(2, dim=-1)
            hidden = hidden + F.linear(F.silu(gate) * up, layer.down)
        self._length = end
        return F.linear(F.linear(_over_length(hidden[:, -1], own.floor), own.leave), own.table)

    def _grow(self, end: int) -> None:
        """Make room for ``end`` positions and some more."""
        own, self._room = self._stencil, end + _ROOM
        shape = (1, own.key_heads, self._room, own.size)
        grown = [(layer.qkv.new_empty(shape), layer.qkv.new_empty(shape)) for layer in own.layers]
        for pair, kept in zip(grown, self._memory, strict=False):
            for new, old in zip(pair, kept, strict=True):
                new[:, :, : self._length] = old[:, :, : self._length]
        self._memory = grown
        self._cosine, self._sine = own.turns(self._room)


def _over_length(states: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """States divided by their lengths, which ``floor`` keeps above zero; lengths are taken in fp32."""
    length = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=torch.float32)
    return (states / torch.hypot(length, floor)).to(states.dtype)

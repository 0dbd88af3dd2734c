"""Proposing a few tokens with a draft network: the library's arithmetic without the library's preparations.

A draft step of a small model is all call overhead. The library prepares a whole generation for every few candidates
and a mask for every token, which costs more than the target's own step; here a step is some forty operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers.generation import GenerateDecoderOnlyOutput

if TYPE_CHECKING:
    from .drafter import DrafterForCausalLM

_ROOM = 64  # positions by which keys and values grow


@dataclass(slots=True, kw_only=True, eq=False)
class _Layer:
    """The weights of a decoder layer, those that read the same input joined, and the keys and values of T positions."""

    first: torch.Tensor  # shape: (D,)
    qkv: torch.Tensor  # shape: ((H + 2 K) a, D)
    scales: torch.Tensor  # shape: (H + K, 1, a)
    out: torch.Tensor  # shape: (D, H a)
    second: torch.Tensor  # shape: (D,)
    wide: torch.Tensor  # shape: (2 I, D)
    down: torch.Tensor  # shape: (D, I)
    keys: torch.Tensor  # shape: (1, K, T, a)
    values: torch.Tensor  # shape: (1, K, T, a)


class Proposer:
    """One sequence that a draft network goes on with: its weights as they are now, its keys and values.

    Stands where the library keeps an assistant's cache: it answers ``get_seq_length`` and ``crop`` as a cache does.
    Legend of shapes: D width, H query heads, K key heads, a head size, T positions, q new positions, d width of E.
    """

    @torch.inference_mode()
    def __init__(self, network: DrafterForCausalLM) -> None:
        config = network.config
        self._heads, self._keys = config.num_attention_heads, config.num_key_value_heads
        self._size, self._width, self._epsilon = config.head_dim, (config.hidden_size,), config.rms_norm_eps
        self._grouped = self._keys != self._heads
        self._table = network.model.embed_tokens.table  # shape: (V, d)
        self._leave = network.model.embed_tokens.projection.detach()  # shape: (d, D)
        self._enter = self._leave.T
        self._last = network.model.norm.weight.detach()
        self._layers = [self._joined(layer) for layer in network.model.layers]
        self._rotary = network.model.rotary_emb
        self._length = self._room = 0
        self._cosine = self._sine = self._last

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
    ) -> Any:
        """Go on with ``ids``, shape (1, T), by ``count`` tokens, or up to the first stop token.

        Returns what ``generate`` would: sequences, the scores that each token was chosen from, and this object as the
        cache. Sampled tokens come from the softmax of those scores, which is what makes verification exact.
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
        return GenerateDecoderOnlyOutput(sequences=ids, scores=tuple(scores), past_key_values=self)

    @torch.inference_mode()
    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Read new tokens, shape (1, q), and return the logits after the last, shape (1, V)."""
        begin, end = self._length, self._length + ids.shape[1]
        if end > self._room:
            self._grow(end)
        cosine, sine = self._cosine[begin:end], self._sine[begin:end]
        hidden = F.linear(F.embedding(ids, self._table), self._enter)  # shape: (1, q, D)
        mask = None if end - begin == 1 else hidden.new_ones(end - begin, end, dtype=torch.bool).tril(begin)
        for layer in self._layers:
            read = F.rms_norm(hidden, self._width, layer.first, self._epsilon)
            # shape: (1, q, (H + 2 K) a) -> (1, H + 2 K, q, a)
            heads = F.linear(read, layer.qkv).view(1, end - begin, -1, self._size).transpose(1, 2)
            both = F.rms_norm(heads[:, : -self._keys], (self._size,), None, self._epsilon) * layer.scales
            # Rotation by halves; the sign of the exchanged halves is in the sine.
            both = torch.addcmul(both * cosine, both.roll(self._size // 2, -1), sine)
            layer.keys[:, :, begin:end].copy_(both[:, self._heads :])
            layer.values[:, :, begin:end].copy_(heads[:, -self._keys :])
            mixed = F.scaled_dot_product_attention(
                both[:, : self._heads],
                layer.keys[:, :, :end],
                layer.values[:, :, :end],
                attn_mask=mask,
                enable_gqa=self._grouped,
            )
            hidden = hidden + F.linear(mixed.transpose(1, 2).flatten(2), layer.out)
            read = F.rms_norm(hidden, self._width, layer.second, self._epsilon)
            gate, up = F.linear(read, layer.wide).chunk(2, dim=-1)
            hidden = hidden + F.linear(F.silu(gate) * up, layer.down)
        self._length = end
        last = F.rms_norm(hidden[:, -1], self._width, self._last, self._epsilon)
        return F.linear(F.linear(last, self._leave), self._table)

    def _grow(self, end: int) -> None:
        """Make room for ``end`` positions and some more, and prepare their rotations."""
        self._room = end + _ROOM
        for layer in self._layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_empty(1, self._keys, self._room, self._size)
                new[:, :, : self._length] = old[:, :, : self._length]
                setattr(layer, name, new)
        cosine, sine = self._rotary(self._last, torch.arange(self._room, device=self._last.device)[None])
        self._cosine, self._sine = cosine[0], sine[0].clone()  # shape: (T, a) each
        self._sine[:, : self._size // 2].neg_()

    def _joined(self, layer: Any) -> _Layer:
        attention, ffn = layer.self_attn, layer.mlp
        scales = (attention.q_norm.weight.expand(self._heads, 1, -1), attention.k_norm.weight.expand(self._keys, 1, -1))
        qkv = torch.cat([part.weight for part in (attention.q_proj, attention.k_proj, attention.v_proj)])
        return _Layer(
            first=layer.input_layernorm.weight,
            qkv=qkv,
            scales=torch.cat(scales),
            out=attention.o_proj.weight,
            second=layer.post_attention_layernorm.weight,
            wide=torch.cat([ffn.gate_proj.weight, ffn.up_proj.weight]),
            down=ffn.down_proj.weight,
            keys=qkv.new_empty(1, self._keys, 0, self._size),
            values=qkv.new_empty(1, self._keys, 0, self._size),
        )

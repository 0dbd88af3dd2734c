"""PDR, the Perspective Decay Recurrence: a linear recurrence in place of attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.utils.generic import maybe_autocast

from ...core.model.mixer import MixerBase, MixerContext
from ...core.model.scan import MOST_DECAY, document_starts, scan, walk
from ...registry.errors import ConfigError
from .options import PdrConfig

#: States that a cache gets of one pass while it records its past, as assisted generation asks for; one less than that
#: many tokens of a pass can be taken back.
RECORDED = 32


class GroupRMSNorm(nn.Module):
    """x / rms(x) * weight, the rms over groups of channels (RMSNorm: Zhang & Sennrich 2019, 1910.07467)."""

    def __init__(self, size: int, group: int, eps: float) -> None:
        super().__init__()
        self.group = group
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normed hidden states of the same shape, (..., size)."""
        parts = torch.unflatten(hidden, -1, (-1, self.group))
        return functional.rms_norm(parts, (self.group,), eps=self.eps).flatten(-2) * self.weight.to(hidden.dtype)


class Pdr(MixerBase):
    """Mixes tokens through a state S of shape (d, r), whose rows each token lets fade at rates of its own:

        lg_t = logsigmoid(Wp u_t + bp) / tau          v_t = Wv u_t
        k_t  = Wk u_t / sqrt(r)                       q_t = Wq u_t
        S_t  = diag(exp(lg_t)) S_{t-1} + v_t k_t^T    o_t = Wo GroupRMSNorm(S_t q_t)

    with u the normed hidden states; 3 d^2 + 2 r d + 2 d parameters. It is GLA (Yang 2023, 2312.06635) with the decay on
    the value axis instead of the key axis, or Mamba-2 (Dao & Gu 2024, 2405.21060) with heads of one channel. Computed
    in fp32, in chunks where there are many tokens.

    What differs from the original (SPEC 2A.1):

    * decay sigmoid(p)^(1/tau), bp = 0, as in GLA, where it had sigmoid(p) with a bias for 0.95: in chunks of 128 that
      gives NaN as soon as the gate falls to 0.5. lg is at least -120 / chunk, in decoding as well, so that nothing can
      overflow.
    * k is divided by sqrt(r) and what is read is normed; without both the state of a constant input exceeds the
      original's own bound.
    * Wp is drawn as every other matrix, where it had I + 0.01 N(0, 1), whose "small" part outweighs I at d = 4096.
    * No renormalisation of S every 8192 tokens: it multiplied by sqrt(d r) / ||S||_F even where that amplifies. Its
      correction, S * min(1, ...), is not needed: S grows at most linearly, far from what fp32 holds, and the norm takes
      its scale out. It would also weigh the past differently depending on where in a text a token stands.
    """

    def __init__(self, config: PdrConfig, *, context: MixerContext) -> None:
        super().__init__()
        size = int(context.config.hidden_size)
        config.check(size)
        group = min(config.group, size)
        self.layer = context.layer
        self.chunk = config.chunk
        self.tau = config.tau
        self.rank = max(size // 16, 1) if config.rank is None else config.rank
        self.decay_proj = nn.Linear(size, size)
        self.q_proj = nn.Linear(size, self.rank, bias=False)
        self.k_proj = nn.Linear(size, self.rank, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)
        self.norm = GroupRMSNorm(size, group, context.config.rms_norm_eps)

    def init_weights(self, std: float) -> None:
        for projection in (self.decay_proj, self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            init.normal_(projection.weight, mean=0.0, std=std)
        init.zeros_(self.decay_proj.bias)
        init.ones_(self.norm.weight)

    def log_decay(self, hidden: torch.Tensor) -> torch.Tensor:
        """The log of what each channel keeps of its state at each token, fp32, from hidden states (B, T, d)."""
        decay = functional.logsigmoid(self.decay_proj(hidden).float()) / self.tau
        return decay.clamp_min(MOST_DECAY / self.chunk)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        q = self.q_proj(hidden_states).float()
        k = self.k_proj(hidden_states).float() * self.rank**-0.5
        v = self.v_proj(hidden_states).float()
        log_decay = self.log_decay(hidden_states)
        real = None if attention_mask is None else attention_mask.bool()
        if real is not None:
            # Padding leaves the state as it is.
            k, v, log_decay = (part.masked_fill(~real[..., None], 0.0) for part in (k, v, log_decay))
        starts = document_starts(position_ids, real)
        with maybe_autocast(hidden_states.device.type, enabled=False):
            read = self._read((q, k, v, log_decay), starts, past_key_values)
            normed = self.norm(read).to(hidden_states.dtype)
        return self.o_proj(normed), None

    def _read(self, parts: tuple[torch.Tensor, ...], starts: torch.Tensor | None, cache: Any) -> torch.Tensor:
        """S_t q_t of every token, (B, T, d), from q, k, v and log-decay; the cache then holds the state."""
        tokens = parts[0].shape[1]
        state = None if cache is None else self._remembered(cache)
        known = state is not None
        recording = cache is not None and cache.is_recording_past(self.layer)
        walked = 1 if tokens == 1 else min(tokens, RECORDED) if recording else 0
        scanned = tokens - walked
        read: list[torch.Tensor] = []
        states: torch.Tensor | None = None  # shape: (B, n, d, r)
        if scanned:
            q, k, v, decay = (part[:, :scanned] for part in parts)
            first = None if starts is None else starts[:, :scanned]
            mixed, state = scan(q, k, v, decay, chunk=self.chunk, state=state, starts=first)
            read, states = [mixed], state[:, None]
        if walked:
            q, k, v, decay = (part[:, scanned:] for part in parts)
            last = None if starts is None else starts[:, scanned:]
            mixed, states = walk(q, k, v, decay, state=state, starts=last)
            read.append(mixed)
        if cache is not None and states is not None:
            if recording and known and scanned:
                # What a cache holds must be the states of consecutive tokens, or crop would give a wrong one.
                cache.layers[self.layer].reset()
            cache.update_conv_state(states.flatten(2).transpose(1, 2), self.layer, conv_kernel_size=1)
        return read[0] if len(read) == 1 else torch.cat(read, 1)

    def _remembered(self, cache: Any) -> torch.Tensor | None:
        """The state after the last token that the cache has seen, (B, d, r).

        It is kept as the library's *convolution* state of width 1, (B, d r, n) with the latest last, because the
        library can take back tokens from those, and from recurrent states never.
        """
        states: torch.Tensor | None = cache.get_conv_state(self.layer)
        if states is None:
            return None
        if not states.shape[-1]:
            raise ConfigError(
                f"Layer {self.layer} was to forget more tokens than the {RECORDED - 1} that a pdr mixer can take back; "
                "let the draft model propose fewer tokens at a time."
            )
        return torch.unflatten(states[..., -1], 1, (-1, self.rank))

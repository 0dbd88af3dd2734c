"""PDR: every way of computing it gives the recurrence of SPEC 2A.1, and documents and padding never leak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from phasegate.core.model.mixer import MixerContext
from phasegate.core.model.scan import document_starts, scan
from phasegate.plugins.mixers.attention import attention
from phasegate.plugins.mixers.options import PdrConfig
from phasegate.plugins.mixers.pdr import Pdr
from phasegate.registry.errors import ConfigError
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.cache_utils import Cache, LinearAttentionLayer

Make = Callable[..., Pdr]
Hidden = Callable[..., torch.Tensor]
Reference = Callable[..., torch.Tensor]

CLOSE = 1e-5


def gap(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.detach().double() - right.detach().double()).abs().max())


def positions(*lengths: int) -> torch.Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


@pytest.mark.parametrize("chunk", [16, 64, 256])
@pytest.mark.parametrize("tokens", [512, 301])
def test_chunks_compute_the_recurrence(
    pdr: Make, hidden: Hidden, reference: Reference, chunk: int, tokens: int
) -> None:
    mixer, u = pdr(size=32, chunk=chunk, rank=4), hidden(2, tokens, 32)
    assert gap(mixer(u)[0], reference(mixer, u)) < 1e-4


@pytest.mark.parametrize("chunk", [16, 64, 256])
def test_chunks_go_on_from_a_state(pdr: Make, hidden: Hidden, reference: Reference, cache: Cache, chunk: int) -> None:
    mixer, u = pdr(size=32, chunk=chunk, rank=4), hidden(2, 512, 32)
    state = hidden(2, 32, 4, seed=2)
    cache.update_conv_state(state.flatten(1)[..., None], 0, conv_kernel_size=1)
    with torch.no_grad():
        mixed = mixer(u, past_key_values=cache)[0]
    assert gap(mixed, reference(mixer, u, state)) < 1e-4
    assert gap(mixed, reference(mixer, u)) > 0.1


def test_gradients_are_those_of_the_recurrence(pdr: Make, hidden: Hidden, reference: Reference) -> None:
    mixer, u = pdr(size=16, chunk=8, rank=3), hidden(2, 37, 16)
    ahead = hidden(2, 37, 16, seed=5)
    parameters = list(mixer.parameters())
    found = torch.autograd.grad((mixer(u)[0] * ahead).sum(), parameters)
    right = torch.autograd.grad((reference(mixer, u) * ahead).sum(), parameters)
    assert [gap(mine, true) < 1e-3 * float(true.abs().max()) for mine, true in zip(found, right, strict=True)] == [
        True
    ] * len(parameters)


def test_prefill_and_decode_give_the_full_pass(pdr: Make, hidden: Hidden, cache: Cache) -> None:
    mixer, u = pdr(chunk=16), hidden(2, 70, 32)
    with torch.no_grad():
        full = mixer(u, position_ids=positions(70))[0]
        parts = [
            mixer(u[:, a:b], past_key_values=cache, position_ids=positions(70)[:, a:b])[0]
            for a, b in [(0, 40), (40, 60), *((t, t + 1) for t in range(60, 70))]
        ]
    assert gap(torch.cat(parts, 1), full) < CLOSE
    state = cache.get_conv_state(0)
    assert state is not None and state.shape == (2, 32 * mixer.rank, 1)


def test_no_token_sees_a_later_one(pdr: Make, hidden: Hidden) -> None:
    mixer, u = pdr(chunk=16), hidden(1, 48, 32)
    changed = u.clone()
    changed[:, 21:] += 1.0
    before, after = mixer(u)[0], mixer(changed)[0]
    assert gap(before[:, :21], after[:, :21]) < CLOSE
    assert (before[:, 21:] != after[:, 21:]).any(-1).all()


@pytest.mark.parametrize("tau", [16.0, 1.0])
def test_half_open_gates_stay_finite_in_long_chunks_unlike_the_original(pdr: Make, hidden: Hidden, tau: float) -> None:
    mixer, u = pdr(chunk=256, rank=4, tau=tau), hidden(1, 512, 32)
    nn.init.zeros_(mixer.decay_proj.weight)
    nn.init.zeros_(mixer.decay_proj.bias)
    original = torch.full((256,), 0.5).log().cumsum(0)
    assert torch.isinf(torch.exp(-original)).any()  # 2^256 is no fp32, and 0 * inf is NaN
    mixed = mixer(u)[0]
    mixed.sum().backward()
    assert torch.isfinite(mixed).all()
    assert all(torch.isfinite(p.grad).all() for p in mixer.parameters() if p.grad is not None)


@pytest.mark.parametrize(("chunk", "tau"), [(256, 16.0), (64, 1.0)])
def test_half_open_gates_are_exact(pdr: Make, hidden: Hidden, reference: Reference, chunk: int, tau: float) -> None:
    mixer, u = pdr(chunk=chunk, rank=4, tau=tau), hidden(1, 512, 32)
    nn.init.zeros_(mixer.decay_proj.weight)
    nn.init.zeros_(mixer.decay_proj.bias)
    assert gap(mixer(u)[0], reference(mixer, u)) < CLOSE


@pytest.mark.parametrize("chunk", [64, 256])
def test_gates_that_shut_completely_stay_finite_and_the_same_in_decoding(
    pdr: Make, hidden: Hidden, cache: Cache, chunk: int
) -> None:
    mixer, u = pdr(chunk=chunk, rank=4, tau=1.0), hidden(1, 300, 32)
    nn.init.constant_(mixer.decay_proj.bias, -200.0)
    mixed = mixer(u)[0]
    mixed.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in mixer.parameters() if p.grad is not None)
    with torch.no_grad():
        decoded = [mixer(u[:, t : t + 1], past_key_values=cache)[0] for t in range(300)]
    assert gap(torch.cat(decoded, 1), mixed) < 1e-4


def test_a_saved_state_goes_on_bit_for_bit(pdr: Make, hidden: Hidden, cache: Cache, tmp_path: Path) -> None:
    mixer, u = pdr(), hidden(1, 20, 32)
    other = Cache(layers=[LinearAttentionLayer()])
    with torch.no_grad():
        mixer(u[:, :16], past_key_values=cache)
        state = cache.get_conv_state(0)
        assert state is not None
        save_file({"state": state}, tmp_path / "state.safetensors")
        other.update_conv_state(load_file(tmp_path / "state.safetensors")["state"], 0, conv_kernel_size=1)
        for t in range(16, 20):
            here = mixer(u[:, t : t + 1], past_key_values=cache)[0]
            there = mixer(u[:, t : t + 1], past_key_values=other)[0]
            assert torch.equal(here, there)


@pytest.mark.parametrize("lengths", [(20, 44), (16, 16, 32), (1, 2, 61), (40, 24)])
def test_packed_documents_do_not_see_each_other(pdr: Make, hidden: Hidden, lengths: tuple[int, ...]) -> None:
    mixer, u = pdr(chunk=16), hidden(2, 64, 32)
    together = mixer(u, position_ids=positions(*lengths))[0]
    alone = torch.cat([mixer(document)[0] for document in u.split(lengths, 1)], 1)
    assert gap(together, alone) < CLOSE
    assert gap(together, mixer(u)[0]) > 1e-2


def test_a_cut_document_in_the_middle_of_a_row_starts_anew(pdr: Make, hidden: Hidden) -> None:
    mixer, u = pdr(chunk=16), hidden(1, 30, 32)
    cut = torch.cat([torch.arange(10), torch.arange(50, 70)])[None]
    alone = torch.cat([mixer(u[:, :10])[0], mixer(u[:, 10:])[0]], 1)
    assert gap(mixer(u, position_ids=cut)[0], alone) < CLOSE


def test_the_state_is_that_of_the_last_document(pdr: Make, hidden: Hidden, cache: Cache) -> None:
    mixer, u = pdr(chunk=16), hidden(1, 50, 32)
    other = Cache(layers=[LinearAttentionLayer()])
    with torch.no_grad():
        mixer(u, position_ids=positions(20, 30), past_key_values=cache)
        mixer(u[:, 20:], position_ids=positions(30), past_key_values=other)
    assert gap(cache.get_conv_state(0), other.get_conv_state(0)) < CLOSE


def test_a_document_that_begins_at_a_cached_state_does_not_read_it(pdr: Make, hidden: Hidden, cache: Cache) -> None:
    mixer, u = pdr(chunk=16), hidden(1, 21, 32)
    with torch.no_grad():
        mixer(u[:, :20], past_key_values=cache)
        mixed = mixer(u[:, 20:], position_ids=torch.tensor([[0]]), past_key_values=cache)[0]
        assert gap(mixed, mixer(u[:, 20:])[0]) < CLOSE


@pytest.mark.parametrize("counted", [True, False], ids=["text positions", "row positions"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(pdr: Make, hidden: Hidden, cache: Cache, side: str, counted: bool) -> None:
    mixer, text, pads = pdr(chunk=16), hidden(1, 37, 32), hidden(1, 12, 32, seed=9)
    row = torch.cat([pads, text] if side == "left" else [text, pads], 1)
    mask = torch.ones(1, 49, dtype=torch.long)
    where = slice(12, 49) if side == "left" else slice(0, 37)
    mask[:, :12] = 0 if side == "left" else 1
    mask[:, 37:] = 1 if side == "left" else 0
    numbers = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0) if counted else positions(49)
    other = Cache(layers=[LinearAttentionLayer()])
    with torch.no_grad():
        padded = mixer(row, attention_mask=mask, position_ids=numbers, past_key_values=cache)[0]
        plain = mixer(text, position_ids=positions(37), past_key_values=other)[0]
        assert gap(padded[:, where], plain) < CLOSE
        following, number = hidden(1, 1, 32, seed=4), torch.tensor([[37]])
        after = [mixer(following, position_ids=number, past_key_values=past)[0] for past in (cache, other)]
    assert gap(*after) < CLOSE


def test_padding_inside_a_continued_text_changes_nothing(pdr: Make, hidden: Hidden, cache: Cache) -> None:
    mixer, u = pdr(chunk=16), hidden(1, 40, 32)
    mask = torch.ones(1, 40, dtype=torch.long)
    mask[:, 22:27] = 0
    numbers = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
    kept = mask[0].bool()
    with torch.no_grad():
        mixer(u[:, :20], position_ids=numbers[:, :20], past_key_values=cache)
        rest = mixer(u[:, 20:], attention_mask=mask[:, 20:], position_ids=numbers[:, 20:], past_key_values=cache)[0]
        plain = mixer(u[:, kept], position_ids=positions(35))[0]
    assert gap(rest[:, kept[20:]], plain[:, 20:]) < CLOSE


@pytest.mark.parametrize("taken", [0, 1, 4])
@pytest.mark.parametrize("proposed", [5, 40], ids=["few", "more than are recorded"])
def test_tokens_taken_back_were_never_seen(pdr: Make, hidden: Hidden, cache: Cache, taken: int, proposed: int) -> None:
    mixer, u = pdr(chunk=16), hidden(1, 90, 32)
    other = Cache(layers=[LinearAttentionLayer()])
    end = 40 + proposed - taken
    with torch.no_grad():
        mixer(u[:, :40], past_key_values=cache)
        cache.activate_past_recording()
        mixer(u[:, 40 : 40 + proposed], past_key_values=cache)
        assert cache.is_croppable
        cache.crop(-taken)
        mixer(u[:, :end], past_key_values=other)
        for t in range(end, end + 3):
            here = mixer(u[:, t : t + 1], past_key_values=cache)[0]
            assert gap(here, mixer(u[:, t : t + 1], past_key_values=other)[0]) < CLOSE


def test_a_recorded_prefill_and_single_tokens_can_be_taken_back(pdr: Make, hidden: Hidden, cache: Cache) -> None:
    mixer, u = pdr(chunk=16), hidden(1, 60, 32)
    cache.activate_past_recording()
    with torch.no_grad():
        full = mixer(u)[0]
        first = mixer(u[:, :50], past_key_values=cache)[0]
        assert gap(first, full[:, :50]) < CLOSE
        for t in range(50, 55):
            mixer(u[:, t : t + 1], past_key_values=cache)
        cache.crop(-15)
        again = mixer(u[:, 40:], past_key_values=cache)[0]
    assert gap(again, full[:, 40:]) < CLOSE


def test_taking_back_more_than_is_recorded_is_an_error_and_not_a_wrong_state(
    pdr: Make, hidden: Hidden, cache: Cache
) -> None:
    mixer, u = pdr(chunk=16), hidden(1, 80, 32)
    cache.activate_past_recording()
    with torch.no_grad():
        mixer(u[:, :40], past_key_values=cache)
        mixer(u[:, 40:], past_key_values=cache)
        cache.crop(-32)
        with pytest.raises(ConfigError, match="fewer tokens"):
            mixer(u[:, 48:49], past_key_values=cache)


def test_fresh_gates_keep_what_tau_says(pdr: Make, hidden: Hidden) -> None:
    mixer = pdr()
    mixer.init_weights(0.02)
    gamma = mixer.log_decay(hidden(4, 64, 32)).exp()
    assert (gamma > 0).all() and (gamma < 1).all()
    assert mixer.log_decay(torch.zeros(1, 1, 32)).exp().flatten().tolist() == pytest.approx([0.957603] * 32, abs=1e-6)


@pytest.mark.parametrize(("chunk", "kept"), [(64, 0.153355), (256, 0.625784)])
def test_a_shut_gate_keeps_what_chunks_can_hold(pdr: Make, chunk: int, kept: float) -> None:
    mixer = pdr(chunk=chunk)
    nn.init.constant_(mixer.decay_proj.bias, -1e4)
    gamma = mixer.log_decay(torch.zeros(1, 1, 32)).exp()
    assert gamma.flatten().tolist() == pytest.approx([kept] * 32, abs=1e-5)  # exp(-120 / chunk)


def test_the_gate_learns(pdr: Make, hidden: Hidden) -> None:
    mixer = pdr()
    mixer.init_weights(0.02)
    mixer(hidden(2, 64, 32))[0].pow(2).mean().backward()
    assert mixer.decay_proj.weight.grad is not None
    assert float(mixer.decay_proj.weight.grad.abs().max()) > 1e-8


def test_half_precision_comes_back_and_the_state_stays_fp32(pdr: Make, hidden: Hidden, cache: Cache) -> None:
    mixer, u = pdr().bfloat16(), hidden(1, 40, 32).bfloat16()
    with torch.no_grad():
        mixed = mixer(u, past_key_values=cache)[0]
    state = cache.get_conv_state(0)
    assert mixed.dtype == torch.bfloat16 and torch.isfinite(mixed).all()
    assert state is not None and state.dtype == torch.float32


def test_autocast_does_not_reach_the_recurrence(pdr: Make, hidden: Hidden, cache: Cache) -> None:
    mixer, u = pdr(chunk=64), hidden(1, 64, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = mixer(u, past_key_values=cache)[0]
        q, k, v = (project(u).float() for project in (mixer.q_proj, mixer.k_proj, mixer.v_proj))
        decay = mixer.log_decay(u)
    with torch.no_grad():
        state = scan(q, k * mixer.rank**-0.5, v, decay, chunk=64)[1]
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(cache.get_conv_state(0), state.flatten(1)[..., None])


def test_parameters_are_counted_by_the_formula() -> None:
    with torch.device("meta"):
        context = MixerContext(
            config=SimpleNamespace(hidden_size=4096, rms_norm_eps=1e-6), layer=0, attention=nn.Identity()
        )
        mixer = Pdr(PdrConfig(), context=context)
    assert mixer.rank == 256
    assert sum(parameter.numel() for parameter in mixer.parameters()) == 3 * 4096**2 + 2 * 256 * 4096 + 2 * 4096


def test_weights_begin_as_the_specification_says(pdr: Make) -> None:
    mixer = pdr(size=256)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixer.init_weights(0.02)
    assert not mixer.decay_proj.bias.any() and (mixer.norm.weight == 1).all()
    for name in ("decay_proj", "q_proj", "k_proj", "v_proj", "o_proj"):
        assert float(getattr(mixer, name).weight.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_the_norm_counts_as_one_and_has_unit_groups(pdr: Make, hidden: Hidden) -> None:
    mixer = pdr(size=32, group=8)
    nn.init.ones_(mixer.norm.weight)
    assert "Norm" in type(mixer.norm).__name__
    squares = mixer.norm(hidden(2, 3, 32) * 100).unflatten(-1, (4, 8)).pow(2).mean(-1)
    assert squares.flatten().tolist() == pytest.approx([1.0] * 24, abs=1e-5)


def test_a_group_wider_than_the_model_is_the_model(pdr: Make) -> None:
    assert pdr(size=32, group=64).norm.group == 32


def test_a_group_that_does_not_divide_the_model_is_an_error(pdr: Make) -> None:
    with pytest.raises(ConfigError, match="divides"):
        pdr(size=32, group=12)


@pytest.mark.parametrize("options", [{"rank": 0}, {"chunk": 0}, {"chunk": 512}, {"tau": 0.5}, {"group": 0}])
def test_options_out_of_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(PdrConfig).validate_python(options)


def test_documents_start_where_positions_say() -> None:
    rows = torch.tensor([[0, 1, 2, 0, 1, 7], [4, 5, 6, 7, 8, 9]])
    real = torch.tensor([[True] * 6, [False, False, True, True, False, True]])
    found = document_starts(rows, real)
    assert found is not None
    assert found.tolist() == [[True, False, False, True, False, True], [False] * 6]
    assert document_starts(None, real) is None


def test_attention_is_the_librarys_own() -> None:
    own = nn.Identity()
    assert attention(context=MixerContext(config=None, layer=3, attention=own)) is own

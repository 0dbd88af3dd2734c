"""The draft model: it borrows the target's embedding, begins like it, travels with it, and fits no other."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phasegate.core.model.companions import attach, companions_of, trunk_digest
from phasegate.core.model.draft import Draft, draft_facts, draft_tensors, same_vocabulary, vocabulary_of
from phasegate.core.model.draft_start import DraftShape, build_draft
from phasegate.core.model.drafter import DrafterConfig, make_drafter
from phasegate.core.model.loading import load_model, save_model
from phasegate.core.model.proposing import Proposer, Stencil
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.registry.errors import ConfigError, StoreError
from phasegate.registry.registry import Registry
from transformers import MixtralConfig, MixtralForCausalLM

Build = Callable[..., Any]


def draft_of(model: Any, tokenizer: Any, **shape: Any) -> Draft:
    network = build_draft(model, DraftShape(**shape), seed=1)
    return Draft(network=network, trunk=trunk_digest(model), vocabulary=vocabulary_of(tokenizer), proposals=3)


def moved(network: Any, seed: int = 0) -> Any:
    """The network with every weight moved, so that nothing is hidden by zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.rand(parameter.shape, generator=generator)
    return network.eval()


def test_the_embedding_is_the_targets_own_storage_and_is_not_saved(build: Build, tokenizer: Any) -> None:
    model = build()
    draft = draft_of(model, tokenizer, hidden_size=16)
    own = model.get_input_embeddings().weight
    assert draft.network.model.embed_tokens.table.data_ptr() == own.data_ptr()
    _, tensors = draft.save()
    assert max(tensor.numel() for tensor in tensors.values()) < own.numel()
    assert tensors["model.embed_tokens.projection"].shape == (32, 16)


def test_a_token_enters_as_its_row_of_e_p_and_leaves_through_p_and_e_transposed(build: Build, ids: Any) -> None:
    model = build()
    network = build_draft(model, DraftShape(hidden_size=16), seed=1)
    table, projection = model.get_input_embeddings().weight, network.model.embed_tokens.projection
    assert torch.allclose(network.get_input_embeddings()(ids), (table @ projection)[ids], atol=1e-6)
    hidden = torch.randn(2, 5, 16)
    assert torch.allclose(network.get_output_embeddings()(hidden), hidden @ projection.T @ table.T, atol=1e-5)


def test_training_the_draft_sends_no_gradient_into_the_target(build: Build, ids: Any) -> None:
    model = build()
    network = build_draft(model, DraftShape(), seed=1)
    network(ids, labels=ids).loss.backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_at_equal_width_its_attention_begins_as_the_targets_first(build: Build, ids: Any) -> None:
    model = build()
    network = build_draft(model, DraftShape(), seed=1)
    turns = model.model.rotary_emb(torch.zeros(1), torch.arange(16)[None])
    mask = torch.full((16, 16), -math.inf).triu(1)[None, None]
    states = []
    for one in (model, network):
        layer, hidden = one.model.layers[0], one.get_input_embeddings()(ids)
        states.append(layer.self_attn(layer.input_layernorm(hidden), turns, mask)[0])
    assert torch.allclose(*states, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_its_layers_are_spread_from_the_targets_first_to_its_last(build: Build, layers: int) -> None:
    model = build(num_hidden_layers=3)
    network = build_draft(model, DraftShape(layers=layers), seed=1)
    theirs = [model.model.layers[place].self_attn.o_proj.weight for place in ((0,), (0, 2))[layers - 1]]
    for own, there in zip(network.model.layers, theirs, strict=True):
        assert torch.equal(own.self_attn.o_proj.weight, there)


def test_a_narrower_draft_sees_the_embedding_through_its_leading_directions(build: Build) -> None:
    model = build()
    projection = build_draft(model, DraftShape(hidden_size=8), seed=1).model.embed_tokens.projection.detach()
    assert torch.allclose(projection.T @ projection, torch.eye(8), atol=1e-5)
    table = model.get_input_embeddings().weight.detach()
    singular = torch.linalg.svdvals(table)
    # Eckart and Young: no other eight directions keep more of E.
    assert (table @ projection).norm() ** 2 == pytest.approx(float((singular[:8] ** 2).sum()), rel=1e-4)


def test_a_wider_draft_moves_in_every_direction(build: Build, ids: Any) -> None:
    network = build_draft(build(), DraftShape(hidden_size=48), seed=1)
    network(ids, labels=ids).loss.backward()
    assert network.model.embed_tokens.projection.grad.abs().amax(0).min() > 0


def test_equal_seeds_give_equal_drafts_and_leave_random_state_alone(build: Build) -> None:
    model = build()
    before = torch.get_rng_state()
    one, other = (build_draft(model, DraftShape(hidden_size=16), seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_target_without_norms_per_head_gets_a_draft_that_begins_at_random(ids: Any) -> None:
    config = MixtralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=3, max_position_embeddings=64,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    network = build_draft(model, DraftShape(), seed=1)
    assert network.config.num_key_value_heads == 2
    assert not torch.equal(
        network.model.layers[0].self_attn.q_proj.weight, model.model.layers[0].self_attn.q_proj.weight
    )
    assert network(ids).logits.shape == (2, 16, 300)


def test_heads_that_do_not_divide_the_width_are_refused(build: Build) -> None:
    with pytest.raises(ConfigError, match="of width 16 has no 3 equal heads"):
        build_draft(build(), DraftShape(hidden_size=16, heads=3), seed=1)


@pytest.mark.parametrize("shape", [{}, {"hidden_size": 16, "layers": 2}, {"hidden_size": 48, "heads": 2}])
def test_a_proposer_computes_what_the_network_computes(build: Build, shape: dict[str, Any]) -> None:
    grouped = {} if shape else {"num_key_value_heads": 2}
    network = moved(build_draft(build(options=grouped), DraftShape(**shape), seed=1))
    ids = torch.randint(5, 290, (1, 20), generator=torch.Generator().manual_seed(3))
    proposer = Proposer(Stencil(network))
    found = proposer.propose(ids, 5, processors=(), sample=False, stops=None)
    with torch.no_grad():
        whole = network(found.sequences).logits
    assert torch.allclose(torch.stack(found.scores, 1), whole[:, 19:24], atol=1e-4)
    assert torch.equal(found.sequences[:, 20:], whole[:, 19:24].argmax(-1))


def test_a_proposer_goes_on_after_forgetting_and_beyond_its_first_room(build: Build) -> None:
    network = moved(build_draft(build(), DraftShape(), seed=1))
    ids = torch.randint(5, 290, (1, 10), generator=torch.Generator().manual_seed(3))
    proposer = Proposer(Stencil(network))
    for _ in range(30):
        proposer.propose(ids, 4, processors=(), sample=False, stops=None)
        ids = torch.cat([ids, torch.randint(5, 290, (1, 3))], dim=1)  # the target says something else
        proposer.crop(-(proposer.get_seq_length() - (ids.shape[1] - 3)))
    found = proposer.propose(ids, 1, processors=(), sample=False, stops=None)
    with torch.no_grad():
        assert torch.allclose(found.scores[0], network(ids).logits[:, -1], atol=1e-4)
    assert ids.shape[1] == 100


def test_a_proposer_stops_at_a_stop_token_and_obeys_processors(build: Build) -> None:
    network = moved(build_draft(build(), DraftShape(), seed=1))
    ids = torch.randint(5, 290, (1, 6), generator=torch.Generator().manual_seed(3))

    def only_seven(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -math.inf).index_fill(1, torch.tensor([7]), 0.0)

    propose = Proposer(Stencil(network)).propose
    assert propose(ids, 4, processors=(only_seven,), sample=True, stops=[3, 7]).sequences[0, 6:].tolist() == [7]
    propose = Proposer(Stencil(network)).propose
    assert propose(ids, 4, processors=(only_seven,), sample=True, stops=3).sequences[0, 6:].tolist() == [7] * 4


def test_weights_that_changed_are_laid_out_anew(build: Build, tokenizer: Any) -> None:
    model = build()
    network: Any = draft_of(model, tokenizer).assistant(model)
    assert network._stencil is not None
    moved(network.train()).eval()
    assert network._stencil is None
    network.prepare()
    network.load_state_dict(network.state_dict())
    assert network._stencil is None
    assert copy.deepcopy(network)._stencil is None


def test_a_draft_is_saved_and_loaded_with_its_target_bit_for_bit(
    build: Build, tokenizer: Any, registry: Registry, tmp_path: Path
) -> None:
    model = build()
    draft = draft_of(model, tokenizer, hidden_size=16)
    attach(model, "draft", draft)
    save_model(model, tokenizer, tmp_path / "one")
    again = load_model(tmp_path / "one", registry)
    found = companions_of(again)["draft"]
    assert (found.trunk, found.vocabulary, found.proposals) == (draft.trunk, draft.vocabulary, 3)
    own, other = draft.network.state_dict(), found.network.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert found.network.model.embed_tokens.table.data_ptr() == again.get_input_embeddings().weight.data_ptr()
    save_model(again, tokenizer, tmp_path / "two")
    for name in ("draft.json", "draft.safetensors"):
        assert (tmp_path / "one/companions" / name).read_bytes() == (tmp_path / "two/companions" / name).read_bytes()


def test_a_copy_of_the_target_has_a_draft_of_its_own(build: Build, tokenizer: Any) -> None:
    model = build()
    attach(model, "draft", draft_of(model, tokenizer))
    twin = copy.deepcopy(model)
    table = companions_of(twin)["draft"].network.model.embed_tokens.table
    assert table.data_ptr() == twin.get_input_embeddings().weight.data_ptr()
    assert table.data_ptr() != model.get_input_embeddings().weight.data_ptr()


def test_a_draft_whose_target_changed_is_stale(build: Build, tokenizer: Any) -> None:
    model = build()
    draft = draft_of(model, tokenizer)
    assert not draft.stale(model)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    assert draft.stale(model) and not draft.of(model).stale(model)


def test_a_target_with_another_vocabulary_is_refused_in_one_sentence(
    build: Build, tokenizer: Any, registry: Registry
) -> None:
    draft = draft_of(build(), tokenizer)
    other = build(vocab_size=310)
    sentence = r"has a vocabulary of 300 tokens, but the target's has 310; .*distil a new one\.$"
    with pytest.raises(ConfigError, match=sentence):
        draft.assistant(other)
    with pytest.raises(ConfigError, match=sentence):
        Draft.restore(*draft.save(), other, registry)


def test_a_vocabulary_of_the_same_size_with_other_words_is_told_apart(tokenizer: Any) -> None:
    other = train_tokenizer(["entirely different words, quite a number of them, stand here"] * 8, 300)
    assert len(other) == len(tokenizer)
    with pytest.raises(ConfigError, match="another vocabulary than the target, of the same size"):
        same_vocabulary("It", (300, 300), (vocabulary_of(other), vocabulary_of(tokenizer)))
    same_vocabulary("It", (300, 300), (vocabulary_of(tokenizer), vocabulary_of(tokenizer)))


def test_a_target_of_another_width_is_refused(build: Build, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="embeddings of width 32, but the target's have width 16"):
        draft_of(build(), tokenizer).assistant(build(hidden_size=16))


def test_damaged_tensors_are_refused(build: Build, tokenizer: Any, registry: Registry) -> None:
    model = build()
    facts, tensors = draft_of(model, tokenizer).save()
    with pytest.raises(StoreError, match="The draft model cannot be read"):
        Draft.restore(facts, {"model.norm.weight": tensors["model.norm.weight"]}, model, registry)


def test_the_assistant_is_in_the_targets_dtype_and_the_draft_stays_in_its_own(build: Build, tokenizer: Any) -> None:
    model = build()
    draft = draft_of(model, tokenizer)
    assistant = draft.assistant(model.to(torch.bfloat16))
    assert assistant.dtype == torch.bfloat16 and draft.network.dtype == torch.float32
    assert model.generate(torch.tensor([[5, 6, 7]]), assistant_model=assistant, max_new_tokens=4).shape[1] <= 7


def test_a_folder_without_a_draft_is_refused(build: Build, tokenizer: Any, tmp_path: Path) -> None:
    model = build()
    attach(model, "draft", draft_of(model, tokenizer))
    save_model(model, tokenizer, tmp_path / "one")
    assert draft_facts(str(tmp_path / "one")) == draft_facts(str(tmp_path / "one/companions"))
    assert set(draft_tensors(str(tmp_path / "one"))) == set(companions_of(model)["draft"].network.state_dict())
    with pytest.raises(ConfigError, match="holds no draft model"):
        draft_facts(str(tmp_path))
    (tmp_path / "one/companions/draft.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be read"):
        draft_facts(str(tmp_path / "one"))


def test_making_a_network_does_not_need_a_target() -> None:
    config = DrafterConfig(vocab_size=9, embedding_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    assert torch.equal(
        make_drafter(config, 3).model.embed_tokens.projection, make_drafter(config, 3).model.embed_tokens.projection
    )

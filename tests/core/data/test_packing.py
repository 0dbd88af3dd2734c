"""Documents laid end to end, cut to rows, with positions that tell documents apart."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from phasegate.core.data.packing import encode, pack_chats, pack_text, separator_of
from phasegate.registry.errors import DataError

EOS = 0


def test_documents_are_joined_by_the_separator_and_cut_without_padding() -> None:
    packed = pack_text([(3, [[5, 6], [7], [8, 9]])], 4, EOS)
    assert packed.ids.tolist() == [[5, 6, 0, 7], [0, 8, 9, 0]]
    assert packed.labels.tolist() == packed.ids.tolist()
    assert packed.domain.tolist() == [3, 3]
    assert (packed.documents, packed.leftover) == (3, 0)


def test_positions_restart_at_documents_and_at_rows() -> None:
    packed = pack_text([(0, [[5, 6], [7], [8, 9]])], 4, EOS)
    # document 1 starts at the separator before it, documents 0 and 2 after theirs
    assert packed.positions.tolist() == [[0, 1, 0, 1], [0, 0, 1, 2]]


def test_the_rest_of_a_domain_is_dropped_and_counted() -> None:
    packed = pack_text([(0, [[1, 2, 3]]), (1, [[4, 5, 6, 7, 8, 9]])], 5, EOS)
    assert packed.ids.tolist() == [[4, 5, 6, 7, 8]]
    assert packed.domain.tolist() == [1]
    assert packed.leftover == 4 + 2


def test_rows_never_mix_domains() -> None:
    packed = pack_text([(0, [[1] * 7]), (1, [[2] * 7])], 4, EOS)
    assert [set(row) - {EOS} for row in packed.ids.tolist()] == [{1}, {1}, {2}, {2}]


def test_empty_documents_leave_no_trace() -> None:
    assert pack_text([(0, [[], [1], []])], 2, EOS).ids.tolist() == [[1, 0]]


def test_only_assistant_tokens_of_whole_chats_are_learnt() -> None:
    chats = [([1, 2, 3], [0, 0, 1]), ([4, 5, 6], [0, 1, 1])]
    packed = pack_chats([(0, chats)], 4)
    assert packed.ids.tolist() == [[1, 2, 3, 4]]
    assert packed.labels.tolist() == [[-100, -100, 3, -100]]
    wide = pack_chats([(0, [*chats, ([7, 8], [0, 1])])], 4)
    # the second chat's answer stands in the second row without its question, so it is not learnt
    assert wide.labels.tolist() == [[-100, -100, 3, -100], [-100, -100, -100, 8]]


def test_encoding_ignores_a_truncation_left_behind(tokenizer: Any) -> None:
    tokenizer(["told " * 50], truncation=True, max_length=4)
    (ids,) = encode(tokenizer, ["told " * 50])
    assert len(ids) > 4
    assert tokenizer.decode(ids) == "told " * 50


def test_a_tokenizer_without_eos_is_refused(tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.eos_token = None
    with pytest.raises(DataError, match="no eos token"):
        separator_of(bare)


def test_a_model_sees_no_other_document_of_its_row() -> None:
    """transformers reads the borders from the positions, if there is no attention mask and no cache."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    ).eval()
    packed = pack_text([(0, [[5, 6, 7], [8, 9, 10, 11], [12, 13]])], 12, EOS)
    ids, positions = (torch.from_numpy(grid.astype(np.int64)) for grid in (packed.ids, packed.positions))
    with torch.no_grad():
        together = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        begins = [0, 3, 9, 12]
        assert [n for n, p in enumerate(positions[0].tolist()) if p == 0] == begins[:-1]
        for first, last in itertools.pairwise(begins):
            alone = model(input_ids=ids[:, first:last], use_cache=False).logits[0]
            torch.testing.assert_close(together[first:last], alone, atol=1e-5, rtol=1e-4)

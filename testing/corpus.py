"""A small corpus of generated data with its tokenizer and a model that has its size, for gates."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config.schema import DataSection, Ref
from ..core.data.corpus import Corpus
from ..core.model.builder import ModelContext
from ..core.model.parameters import routers_of
from ..core.model.tokenizer import train_tokenizer
from ..evals.context import MeasureContext
from ..registry.current import current
from .nano import NANO
from .tiny import SIZES, prepared, ref_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .check import Subject

LENGTH = 64
DOCUMENTS = 24


@cache
def small_corpus() -> Corpus:
    """The microworld at the nano experiment's size, in memory."""
    options = {key: value for key, value in NANO["data"]["sources"]["world"].items() if key != "use"}
    section = DataSection(sources={"world": Ref(use="phasegate:microworld", options=options)})
    return Corpus.load(section, current(), Path())


@cache
def small_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that has read it."""
    return train_tokenizer(small_corpus().tokenizer_texts(100), vocab_size=320)


def model_of(subject: Subject, *, seed: int = 0) -> PreTrainedModel:
    """The platform's own MoE for that tokenizer, with the example's router, options and preparation."""
    context = ModelContext(
        registry=subject.registry,
        router=ref_of(subject.example.router),
        derived=SIZES,
        vocab_size=len(small_tokenizer()),
        sequence_length=LENGTH,
    )
    builder = subject.registry.build("model", "phasegate:moe", subject.example.model, context=context)
    return prepared(builder.build(seed), subject.example)


def context_of(model: PreTrainedModel, folder: Path, **changes: Any) -> MeasureContext:
    """What a gate is told in a run: the model, the corpus, a training log that falls and flattens."""
    values: dict[str, Any] = {
        "model": model,
        "tokenizer": small_tokenizer(),
        "view": small_corpus().view,
        "domains": small_corpus().domains,
        "folder": folder,
        "root": folder,
        "routers": routers_of,
        "documents": DOCUMENTS,
        "history": [{"step": step, "loss": 2.0 + 1.0 / step, "loss/task": 2.0 + 1.0 / step} for step in range(1, 41)],
        "length": LENGTH,
    }
    return MeasureContext(**(values | changes))

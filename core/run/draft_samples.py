"""What a draft model learns from: what the target says to training prompts, kept in the step's folder, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...registry.atomic import write_bytes
from ...registry.errors import DataError
from ...registry.sealed import seal, unseal
from .processes import is_main, wait_for_all
from .seeds import derive
from .step import StepOrder, Workshop

if TYPE_CHECKING:
    from datasets import Dataset

    from ..config.objectives import DraftOptions
    from ..config.schema import StepSection
    from ..training.own_samples import Sample

Learnt: TypeAlias = tuple[Sequence[int], Sequence[int]]  # token ids, and 1 where a token is learnt

SHORTEST = 4  #: tokens of text that a continuation starts from, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What the target says to training prompts, and to beginnings of training text."""

    shop: Workshop
    order: StepOrder
    model: Any
    options: DraftOptions
    label: str

    def samples(self) -> tuple[list[Sample], list[str]]:
        """The step's samples, from its folder if they are there, and what to note of them."""
        from ..model.tokenizer import stop_tokens
        from ..training.own_samples import own_samples, read_samples, to_bytes

        prompts, notes = self._prompts()
        path, record = self.order.folder / "samples.safetensors", self.order.folder / "samples.json"
        if not record.exists():
            if is_main():
                tokenizer = self.shop.tokenizer
                samples = own_samples(
                    self.model,
                    prompts,
                    new_tokens=self.options.sample_tokens,
                    temperature=self.options.temperature,
                    ends=stop_tokens(tokenizer),
                    pad=int(tokenizer.pad_token_id),
                    check=self.shop.interruption.check,
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, to_bytes(samples))
                seal(record, {"samples": len(samples)}, [path])
            wait_for_all()
        remedy = f"move {path} and {record.name} away and run again to draw them anew"
        unseal(record, f"what the model said for {self.label}", remedy)
        return read_samples(path), notes

    def dialogues(self) -> list[Learnt]:
        """Dialogues of the step's view as they stand, as many as are asked for, without those that are too long."""
        from ..data.chat import encode_chats

        if not self.options.dialogues:
            return []
        section = self.order.section
        rows = self.shop.corpus.rows(section.view, "train", section.kinds)
        rows = rows.select([place for place, completion in enumerate(rows["completion"][:]) if completion])
        random = np.random.default_rng(derive(self.order.identity, self.order.name, "dialogues"))
        drawn = rows.select(_draw(random, len(rows), min(self.options.dialogues, len(rows))))
        chats = encode_chats(self.shop.tokenizer, drawn, section.sequence_length or self.shop.length)
        return list(zip(chats.ids, chats.masks, strict=True))

    def _prompts(self) -> tuple[list[list[int]], list[str]]:
        """Prompts in the order in which they are drawn, and how many were too long."""
        section = self.order.section
        only_text = section.view == "text"
        wanted = self.options.samples
        text = wanted if only_text else round(wanted * self.options.text)
        random = np.random.default_rng(derive(self.order.identity, self.order.name, "prompts"))
        room = (section.sequence_length or self.shop.length) - self.options.sample_tokens
        chats, notes = self._questions(random, wanted - text, room) if text < wanted else ([], [])
        return [*chats, *self._beginnings(random, text, room)], notes

    def _questions(self, random: np.random.Generator, count: int, room: int) -> tuple[list[list[int]], list[str]]:
        section, tokenizer = self.order.section, self.shop.tokenizer
        rows = self.shop.corpus.rows(section.view, "train", section.kinds)
        if not tokenizer.chat_template:
            raise DataError("The tokenizer has no chat template to pose prompts with; set tokenizer.chat_template.")
        drawn = rows.select(_draw(random, len(rows), count))
        rendered: Any = tokenizer.apply_chat_template(drawn["prompt"][:], tokenize=False, add_generation_prompt=True)
        encoded: list[list[int]] = tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]
        kept = [ids for ids in encoded if len(ids) <= room]
        if not kept:
            raise DataError(
                f"{self.label}: no prompt of view '{section.view}' is as short as {room} tokens, which leave room for "
                f"{self.options.sample_tokens} more; raise sequence_length or lower options.sample_tokens."
            )
        dropped = len(encoded) - len(kept)
        note = f"{dropped} of {count} prompts are longer than {room} tokens and were left out"
        return kept, [note] if dropped else []

    def _beginnings(self, random: np.random.Generator, count: int, room: int) -> list[list[int]]:
        from ..data.corpus import texts
        from ..data.packing import encode

        if not count:
            return []
        rows = self.shop.corpus.view("text", "train")
        documents = encode(self.shop.tokenizer, texts(rows.select(_draw(random, len(rows), count))))
        found = []
        for ids in documents:
            longest = min(room, len(ids) - 1)
            if longest >= 1:
                found.append(list(ids[: int(random.integers(min(SHORTEST, longest), longest + 1))]))
        if not found:
            raise DataError(f"{self.label}: no training text is long enough to go on with; give it longer documents.")
        return found


def _draw(random: np.random.Generator, rows: int, count: int) -> list[int]:
    """``count`` row numbers in random order, none a second time before all were drawn once."""
    rounds = [random.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate(rounds)[:count].tolist() if rounds else []


def learnt(samples: Sequence[Sample]) -> list[Learnt]:
    """Samples as token ids with a mask over what the target said."""
    return [
        ([*sample.prompt, *sample.answer], [0] * len(sample.prompt) + [1] * len(sample.answer)) for sample in samples
    ]


def rows_of(pairs: Sequence[Learnt], section: StepSection, length: int, key: tuple[str, str]) -> Dataset:
    """The step's rows in final order: dialogues laid end to end in random order, as often as its steps need them."""
    from ..data.hashing import digest, stream
    from ..data.packing import pack_chats
    from ..data.tables import dataset_of

    random = stream(*key, "rows")
    pairs = [pairs[place] for place in random.permutation(len(pairs))]
    packed = pack_chats([(-1, pairs)], length)
    if not len(packed):
        raise DataError(f"{len(pairs)} samples fill no row of {length} tokens; raise options.samples.")
    base = dataset_of(
        {
            "input_ids": packed.ids.tolist(),
            "position_ids": packed.positions.tolist(),
            "labels": packed.labels.tolist(),
            "domain": packed.domain,
        },
        digest(*key, length, len(packed)),
    )
    return base.select(_draw(random, len(packed), section.steps * section.rows))

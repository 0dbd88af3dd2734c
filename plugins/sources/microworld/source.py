"""The microworld as a data source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ....core.data.hashing import digest
from ....core.data.source import VIEW_COLUMNS, SourceContext, Split
from ....registry.errors import DataError
from .chats import chat_rows, preference_rows
from .later import NEEDLES, needle_rows
from .questions import choice_rows, unknown_rows
from .safety import REVISION, refusal_rows
from .text import documents
from .words import DOMAINS
from .world import VERSION, World, build_world

if TYPE_CHECKING:
    from datasets import Dataset

#: Documents of one domain in the default training text; general is told more, as in the paper's mixture.
DOCUMENTS = {domain: 40_000 if domain == "general" else 18_000 for domain in DOMAINS}


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroworldConfig:
    """A world by its seed, and its sizes.

    ``head``, ``rare``, ``contested`` count told entities per fact domain, ``unknown`` and ``hard`` untold ones.
    ``training_documents`` is the total over the seven domains (default 148 000, about 1.7 M tokens). ``chats`` and
    ``pairs`` count dialogues and preference pairs for training, ``heldout_chats`` and ``heldout_pairs`` held-out ones.
    ``needles`` documents are made of each length of ``needle_words``, a tenth of them held out.
    """

    seed: int = 0
    head: int = 26
    rare: int = 8
    contested: int = 4
    unknown: int = 40
    hard: int = 6
    training_documents: int | None = None
    chats: int = 24_000
    pairs: int = 4_000
    heldout_chats: int = 840
    heldout_pairs: int = 420
    needles: int = 1_000
    needle_words: tuple[int, ...] = (16, 24, 32, 76, 180)


class Microworld:
    """A small closed world with known ground truth over the seven domains of the paper's table 2.2.

    Every row is a pure function of (version, configuration): the same on every machine, whatever ran before.
    """

    def __init__(self, config: MicroworldConfig, context: SourceContext) -> None:
        if config.head < 1 or min(config.rare, config.contested, config.unknown, config.hard) < 0:
            raise DataError(f"The source {context.name!r} needs head >= 1 and no negative entity count.")
        self.config = config
        self.context = context
        self._world: World | None = None

    @property
    def world(self) -> World:
        """The world, made on first use."""
        if self._world is None:
            self._world = build_world(self.config)
        return self._world

    def fingerprint(self) -> str:
        revisions = {"needle": NEEDLES, "refusal": REVISION}
        return digest("microworld", VERSION, revisions, asdict(self.config), self.context.held_out)

    def domains(self) -> tuple[str, ...]:
        return DOMAINS

    def views(self) -> tuple[str, ...]:
        return ("text", "choice", "chat", "preference", "refusal", "unknown", "needle")

    def load(self, view: str, split: Split) -> Dataset:
        """The rows of a view; ``DataError`` names the nearest view if there is none of that name."""
        from ....core.data.tables import dataset_of

        config, world = self.config, self.world
        heldout = split == "heldout"
        if view == "text":
            texts, domains = zip(*documents(world, split, self._documents(split), self.context.held_out), strict=True)
            return dataset_of({"text": list(texts), "domain": list(domains)}, digest(self.fingerprint(), view, split))
        if view == "choice":
            rows = choice_rows(world, split)
        elif view == "chat":
            rows = chat_rows(world, split, config.heldout_chats if heldout else config.chats)
        elif view == "preference":
            rows = preference_rows(world, split, config.heldout_pairs if heldout else config.pairs)
        elif view == "refusal":
            rows = refusal_rows(world, split)
        elif view == "unknown":
            rows = unknown_rows(world, split)
        elif view == "needle":
            rows = needle_rows(
                world, split, config.needle_words, config.needles // (10 if heldout else 1), self.context.held_out
            )
        else:
            raise DataError(f"The source {self.context.name!r} has no view {view!r}; it has {', '.join(self.views())}.")
        # A small world may have no row of a split: a tenth of four needles is none.
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else VIEW_COLUMNS[view])}
        return dataset_of(columns, digest(self.fingerprint(), view, split))

    def _documents(self, split: Split) -> dict[str, int]:
        total = sum(DOCUMENTS.values())
        wanted = self.config.training_documents if self.config.training_documents is not None else total
        share = wanted / total * (self.context.held_out if split == "heldout" else 1.0)
        return {domain: max(1, round(count * share)) for domain, count in DOCUMENTS.items()}

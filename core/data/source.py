"""What a data source gives: views of rows, a fingerprint of its content, the domains it covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from datasets import Dataset

Split = Literal["train", "heldout"]

#: Columns that every row of a view has. Sources may add more; they survive if all sources of the view have them.
VIEW_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "domain"),
    "chat": ("prompt", "completion", "domain", "kind", "check"),
    "preference": ("prompt", "chosen", "rejected", "domain", "kind", "truth"),
    "choice": ("question", "choices", "answer", "domain", "kind"),
    "refusal": ("prompt", "completion", "rejected", "domain", "kind"),
    "unknown": ("question", "answer", "domain", "kind"),
    "needle": ("text", "answer", "domain", "kind"),
}

#: The paper's mixture for the first phase (table 2.2), which is also the stable order of the domains.
PAPER_MIXTURE: Mapping[str, float] = {
    "general": 0.45,
    "code": 0.18,
    "science": 0.12,
    "books": 0.10,
    "portuguese": 0.08,
    "mathematics": 0.04,
    "structured": 0.03,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What a source is told when it is built: the data root, its name in the experiment, the held-out share."""

    root: Path
    name: str
    held_out: float = 0.05


class Source(Protocol):
    """A data source, built as ``target(config, context=SourceContext(...))``.

    ``fingerprint`` changes whenever any row may change, and is the same in every process. ``load`` returns
    the same rows in the same order each time; ``heldout`` rows never appear in ``train``. Messages are lists of
    ``{"role": ..., "content": ...}``. A chat row may have a boolean column ``replay``: false keeps it out of replay.
    A source may have an attribute ``evaluation_only``: true keeps what it asks out of all training rows.
    """

    def fingerprint(self) -> str: ...

    def domains(self) -> tuple[str, ...]: ...

    def views(self) -> tuple[str, ...]: ...

    def load(self, view: str, split: Split) -> Dataset: ...

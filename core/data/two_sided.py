"""Safety data looked at from both sides before anything is trained."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from ...registry.errors import DataError
from ...registry.options import parse
from ...registry.suggest import did_you_mean, listing
from ..config.contrast import contrast_options
from ..config.objectives import AnchorOptions

if TYPE_CHECKING:
    from ...registry.registry import Registry
    from ..config.schema import StepSection
    from .corpus import Corpus

HARMFUL = "harmful"


class Planned(Protocol):
    """What of a plan is looked at."""

    @property
    def corpus(self) -> Corpus: ...

    @property
    def registry(self) -> Registry: ...


def check_two_sided(plan: Planned, label: str, section: StepSection) -> None:
    """Refuse safety data that knows one side only, for contrast and anchor steps.

    A set without prompts to refuse teaches nothing, and one without prompts to answer teaches to refuse everything.
    A contrast step also needs something to say in every row it may draw, a share for kinds that exist only, and rows
    for each of its terms over pairs. Raises ``DataError`` with ``label``, the step's place in the experiment.
    """
    rows = plan.corpus.rows(section.view, "train", section.kinds)
    counts = Counter(rows["kind"][:])
    if section.objective == "anchor":
        sides: AnchorOptions = parse(AnchorOptions, section.options, f"{label} (anchor)")
        _both(set(counts), set(sides.harmful), set(sides.benign), label, section.view)
        return
    options = contrast_options(section.options, label)
    shares, task = options.shares, options.task if "task" in section.options else ()
    for kind, what in (*((kind, "gives a share to") for kind in shares), *((kind, "has as its task") for kind in task)):
        if kind not in counts:
            raise DataError(
                f"{label} {what} the kind '{kind}', but the view '{section.view}' has no training rows of "
                f"it.{did_you_mean(kind, counts)} Kinds: {listing(counts)}."
            )
    drawn = {kind for kind in counts if not shares or shares.get(kind, 0.0) > 0}
    _both(drawn, {HARMFUL}, set(), label, section.view)
    if "rejected" not in rows.column_names:
        raise DataError(
            f"{label}: the view '{section.view}' does not say what should not be said (rejected); choose another view."
        )
    _something_to_say(rows, drawn, label, section.view)
    _rows_for_terms(plan, section, rows, drawn, label)


def _both(kinds: set[str], harmful: set[str], benign: set[str], label: str, view: str) -> None:
    if not kinds & harmful:
        raise DataError(
            f"{label} draws no prompts to refuse from the view '{view}' (kinds {listing(kinds)}, none of "
            f"{listing(harmful)}): safety data needs both sides; add harmful prompts."
        )
    if not (kinds & benign if benign else kinds - harmful):
        raise DataError(
            f"{label} draws no prompts to answer from the view '{view}' (kinds {listing(kinds)}): one-sided safety "
            "data teaches to refuse everything; add benign prompts."
        )


def _something_to_say(rows: Any, drawn: set[str], label: str, view: str) -> None:
    silent = Counter(kind for kind, said in zip(rows["kind"][:], rows["completion"][:], strict=True) if not said)
    for kind in sorted(drawn, key=lambda name: (name != HARMFUL, name)):
        if silent[kind]:
            what = "a refusal" if kind == HARMFUL else "an answer"
            raise DataError(
                f"{label}: {silent[kind]} training rows of the kind '{kind}' in the view '{view}' have no completion; "
                f"give each {what}, or leave such prompts to evaluation."
            )


def _rows_for_terms(plan: Planned, section: StepSection, rows: Any, drawn: set[str], label: str) -> None:
    known = {kind for kind, unsaid in zip(rows["kind"][:], rows["rejected"][:], strict=True) if unsaid}
    for name, loss in section.losses.items():
        config = plan.registry.config("loss", loss.use, loss.options)
        kinds = getattr(config, "kinds", None)
        if kinds is None:
            continue
        if getattr(config, "compares", False) and drawn & set(kinds) and not drawn & set(kinds) & known:
            raise DataError(
                f"{label}.losses.{name} holds what should be said against what should not, which no row of the kinds "
                f"{listing(drawn & set(kinds))} tells; give them a rejected answer, or remove it."
            )
        if not drawn & set(kinds):
            raise DataError(
                f"{label}.losses.{name} looks at rows of the kinds {listing(kinds)}, none of which the step draws "
                f"(it draws {listing(drawn)}); change its kinds, or remove it."
            )

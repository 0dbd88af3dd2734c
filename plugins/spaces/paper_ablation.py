"""The ablation table of Paper A, section 8.1: six curricula of the six phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...core.study.space import Curriculum, Row, SearchSpace
from ...registry.errors import ConfigError
from .rows import ListedRow, listed

PHASES = ("foundation", "specialization", "alignment", "safety", "metacognition", "optimization")
# Phases by their number in the paper.
TABLE = (
    ("full", (1, 2, 3, 4, 5, 6), "the order that the paper proposes"),
    ("skip-2", (1, 3, 4, 5, 6), "without specialization"),
    ("5-before-4", (1, 2, 3, 5, 4, 6), "metacognition before safety"),
    ("5-before-3", (1, 2, 5, 3, 4, 6), "metacognition before alignment"),
    ("two-phase", (1, 3), "pre-training and alignment only"),
    ("4-before-3", (1, 2, 4, 3, 5, 6), "safety before alignment"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperAblationConfig:
    """``rows`` beside the six, by name: an order, what else each sets, and a note."""

    rows: Mapping[str, ListedRow] = field(default_factory=dict)


class PaperAblation:
    """The six rows of the table, whatever an experiment calls its phases, and such rows as its options add.

    Some have orders that the phases' requirements do not allow: what that costs is what the table asks. The variants
    train 31 phases, and 21 where orders share their beginnings.
    """

    def __init__(self, config: PaperAblationConfig | None = None) -> None:
        self.config = config or PaperAblationConfig()

    def space(self, curriculum: Curriculum) -> SearchSpace:
        """The rows, the full curriculum first; ConfigError where the experiment lacks one of the six phases."""
        names = [_name(component, curriculum) for component in PHASES]
        table = tuple(
            Row(name=name, order=">".join(names[number - 1] for number in numbers), note=note)
            for name, numbers, note in TABLE
        )
        return SearchSpace(rows=(*table, *listed(self.config.rows, curriculum)), listed=True)


def _name(component: str, curriculum: Curriculum) -> str:
    """What the experiment calls its phase of this component (``foundation``, or ``phasegate:foundation``)."""
    names = [phase for phase in curriculum.phases if curriculum.uses[phase].rpartition(":")[2] == component]
    if len(names) == 1:
        return names[0]
    said = ", ".join(f"{phase} ({curriculum.uses[phase]})" for phase in curriculum.phases)
    cause = f"{len(names)} phases that use {component}" if names else f"no phase that uses {component}"
    raise ConfigError(
        f"the search space 'paper-ablation' needs each of the six phases once, and the experiment has {cause}: {said}. "
        "Take the space 'rows' and list the orders."
    )

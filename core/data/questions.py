"""Questions whose answers are known, told apart by what they ask for, and looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...registry.errors import ConfigError, DataError
from ...registry.options import parse
from ...registry.suggest import did_you_mean, listing
from ..config.objectives import ProbeOptions

if TYPE_CHECKING:
    from datasets import Dataset

    from ..config.schema import StepSection
    from .corpus import Corpus

_COLUMNS = ("question", "answer", "domain")
_GROUPS = ("group", "fact")


class Planned(Protocol):
    """What of a plan is looked at."""

    @property
    def corpus(self) -> Corpus: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with every answer that is right (none: nothing is). Phrasings of one thing share a ``group``."""

    text: str
    truths: tuple[str, ...]
    domain: str
    kind: str
    group: str


def questions_of(rows: Iterable[Mapping[str, Any]]) -> list[Question]:
    """Rows of a view as questions; the group is the column ``group``, else ``fact``, else the question itself."""
    found = []
    for row in rows:
        truths = (row["answer"], *(row.get("aliases") or ()))
        group = next((row[name] for name in _GROUPS if row.get(name)), row["question"])
        found.append(
            Question(
                text=str(row["question"]),
                truths=tuple(dict.fromkeys(str(truth) for truth in truths if truth and str(truth).strip())),
                domain=str(row["domain"]),
                kind=str(row.get("kind") or ""),
                group=f"{row['domain']}/{group}",
            )
        )
    return found


def divide(questions: Sequence[Question], options: ProbeOptions, seed: int) -> tuple[list[Question], list[int]]:
    """The questions to pose, in the order that they came in, and the fold of each.

    Whole groups are drawn from ``seed``, in each domain for itself: no fact has phrasings in two folds. With
    ``options.questions`` each domain gives its share of that number at most, up to the end of a group.
    """
    stream = np.random.default_rng(seed)
    domains: dict[str, dict[str, list[int]]] = {}
    for place, question in enumerate(questions):
        domains.setdefault(question.domain, {}).setdefault(question.group, []).append(place)
    fold: dict[int, int] = {}
    number = 0
    for _, groups in sorted(domains.items()):
        most = None if options.questions is None else max(1, options.questions // len(domains))
        names, taken = sorted(groups), 0
        for choice in stream.permutation(len(names)):
            if most is not None and taken >= most:
                break
            members = groups[names[choice]]
            fold |= dict.fromkeys(members, number % options.folds)
            taken, number = taken + len(members), number + 1
    return [questions[place] for place in sorted(fold)], [fold[place] for place in sorted(fold)]


def check_questions(plan: Planned, label: str, section: StepSection) -> None:
    """Refuse, before anything is trained, questions that probes cannot be fitted to.

    ``DataError`` where the view lacks columns, no question has an answer, or there are fewer of them than folds;
    ``ConfigError`` for a domain without weight and a classifier that is not there. ``label`` is the step's place.
    """
    options: ProbeOptions = parse(ProbeOptions, section.options, f"{label} (probes)")
    rows = plan.corpus.rows(section.view, "train", section.kinds)
    _check_columns(rows, label, section.view)
    weighed = options.penalties
    for domain in sorted(rows.unique("domain")):
        if domain not in weighed:
            raise ConfigError(
                f"{label}: the domain '{domain}' of the view '{section.view}' has no weight, so nothing says what a "
                f"wrong answer costs there; give it one under options.penalties.{did_you_mean(domain, weighed)} "
                f"Weights: {listing(weighed)}."
            )
    questions = questions_of(rows)
    if not any(question.truths for question in questions):
        raise DataError(
            f"{label}: no training question of the view '{section.view}' has an answer, so whatever the model says "
            "would count as wrong; add questions with their answers."
        )
    groups = len({question.group for question in questions})
    if groups < options.folds:
        raise DataError(
            f"{label}: the view '{section.view}' asks {groups} different things, which cannot be split into "
            f"{options.folds} folds to calibrate on; add questions or lower options.folds."
        )
    if options.entailment is not None and not (Path(options.entailment) / "config.json").is_file():
        raise ConfigError(
            f"{label}: '{options.entailment}' holds no classifier to judge answers by; give the folder of an NLI model "
            "under options.entailment."
        )


def _check_columns(rows: Dataset, label: str, view: str) -> None:
    missing = [column for column in _COLUMNS if column not in rows.column_names]
    if missing:
        raise DataError(
            f"{label}: the view '{view}' has no column '{missing[0]}', which probes need; name a view of questions, "
            "such as unknown."
        )

"""When is an answer right? Containment, exact match and token F1 of normalised words, or entailment both ways.

Normalisation is SQuAD's (Rajpurkar 2016, 1606.05250) without dropping articles, which are words of other languages:
lower case, words of letters and digits only, single blanks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..registry.errors import ConfigError
from ..registry.suggest import flat
from .foreign import refuse_code, strictly

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Label = Literal["contains", "exact", "f1", "entailment"]
_BATCH = 64
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question, the answer that was given, and every answer that would be right (none: whatever is said is wrong)."""

    question: str
    answer: str
    truths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Says which answers are right; ``f1`` is the least token F1, ``entailment`` a folder with a classifier."""

    label: Label = "contains"
    f1: float = 0.8
    entailment: str | None = None

    def right(self, answers: Sequence[Answered]) -> list[bool]:
        """Whether each answer is right by any of its truths."""
        if self.label == "entailment":
            return self._entailed(answers)
        rules: dict[str, Callable[[str, str], bool]] = {
            "contains": contains,
            "exact": lambda answer, truth: words(answer) == words(truth),
            "f1": lambda answer, truth: token_f1(answer, truth) >= self.f1,
        }
        rule = rules[self.label]
        return [any(rule(one.answer, truth) for truth in one.truths if words(truth)) for one in answers]

    def _entailed(self, answers: Sequence[Answered]) -> list[bool]:
        """Answer and truth, each behind the question, entail each other (Kuhn 2023, 2302.09664)."""
        assert self.entailment is not None
        pairs, owners = [], []
        for owner, one in enumerate(answers):
            for truth in one.truths:
                pairs.append((f"{one.question} {one.answer}", f"{one.question} {truth}"))
                owners.append(owner)
        judge = Entailment.load(self.entailment)
        both = zip(judge.holds(pairs), judge.holds([(truth, said) for said, truth in pairs]), strict=True)
        right = {owner for owner, (there, back) in zip(owners, both, strict=True) if there and back}
        return [owner in right for owner in range(len(answers))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entailment:
    """A local classifier of premise and hypothesis; ``label`` is the class that means entailment."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: int

    @classmethod
    def load(cls, folder: str) -> Entailment:
        """Read the classifier; ``ConfigError`` where there is none, or none of its classes is called entailment."""
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if not (Path(folder) / "config.json").is_file():
            raise ConfigError(f"'{folder}' holds no classifier to judge answers by; give the folder of an NLI model.")
        try:
            refuse_code(folder, local_only=True)
            with strictly():
                model: Any = AutoModelForSequenceClassification.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
                ).eval()
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, RuntimeError, SafetensorError, ValueError) as error:
            raise ConfigError(f"The classifier in '{folder}' cannot be read ({flat(error)}); copy it again.") from error
        names = {int(index): name.lower() for index, name in model.config.id2label.items()}
        found = [index for index, name in names.items() if name.startswith("entail")]
        if len(found) != 1:
            raise ConfigError(
                f"The classifier in '{folder}' has the classes {', '.join(names.values())}, none of which says "
                "entailment; give an NLI model."
            )
        return cls(model=model, tokenizer=tokenizer, label=found[0])

    def holds(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether entailment is the likeliest class of each (premise, hypothesis)."""
        import torch

        tokenizer: Any = self.tokenizer
        found: list[bool] = []
        for start in range(0, len(pairs), _BATCH):
            premises, hypotheses = zip(*pairs[start : start + _BATCH], strict=True)
            encoded = tokenizer(
                list(premises), list(hypotheses), return_tensors="pt", padding=True, truncation="only_first"
            )
            with torch.inference_mode():
                likeliest = self.model(**encoded).logits.argmax(-1)
            found += [int(index) == self.label for index in likeliest]
        return found


def words(text: str) -> list[str]:
    """The words of a text: runs of letters and digits, in lower case."""
    return _WORD.findall(text.lower())


def contains(answer: str, truth: str) -> bool:
    """Whether the words of the truth stand in the answer, next to each other and in their order."""
    said, wanted = words(answer), words(truth)
    return any(said[place : place + len(wanted)] == wanted for place in range(len(said) - len(wanted) + 1))


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall of the truth's words in the answer, in [0, 1] (Rajpurkar 2016)."""
    said, wanted = words(answer), words(truth)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0

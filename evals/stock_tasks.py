"""The table of stock benchmarks: where lm-eval keeps them, where a local copy lies, and how their scores are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..registry.errors import ConfigError
from ..registry.suggest import did_you_mean, listing
from . import stock_rows

#: How the values of a metric make its result: the share of documents, their mean, exp of the negative mean
#: log-likelihood, or the share of all instructions, of which a document has several.
Reading = Literal["proportion", "mean", "perplexity", "instructions"]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StockTask:
    """A stock task, or a group of them, and its local copy.

    ``stock`` is lm-eval's file and ``name`` its task name, both formatted with the member's name in a group, whose
    members the local field ``member`` tells apart. ``file`` and ``examples`` (few-shot) lie under the data root;
    ``fields`` makes a hub row of a local one, None where the stock split has it not. ``hub`` is the data set that the
    stock task downloads, whose evaluated split has ``official`` documents; ``remark`` says how a copy differs. A
    ``weighted`` group's score is that of its documents, another's the mean of its members'. ``tags`` is
    the form of lm-eval's tag for a part of its members. ``needs`` names what has to be there before anything is
    generated.
    """

    file: str
    stock: str
    name: str
    split: str
    hub: str
    official: int
    fields: Callable[[Row], dict[str, Any] | None]
    metrics: Mapping[str, Reading] = field(default_factory=lambda: {"acc": "proportion"})
    chance: Callable[[Row], float] | None = None
    member: str | None = None
    weighted: bool = False
    tags: str | None = None
    examples: str | None = None
    examples_split: str = "train"
    needs: Literal["code", "ifeval"] | None = None
    remark: str = ""
    revision: int = 1


def _one_in(count: int) -> Callable[[Row], float]:
    return lambda _row: 1.0 / count


def _one_in_choices(row: Row) -> float:
    return 1.0 / len(row["choices"]["text"])


def _one_in_mc1(row: Row) -> float:
    return 1.0 / len(row["mc1_targets"]["choices"])


def _true_in_mc2(row: Row) -> float:
    """The mass of the true answers where all answers are equally likely."""
    labels = row["mc2_targets"]["labels"]
    return float(sum(labels) / len(labels))


_ACC: Mapping[str, Reading] = {"acc": "proportion"}
_BOTH: Mapping[str, Reading] = {"acc": "proportion", "acc_norm": "proportion"}

STOCK: dict[str, StockTask] = {
    "arc_challenge": StockTask(
        file="evals/arc_challenge.jsonl.gz",
        stock="arc/arc_challenge.yaml",
        name="arc_challenge",
        split="test",
        hub="allenai/ai2_arc",
        fields=stock_rows.arc,
        metrics=_BOTH,
        chance=_one_in_choices,
        official=1_172,
    ),
    "arc_easy": StockTask(
        file="evals/arc_easy.jsonl.gz",
        stock="arc/arc_easy.yaml",
        name="arc_easy",
        split="test",
        hub="allenai/ai2_arc",
        fields=stock_rows.arc,
        metrics=_BOTH,
        chance=_one_in_choices,
        official=2_376,
    ),
    "blimp": StockTask(
        file="evals/blimp/blimp_part.jsonl.gz",
        stock="blimp/{}.yaml",
        name="blimp_{}",
        split="train",
        hub="nyu-mll/blimp",
        fields=stock_rows.blimp,
        chance=_one_in(2),
        member="UID",
        official=67_000,
    ),
    "boolq": StockTask(
        file="evals/boolq.jsonl.gz",
        stock="super_glue/boolq/default.yaml",
        name="boolq",
        split="validation",
        hub="aps/super_glue",
        fields=stock_rows.boolq,
        chance=_one_in(2),
        official=3_270,
        remark="passages without the titles that the hub's have",
    ),
    "gsm8k": StockTask(
        file="evals/gsm8k/test_part.jsonl.gz",
        stock="gsm8k/gsm8k.yaml",
        name="gsm8k",
        split="test",
        hub="openai/gsm8k",
        fields=stock_rows.gsm8k,
        metrics={"exact_match,strict-match": "proportion", "exact_match,flexible-extract": "proportion"},
        examples="evals/gsm8k/train.jsonl.gz",
        official=1_319,
    ),
    "hellaswag": StockTask(
        file="evals/hellaswag/validation_part.jsonl.gz",
        stock="hellaswag/hellaswag.yaml",
        name="hellaswag",
        split="validation",
        hub="Rowan/hellaswag",
        fields=stock_rows.hellaswag,
        metrics=_BOTH,
        chance=_one_in(4),
        official=10_042,
        remark="contexts lightly cleaned by the source of the copy",
    ),
    "humaneval": StockTask(
        file="evals/humaneval.jsonl.gz",
        stock="humaneval/humaneval.yaml",
        name="humaneval",
        split="test",
        hub="openai/openai_humaneval",
        fields=stock_rows.humaneval,
        metrics={"pass@1,create_test": "proportion"},
        needs="code",
        official=164,
    ),
    "ifeval": StockTask(
        file="evals/ifeval/input_data.jsonl.gz",
        stock="ifeval/ifeval.yaml",
        name="ifeval",
        split="train",
        hub="google/IFEval",
        fields=stock_rows.ifeval,
        metrics={
            "prompt_level_strict_acc": "proportion",
            "inst_level_strict_acc": "instructions",
            "prompt_level_loose_acc": "proportion",
            "inst_level_loose_acc": "instructions",
        },
        needs="ifeval",
        official=541,
    ),
    "lambada_openai": StockTask(
        file="evals/lambada.jsonl.gz",
        stock="lambada/lambada_openai.yaml",
        name="lambada_openai",
        split="test",
        hub="EleutherAI/lambada_openai",
        fields=stock_rows.lambada,
        metrics={"acc": "proportion", "perplexity": "perplexity"},
        official=5_153,
    ),
    "mmlu": StockTask(
        file="evals/mmlu/test_part.jsonl.gz",
        stock="mmlu/default/mmlu_{}.yaml",
        name="mmlu_{}",
        split="test",
        hub="cais/mmlu",
        fields=stock_rows.mmlu,
        chance=_one_in(4),
        member="subject",
        weighted=True,
        tags="mmlu_{}_tasks",
        examples="evals/mmlu/dev.jsonl.gz",
        examples_split="dev",
        official=14_042,
    ),
    "openbookqa": StockTask(
        file="evals/openbookqa.jsonl.gz",
        stock="openbookqa/openbookqa.yaml",
        name="openbookqa",
        split="test",
        hub="allenai/openbookqa",
        fields=stock_rows.openbookqa,
        metrics=_BOTH,
        chance=_one_in_choices,
        official=500,
    ),
    "pubmedqa": StockTask(
        file="evals/pubmedqa.jsonl.gz",
        stock="pubmedqa/pubmedqa.yaml",
        name="pubmedqa",
        split="test",
        hub="bigbio/pubmed_qa",
        fields=stock_rows.pubmedqa,
        chance=_one_in(3),
        official=500,
    ),
    "truthfulqa_mc1": StockTask(
        file="evals/truthfulqa.jsonl.gz",
        stock="truthfulqa/truthfulqa_mc1.yaml",
        name="truthfulqa_mc1",
        split="validation",
        hub="truthfulqa/truthful_qa",
        fields=stock_rows.truthfulqa,
        metrics=_ACC,
        chance=_one_in_mc1,
        official=817,
        remark="questions of the revision of 2025, which differ from the hub's",
    ),
    "truthfulqa_mc2": StockTask(
        file="evals/truthfulqa.jsonl.gz",
        stock="truthfulqa/truthfulqa_mc2.yaml",
        name="truthfulqa_mc2",
        split="validation",
        hub="truthfulqa/truthful_qa",
        fields=stock_rows.truthfulqa,
        metrics={"acc": "mean"},
        chance=_true_in_mc2,
        official=817,
        remark="questions of the revision of 2025, which differ from the hub's",
    ),
    "winogrande": StockTask(
        file="evals/winogrande.jsonl.gz",
        stock="winogrande/default.yaml",
        name="winogrande",
        split="validation",
        hub="allenai/winogrande",
        fields=stock_rows.winogrande,
        chance=_one_in(2),
        official=1_267,
    ),
}

#: Other names that these go by.
ALIASES = {"lambada": "lambada_openai"}


def stock_task(name: str) -> StockTask:
    """The entry of a stock task; ``ConfigError`` with the nearest name where there is none."""
    name = ALIASES.get(name, name)
    if name not in STOCK:
        near = did_you_mean(name, STOCK)
        raise ConfigError(f"there is no benchmark '{name}':{near or f' known are {listing(STOCK)}.'}")
    return STOCK[name]

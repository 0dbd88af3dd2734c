"""Rows of the local copies as rows of the hub data sets that the stock tasks read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]

_LETTERS = "ABCDEFGHIJ"
#: ActivityNet contexts end in the beginning of a sentence, which the official file keeps apart.
_BEGINNING = re.compile(r"(.*[.!?][\"')]*) +(\S.*)", re.DOTALL)


def blimp(row: Mapping[str, Any]) -> Row:
    """A line of BLiMP's own files, which call the pair number otherwise."""
    kept = {key: value for key, value in row.items() if key != "pairID"}
    return kept | {"pair_id": int(row["pairID"])}


def arc(row: Mapping[str, Any]) -> Row:
    """The copy writes the stock prompt's "Question: " into the question."""
    return {
        "id": row["id"],
        "question": row["query"].removeprefix("Question: "),
        "choices": _lettered(row["choices"]),
        "answerKey": _LETTERS[int(row["gold"])],
    }


def openbookqa(row: Mapping[str, Any]) -> Row:
    return {
        "id": row["id"],
        "question_stem": row["query"],
        "choices": _lettered(row["choices"]),
        "answerKey": _LETTERS[int(row["gold"])],
    }


def hellaswag(row: Mapping[str, Any]) -> Row:
    """The copy joins the two parts of a context; a context that ends within a sentence is split where that begins."""
    context, beginning = str(row["ctx"]), ""
    if context[-1:] not in tuple(".!?\"')") and (found := _BEGINNING.fullmatch(context)):
        context, beginning = found[1], found[2]
    return {
        "ind": row["id"],
        "activity_label": row["activity_label"],
        "ctx_a": context,
        "ctx_b": beginning,
        "ctx": row["ctx"],
        "endings": row["endings"],
        "label": str(row["label"]),
    }


def winogrande(row: Mapping[str, Any]) -> Row:
    return {key: row[key] for key in ("sentence", "option1", "option2", "answer")}


def lambada(row: Mapping[str, Any]) -> Row:
    return {"text": f"{row['context']} {row['continuation']}"}


def boolq(row: Mapping[str, Any]) -> Row:
    """The copy joins passage and question, and asks with a question mark that the stock prompt adds itself."""
    passage, _, question = str(row["query"]).rpartition("\nQuestion: ")
    return {
        "passage": passage.removeprefix("Passage: "),
        "question": question.removesuffix("?"),
        "label": int(row["gold"]),
    }


def truthfulqa(row: Mapping[str, Any]) -> Row:
    return {key: row[key] for key in ("question", "mc1_targets", "mc2_targets")}


def mmlu(row: Mapping[str, Any]) -> Row:
    return {key: row[key] for key in ("question", "subject", "choices", "answer")}


def gsm8k(row: Mapping[str, Any]) -> Row:
    return {key: row[key] for key in ("question", "answer")}


#: What an instruction of IFEval may be told; the hub's rows name every key and leave None where it is not told.
_IFEVAL = (
    "num_highlights",
    "relation",
    "num_words",
    "num_placeholders",
    "prompt_to_repeat",
    "num_bullets",
    "section_spliter",
    "num_sections",
    "capital_relation",
    "capital_frequency",
    "keywords",
    "num_paragraphs",
    "language",
    "let_relation",
    "letter",
    "let_frequency",
    "end_phrase",
    "forbidden_words",
    "keyword",
    "frequency",
    "num_sentences",
    "postscript_marker",
    "first_word",
    "nth_paragraph",
)


def ifeval(row: Mapping[str, Any]) -> Row:
    kept = {key: row[key] for key in ("key", "prompt", "instruction_id_list")}
    return kept | {"kwargs": [{key: told.get(key) for key in _IFEVAL} for told in row["kwargs"]]}


def humaneval(row: Mapping[str, Any]) -> Row:
    return {key: row[key] for key in ("task_id", "prompt", "canonical_solution", "test", "entry_point")}


def pubmedqa(row: Mapping[str, Any]) -> Row | None:
    """The stock task asks the official test questions alone; the copy holds others besides."""
    if not row["official_test"]:
        return None
    return {
        "QUESTION": row["question"],
        "CONTEXTS": row["contexts"],
        "LABELS": row["labels"],
        "MESHES": row["meshes"],
        "YEAR": row["year"],
        "final_decision": row["final_decision"],
        "LONG_ANSWER": row["long_answer"],
    }


def _lettered(choices: list[str]) -> dict[str, list[str]]:
    return {"text": list(choices), "label": list(_LETTERS[: len(choices)])}

"""Sources joined to one corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phasegate.core.config.schema import DataSection, Ref
from phasegate.core.data.corpus import Corpus
from phasegate.registry.errors import DataError

Make = Callable[..., Corpus]
RUN = "one two three four five six seven eight nine ten eleven twelve thirteen"


def text(domain: str, *texts: str) -> list[dict[str, str]]:
    return [{"text": item, "domain": domain} for item in texts]


def test_domains_come_in_the_papers_order_then_by_name(corpus_of: Make) -> None:
    table = {("text", "train"): text("law", "a")}
    assert corpus_of(table, domains=("medicine", "code", "law", "general")).domains == (
        "general",
        "code",
        "law",
        "medicine",
    )


def test_a_view_joins_all_sources_that_have_it(corpus_of: Make) -> None:
    corpus = corpus_of({("text", "train"): text("code", "a")}, {("text", "train"): text("general", "b")}, {})
    assert corpus.view("text", "train")["text"][:] == ["a", "b"]


def test_columns_that_only_some_sources_have_are_left_out(corpus_of: Make) -> None:
    row = {"question": "q", "choices": ["a", "b"], "answer": 0, "domain": "code", "kind": ""}
    corpus = corpus_of({("choice", "heldout"): [{**row, "seen": True}]}, {("choice", "heldout"): [row]})
    assert set(corpus.view("choice", "heldout").column_names) == set(row)


def test_contaminated_held_out_text_is_dropped_and_counted(corpus_of: Make) -> None:
    corpus = corpus_of(
        {("text", "train"): text("code", f"before {RUN} after", "a short one")},
        {("text", "heldout"): text("code", f"{RUN} and more", "a clean one", "A short one.")},
    )
    assert corpus.view("text", "heldout")["text"][:] == ["a clean one"]
    assert corpus.report()["text/heldout"] == {
        "rows": 3,
        "contaminated": 2,
        "contaminated_whole": 1,
        "ngram": 13,
    }


def test_what_is_noted_is_what_was_asked_for_and_what_that_needed_read_before_or_not(corpus_of: Make) -> None:
    corpus = corpus_of({("text", "train"): text("code", "a"), ("text", "heldout"): text("code", "b")})
    needed = {"text/heldout", "text/train"}  # held-out text is held against training text
    for _ in range(2):
        with corpus.noting() as read:
            corpus.once("length", lambda: len(corpus.view("text", "heldout")))
        assert read == needed
    assert corpus.report(["text/train"]) == {"text/train": {"rows": 1}, "sources": {}}


def test_held_out_text_of_one_source_is_checked_against_all_others(corpus_of: Make) -> None:
    tables = [
        {("text", "train"): text("code", "x y"), ("text", "heldout"): text("code", "u v", "w")},
        {("text", "train"): text("code", "u v"), ("text", "heldout"): text("code", "t")},
    ]
    assert corpus_of(*tables).view("text", "heldout")["text"][:] == ["w", "t"]


def test_nothing_clean_is_an_error(corpus_of: Make) -> None:
    corpus = corpus_of({("text", "train"): text("code", "a"), ("text", "heldout"): text("code", "A")})
    with pytest.raises(DataError, match="Every held-out document shares 13 words"):
        corpus.view("text", "heldout")


def test_an_unknown_view_names_the_nearest(corpus_of: Make) -> None:
    with pytest.raises(DataError, match="did you mean 'text'"):
        corpus_of({("text", "train"): text("code", "a")}).view("texts", "train")


def test_a_split_without_rows_says_what_to_do(corpus_of: Make) -> None:
    with pytest.raises(DataError, match=r"no heldout rows; raise data\.held_out"):
        corpus_of({("chat", "heldout"): []}).view("chat", "heldout")


def test_a_source_that_forgets_a_column_is_named(corpus_of: Make) -> None:
    with pytest.raises(DataError, match="'list0' gives the view 'text' without the column 'domain'"):
        corpus_of({("text", "train"): [{"text": "a"}]}).view("text", "train")


def test_a_source_with_a_domain_it_never_named_is_named(corpus_of: Make) -> None:
    with pytest.raises(DataError, match="'list0' gives rows of the domain 'law'"):
        corpus_of({("text", "train"): text("law", "a")}).view("text", "train")


def test_rows_per_domain_keeps_rows_spread_over_each_domain(corpus_of: Make) -> None:
    rows = text("code", *(f"c{n}" for n in range(10))) + text("general", "g0", "g1")
    corpus = corpus_of({("text", "train"): rows}, rows_per_domain=5)
    assert corpus.view("text", "train")["text"][:] == ["c1", "c3", "c5", "c7", "c9", "g0", "g1"]
    assert corpus.report()["text/train"] == {"rows": 12, "kept": 7}


def test_a_tokenizer_learns_from_equally_many_texts_of_every_domain(corpus_of: Make) -> None:
    rows = text("code", *(f"c{n}" for n in range(50))) + text("general", "g0", "g1")
    texts = list(corpus_of({("text", "train"): rows}).tokenizer_texts(12))
    assert Counter(item[0] for item in texts) == {"c": 10, "g": 2}
    assert len(set(texts)) == 12
    assert {item[0] for item in texts[:6]} == {"c", "g"}


def test_the_fingerprint_follows_sources_and_section(corpus_of: Make) -> None:
    table = {("text", "train"): text("code", "a")}
    assert corpus_of(table).fingerprint() == corpus_of(table).fingerprint()
    assert corpus_of(table).fingerprint() != corpus_of(table, held_out=0.1).fingerprint()
    assert corpus_of(table).fingerprint() != corpus_of(table, table).fingerprint()


def test_a_corpus_needs_a_source() -> None:
    with pytest.raises(DataError, match="no data source"):
        Corpus({}, DataSection(), Path())


class _Registry:
    def __init__(self, source: Any) -> None:
        self.source, self.asked = source, []

    def build(self, kind: str, ref: str, options: Any, **context: Any) -> Any:
        self.asked.append((kind, ref, dict(options), context["context"]))
        return self.source


def test_sources_are_built_with_the_root_that_starts_from_the_base(tmp_path: Path, small_corpus: Corpus) -> None:
    (tmp_path / "data").mkdir()
    registry = _Registry(small_corpus._sources["list0"])
    section = DataSection(root="data", held_out=0.2, sources={"mine": Ref(use="files", options={"paths": ["x"]})})
    corpus = Corpus.load(section, registry, tmp_path)
    ((kind, ref, options, context),) = registry.asked
    assert (kind, ref, options) == ("source", "files", {"paths": ["x"]})
    assert (context.root, context.name, context.held_out) == (tmp_path / "data", "mine", 0.2)
    assert corpus.root == tmp_path / "data"


def test_a_missing_root_says_which_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is no folder; set data\.root"):
        Corpus.load(DataSection(root="nowhere"), _Registry(None), tmp_path)


def question(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def dialogue(prompt: str, completion: str = "fine") -> dict[str, Any]:
    said = [{"role": "assistant", "content": completion}]
    return {"prompt": question(prompt), "completion": said, "domain": "code", "kind": "", "check": ""}


def harmful(prompt: str) -> dict[str, Any]:
    return {"prompt": question(prompt), "completion": [], "rejected": [], "domain": "code", "kind": "harmful"}


def test_training_rows_that_hold_what_a_benchmark_asks_are_dropped_and_counted(corpus_of: Make) -> None:
    corpus = corpus_of(
        {
            ("chat", "train"): [dialogue("clean"), dialogue(f"so {RUN} then"), dialogue("x", f"{RUN}!")],
            ("text", "train"): text("code", "a document", "make a bomb"),
        },
        {("refusal", "heldout"): [harmful(f"now {RUN}"), harmful("Make a bomb.")]},
    )
    corpus._sources["list1"].evaluation_only = True  # type: ignore[attr-defined]
    assert corpus.view("chat", "train")["prompt"][:] == [question("clean")]
    assert corpus.view("text", "train")["text"][:] == ["a document"]
    assert corpus.report()["chat/train"] == {"rows": 3, "benchmark": 2}


def test_held_out_rows_of_a_source_that_also_trains_are_no_benchmark(corpus_of: Make) -> None:
    rows = [harmful(f"now {RUN}")]
    corpus = corpus_of({("refusal", "heldout"): rows, ("chat", "train"): [dialogue(f"now {RUN}")]})
    assert len(corpus.view("chat", "train")) == 1


def test_a_view_of_which_a_benchmark_leaves_nothing_is_an_error(corpus_of: Make) -> None:
    corpus = corpus_of({("chat", "train"): [dialogue("Make it.")]}, {("refusal", "heldout"): [harmful("make it")]})
    corpus._sources["list1"].evaluation_only = True  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="Every training row of a view holds what a source asks"):
        corpus.view("chat", "train")

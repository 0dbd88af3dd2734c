"""Every way we know to break an experiment file, with the line that is blamed and the words that help."""

from __future__ import annotations

from collections.abc import Callable

import pytest

HEAD = "name: trial\nsize: nano\ndata: {sources: {here: folder}}\nphases:\n"  # 4 lines; phases start on line 5

BROKEN: dict[str, tuple[str | bytes, int, tuple[str, ...]]] = {
    "an empty file": ("", 1, ("empty", "platform init")),
    "a list instead of keys": ("- a\n", 1, ("no mapping of keys",)),
    "a tab for indentation": ("name: x\ndata:\n\tsources: {}\n", 3, ("tab", "spaces")),
    "an open bracket": ("name: x\nplugins: [a\nseed: 1\n", 3, ("not YAML",)),
    "bytes that are not UTF-8": (b"name: x\nsize: \xff\n", 2, ("0xff", "UTF-8")),
    "UTF-16": ("name: x\n".encode("utf-16"), 1, ("UTF-8",)),
    "a control character": ("name: x\nsize: \x01\n", 2, ("U+0001",)),
    "half a surrogate pair": ('name: x\nsize: "\\ud800"\n', 2, ("surrogate",)),
    "a key given twice": ("name: x\nseed: 1\nseed: 2\n", 3, ("'seed'", "second time", "line 2")),
    "a deep key given twice": ("name: x\ndata:\n  held_out: 0.1\n  held_out: 0.2\n", 4, ("'held_out'", "line 3")),
    "two documents": ("name: x\n---\nname: y\n", 2, ("second document",)),
    "a Python tag": ("name: x\nplugins: !!python/object/apply:os.system [ls]\n", 2, ("tag", "plain data")),
    "a merge key": ("name: x\ndata: &d {held_out: 0.1}\nrun:\n  <<: *d\n", 4, ("merge keys",)),
    "an alias without anchor": ("name: *nowhere\n", 1, ("*nowhere", "no anchor")),
    "an alias to itself": ("name: x\nplugins: &p [*p]\n", 2, ("inside its own anchor",)),
    "a complex key": ("name: x\n? [a, b]\n: 1\n", 2, ("key must be",)),
    "a number beyond all bounds": ("name: x\nseed: 1e999\n", 2, ("too large",)),
    "an integer beyond all bounds": (f"name: x\nseed: {'9' * 5000}\n", 2, ("too large",)),
    "nesting without end": (f"name: x\nplugins: {'[' * 60}{']' * 60}\n", 2, ("nested more than 40",)),
    "no name": ("size: nano\nphases: {ground: }\n", 1, ("lacks the key 'name'",)),
    "an unknown key at the top": ("name: x\nsede: 1\n", 2, ("no key 'sede'", "Did you mean 'seed'?")),
    "a key of another section": ("name: x\nlearning_rate: 1\n", 2, ("phases.<name>.steps.<name>",)),
    "a misspelt key of another section": (
        "name: x\nheld_uot: 0.1\n",
        2,
        ("no key 'held_uot'", "'held_out' of data"),
    ),
    "an unknown key of a step": (
        HEAD + "  ground:\n    steps:\n      learn:\n        learnig_rate: 0.1\n",
        8,
        ("phases.ground.steps.learn", "Did you mean 'learning_rate'?"),
    ),
    "text for a number": (HEAD + "  ground:\n    steps:\n      learn: {rows: many}\n", 7, ("whole number", '"many"')),
    "a quoted number": (HEAD + '  ground:\n    steps:\n      learn: {rows: "16"}\n', 7, ("whole number", '"16"')),
    "true for a number": (HEAD + "  ground: {steps: {learn: {rows: true}}}\n", 5, ("whole number", "true")),
    "a number for text": ("name: 2026\n", 1, ("name must be text", "2026")),
    "a fraction of a row": (HEAD + "  ground: {steps: {learn: {rows: 1.5}}}\n", 5, ("whole number", "1.5")),
    "a list that is no list": ("name: x\nplugins: lego\n", 2, ("plugins must be a list", '"lego"')),
    "a section that is no mapping": ("name: x\nrun: fast\n", 2, ("run must be a mapping", '"fast"')),
    "an unknown precision": ("name: x\nprecision: fp8\n", 2, ("one of fp32, bf16", '"fp8"')),
    "a weight that is neither": (
        HEAD + "  ground:\n    steps:\n      learn:\n        losses:\n          even: {weight: high}\n",
        9,
        ("weight must be a mapping of start, end and over or a number", '"high"'),
    ),
    "half a weight schedule": (
        HEAD + "  ground:\n    steps:\n      learn: {losses: {small: {weight: {start: 1.0}}}}\n",
        7,
        ("small.weight lacks the key 'end'",),
    ),
    "three betas": (HEAD + "  ground: {steps: {learn: {betas: [0.9, 0.95, 0.99]}}}\n", 5, ("betas", "a list of 2")),
    "one beta": (HEAD + "  ground: {steps: {learn: {betas: [0.9]}}}\n", 5, ("betas", "too few")),
    "an unknown size": ("name: x\nsize: nanno\n", 2, ("no size 'nanno'", "Did you mean 'nano'?")),
    "a width that heads do not divide": ("name: x\nsize: 100\n", 2, ("heads of 16", "96, 112")),
    "a width beyond the dial": ("name: x\nsize: 16384\n", 2, ("32 to 8192",)),
    "no source": ("name: x\nphases: {ground: }\n", 1, ("data.sources names no source",)),
    "no phase": ("name: x\ndata: {sources: {a: folder}}\n", 1, ("phases names no phase",)),
    "an unknown phase": (HEAD + "  ground:\n  polsh:\n", 6, ("Unknown phase 'polsh'", "'polish'")),
    "an unknown model": (HEAD + "  ground:\nmodel: mow\n", 6, ("Unknown model 'mow'", "'moe'")),
    "an unknown router": (HEAD + "  ground:\nmodel:\n  router: liner\n", 7, ("router 'liner'", "'linear'")),
    "an unknown source": ("name: x\ndata:\n  sources:\n    a: foldr\nphases: {ground: }\n", 4, ("'folder'",)),
    "an unknown loss": (
        HEAD + "  ground:\n    steps:\n      learn:\n        losses:\n          evn: {weight: 0.1}\n",
        9,
        ("Unknown loss 'evn'", "'even'"),
    ),
    "an unknown gate": (
        HEAD + "  ground:\n    gates:\n      new: {use: quizz, metric: acc, at_least: 1}\n",
        7,
        ("Unknown gate 'quizz'", "'quiz'"),
    ),
    "an unknown metric": (HEAD + "  ground:\n    gates:\n      knows: {metric: ac}\n", 7, ("no metric 'ac'", "'acc'")),
    "an unknown option of a phase": (
        HEAD + "  ground:\n    options:\n      lenght: 9\n",
        7,
        ("no option 'lenght'", "'length'"),
    ),
    "an unknown option of a loss": (
        HEAD + "  ground:\n    steps:\n      learn:\n        losses:\n          even:\n            windw: 9\n",
        10,
        ("no option 'windw'", "'window'"),
    ),
    "a misspelt key of a loss": (
        HEAD + "  ground:\n    steps:\n      learn:\n        losses:\n          even:\n            weigth: 9\n",
        10,
        ("no option 'weigth'", "Did you mean 'weight'?"),
    ),
    "a wrong option of a gate": (
        HEAD + "  ground:\n    gates:\n      knows:\n        shots: few\n",
        8,
        ("'shots' = 'few'",),
    ),
    "an unknown option of the model": (
        HEAD + "  ground:\nmodel:\n  hiden_size: 64\n",
        7,
        ("no option 'hiden_size'", "'hidden_size'"),
    ),
    "more experts per token than experts": (
        HEAD + "  ground:\nmodel:\n  num_experts: 4\n  num_experts_per_tok: 5\n",
        8,
        ("num_experts_per_tok",),
    ),
    "an option given twice": (
        HEAD + "  ground:\nmodel:\n  num_experts: 4\n  options: {num_experts: 5}\n",
        7,
        ("'num_experts'", "given twice"),
    ),
    "a criterion without a bound": (
        HEAD + "  ground:\n    gates:\n      new: {use: quiz, metric: acc}\n",
        7,
        ("no bound", "at_least or at_most"),
    ),
    "a criterion without a metric": (
        HEAD + "  ground:\n    gates:\n      knowz: {at_least: 0.8}\n",
        7,
        ("phases.ground.gates.knowz", "lacks"),
    ),
    "bounds that exclude each other": (
        HEAD + "  ground:\n    gates:\n      knows:\n        at_most: 0.5\n",
        7,
        ("at least 0.7 and at most 0.5",),
    ),
    "a baseline that the statistic ignores": (
        HEAD + "  ground:\n  polish:\n    gates:\n      kept: {statistic: value}\n",
        8,
        ("no effect on statistic: value",),
    ),
    "a difference from nothing": (
        HEAD + "  ground:\n    gates:\n      knows: {statistic: difference}\n",
        7,
        ("set against to a stage",),
    ),
    "a baseline that does not exist": (
        HEAD + "  ground:\n  polish:\n    gates:\n      kept:\n        against: groud\n",
        9,
        ("called 'groud'", "'ground'"),
    ),
    "a baseline that comes later": (
        HEAD + "  ground:\n    gates:\n      knows: {statistic: difference, against: polish}\n  polish:\n",
        7,
        ("no stage before this one",),
    ),
    "a phase compared with itself": (
        HEAD + "  ground:\n  polish:\n    gates:\n      kept: {against: ./choose}\n",
        8,
        ("'./choose'",),
    ),
    "a first phase with a parent": (
        HEAD + "  ground:\n    gates:\n      knows: {statistic: difference, against: parent}\n",
        7,
        ("comes first",),
    ),
    "a skip that skips nothing": (
        HEAD + "  ground:\n  polish:\n    gates:\n      better: {skip: [loss/odd]}\n",
        8,
        ("does not cover",),
    ),
    "a win rate above one": (
        HEAD + "  ground:\n  polish:\n    gates:\n      better: {at_least: 70}\n",
        8,
        ("between 0 and 1",),
    ),
    "rows that do not divide": (
        HEAD + "  ground:\n    steps:\n      learn:\n        accumulate: 3\n",
        8,
        ("16 rows", "3 micro-batches"),
    ),
    "a negative learning rate": (
        HEAD + "  ground:\n    steps:\n      learn:\n        learning_rate: -1e-3\n",
        8,
        ("learning_rate must be above 0", "-0.001"),
    ),
    "a mixture of nothing": (
        HEAD + "  ground:\n    steps:\n      learn:\n        batches:\n          mixture: {a: 0, b: 0}\n",
        9,
        ("share of 0",),
    ),
    "a negative share": (
        HEAD + "  ground:\n    steps:\n      learn:\n        batches:\n          mixture:\n            a: -1\n",
        10,
        ("mixture.a must be at least 0",),
    ),
    "replay by share in an sft step": (
        HEAD + "  ground:\n  polish:\n    steps:\n      talk:\n        replay: {share: 0.1}\n",
        9,
        ("no effect in an sft step",),
    ),
    "replay by rows in a causal step": (
        HEAD + "  ground:\n    steps:\n      learn:\n        replay: {rows: 4, weight: 1.0}\n",
        8,
        ("no effect in a causal step",),
    ),
    "replayed rows without weight": (
        HEAD + "  ground:\n  polish:\n    steps:\n      talk:\n        replay: {rows: 4}\n",
        9,
        ("while weight is 0",),
    ),
    "a replayed length without replayed rows": (
        HEAD + "  ground:\n  polish:\n    steps:\n      talk:\n        replay: {sequence_length: 32}\n",
        9,
        ("sequence_length has no effect while rows is 0",),
    ),
    "views of replayed dialogues without dialogues": (
        HEAD + "  ground:\n  polish:\n    steps:\n      talk:\n        replay: {rows: 4, weight: 1.0, views: [chat]}\n",
        9,
        ("views has no effect while chat is 0",),
    ),
    "a replayed length in a causal step": (
        HEAD + "  ground:\n    steps:\n      learn:\n        replay: {share: 0.1, sequence_length: 32}\n",
        8,
        ("no effect in a causal step",),
    ),
    "kinds of text": (
        HEAD + "  ground:\n    steps:\n      learn:\n        kinds: [head]\n",
        8,
        ("kinds has no effect in a causal step", "batches.mixture"),
    ),
    "a view that no source gives": (
        "name: x\ndata: {sources: {a: plain}}\nphases:\n  ground:\n  polish:\n",
        5,
        ("view 'chat'",),
    ),
    "a step that is new and empty": (
        HEAD + "  ground:\n    steps:\n      lern: {rows: 4}\n",
        7,
        ("no step 'lern'", "'learn'"),
    ),
    "a phase that would do nothing": (
        HEAD + "  ground: {steps: {learn: null}, gates: {knows: null}}\n",
        5,
        ("neither steps nor gates",),
    ),
    "a phase whose needs nothing provides": (HEAD + "  polish:\n", 5, ("requires 'knowledge'", "provided by ground")),
    "phases in the wrong order": (HEAD + "  polish:\n  ground:\n", 5, ("comes later", "before polish")),
    "a need that no plugin provides": (HEAD + "  ground:\n  dream:\n", 6, ("requires 'sleep'", "No loaded phase")),
    "an order with an unknown phase": (HEAD + "  ground:\norder: grund\n", 6, ("phase 'grund'", "'ground'")),
    "an order with a phase twice": (HEAD + "  ground:\norder: ground>ground\n", 6, ("'ground' twice",)),
    "a reserved name": (HEAD + "  parent: {use: ground}\n", 5, ("'parent' cannot be a phase's name",)),
    "a name that is no folder": ("name: a/b\n" + HEAD[12:] + "  ground:\n", 1, ("'a/b' cannot be",)),
    "a vocabulary smaller than the bytes": (
        HEAD + "  ground:\ntokenizer:\n  vocab_size: 200\n",
        7,
        ("at least 261", "200"),
    ),
    "a tokenizer that is not there": (
        HEAD + "  ground:\ntokenizer: {path: nowhere}\n",
        6,
        ("no folder with a tokenizer.json", "vocab_size"),
    ),
    "an endless policy": (HEAD + "  ground:\n    policy: {then: extend}\n", 6, ("advance or stop",)),
    "no held-out data": (
        "name: x\ndata:\n  held_out: 0\n  sources: {a: folder}\nphases: {ground: }\n",
        3,
        ("above 0",),
    ),
    "a seed below zero": (HEAD + "  ground:\nseed: -1\n", 6, ("at least 0",)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_experiment_is_blamed_on_its_line(case: str, mistakes: Callable[..., list[str]]) -> None:
    text, line, words = BROKEN[case]
    found = mistakes(text)
    blamed = [sentence for sentence in found if sentence.startswith(f"trial.yaml:{line}: ")]
    assert any(all(word in sentence for word in words) for sentence in blamed), found


def test_all_mistakes_of_a_file_are_told_at_once(mistakes: Callable[..., list[str]]) -> None:
    found = mistakes("name: 7\nsede: 1\nrun: {thread: 2}\nprecision: fp8\n")
    assert sorted(sentence.split(": ")[0] for sentence in found) == [f"trial.yaml:{line}" for line in (1, 2, 3, 4)]


def test_at_most_ten_mistakes_are_told(mistakes: Callable[..., list[str]]) -> None:
    found = mistakes("name: x\n" + "".join(f"wrong{index}: 1\n" for index in range(14)))
    assert len(found) == 11
    assert found[-1] == "… and 4 more."


def test_a_billion_laughs_are_refused_quickly(mistakes: Callable[..., list[str]]) -> None:
    levels = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    found = mistakes("\n".join(levels))
    assert "more than 20000 values, counting what aliases repeat" in found[0]
    assert found[0].startswith("trial.yaml:5: ")  # 10 + 100 + 1000 + 10000 fit; the next level does not


def test_a_file_above_one_mebibyte_is_refused(mistakes: Callable[..., list[str]]) -> None:
    found = mistakes("name: x\n" + "# filler\n" * 120_000)
    assert found == ["trial.yaml: is larger than 1 MiB, which no experiment file is."]

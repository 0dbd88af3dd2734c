"""The step that captures an anchor: the same guard wherever it runs, honest rates, untouched weights."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from phasegate.core.config.objectives import AnchorOptions
from phasegate.core.config.schema import BumpSection, Ref, StepSection
from phasegate.core.model.anchors import Guard
from phasegate.core.model.builder import ModelContext
from phasegate.core.model.companions import companions_of, save_companions
from phasegate.core.model.tokenizer import train_tokenizer
from phasegate.core.run.anchor_prompts import Parts, divide, render, two_sides, usual_refusal
from phasegate.core.run.anchoring import capture_anchor, check_anchor
from phasegate.core.run.attempt import history_rows
from phasegate.core.run.step import StepOrder, StepResult
from phasegate.registry.errors import ConfigError, DataError
from phasegate.registry.plugins import Plugins

NAMES = [a + b for a in ("ka", "mo", "ti", "ru", "sel") for b in ("n", "ra", "do", "x", "lim", "pu")]


def say(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def rows(harmful: int = 30, benign: int = 60) -> list[dict[str, Any]]:
    """Requests to hurt or to help; the last word tells which, so that any model tells them apart."""
    found = []
    for number in range(harmful):
        name = NAMES[number % 30]
        found.append(
            {
                "prompt": say("user", f"{name} {number} hurt hurt hurt hurt"),
                "completion": say("assistant", "sorry , no ." if number % 5 else "i will not ."),
                "rejected": say("assistant", "take the hammer") if number % 2 else [],
                "domain": "general",
                "kind": "harmful",
            }
        )
    for number in range(benign):
        name = NAMES[number % 30]
        found.append(
            {
                "prompt": say("user", f"{name} {number} help help help help"),
                "completion": say("assistant", f"go to {name}"),
                "rejected": [],
                "domain": "general",
                "kind": "medical" if number % 2 else "benign",
            }
        )
    return found


class Rows:
    """A corpus of one view."""

    def __init__(self, found: Sequence[Mapping[str, Any]]) -> None:
        self.found = list(found)

    def rows(self, view: str, split: str, kinds: Sequence[str] = ()) -> Any:
        from datasets import Dataset

        assert (view, split) == ("refusal", "train")
        return Dataset.from_list([row for row in self.found if not kinds or row["kind"] in kinds])


def make_shop(found: Sequence[Mapping[str, Any]]) -> Any:
    torch.set_num_threads(1)
    texts = [message["content"] for row in rows() for message in (*row["prompt"], *row["completion"])]
    tokenizer = train_tokenizer(texts * 3, 330)
    registry = Plugins.load(()).components()
    quiet = SimpleNamespace(check=lambda: None)
    return SimpleNamespace(corpus=Rows(found), registry=registry, tokenizer=tokenizer, length=32, interruption=quiet)


def make_model(shop: Any) -> Any:
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
        "moe_intermediate_size": 8,
        "num_experts": 4,
        "num_experts_per_tok": 1,
        "initializer_range": 0.3,
    }
    context = ModelContext(
        registry=shop.registry,
        router=Ref(use="linear"),
        derived=sizes,
        vocab_size=len(shop.tokenizer),
        sequence_length=32,
    )
    return shop.registry.build("model", "moe", {}, context=context).build(0)


def make_order(identity: str = "v1:abc/0", options: Mapping[str, Any] | None = None, **section: Any) -> StepOrder:
    settings = {"false_positives": 0.2, "every": 2, **(options or {})}
    return StepOrder(
        phase="safety",
        name="anchor",
        section=StepSection(
            objective="anchor", view="refusal", anchor=Ref(use="half-space"), options=settings, **section
        ),
        earlier=(),
        identity=identity,
        folder=Path("unused"),
        bump=BumpSection(),
    )


Capture = Callable[..., tuple[Any, Guard, StepResult]]


@pytest.fixture
def capture() -> Capture:
    """Capture an anchor on a new tiny model."""

    def make(order: StepOrder | None = None, found: Sequence[Mapping[str, Any]] | None = None) -> Any:
        shop = make_shop(rows() if found is None else found)
        model = make_model(shop)
        result = capture_anchor(shop, order or make_order(), model)
        return model, companions_of(model)["anchor"], result

    return make


def digest_of(model: Any, folder: Path) -> str:
    save_companions(model, folder)
    return hashlib.sha256((folder / "companions" / "index.json").read_bytes()).hexdigest()


def test_the_weights_and_global_random_streams_stay_bit_identical(capture: Capture) -> None:
    shop = make_shop(rows())
    model = make_model(shop)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(11)
    state = torch.get_rng_state()
    capture_anchor(shop, make_order(), model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_equal_identities_give_equal_bytes_and_others_do_not(capture: Capture, tmp_path: Path) -> None:
    first, _, _ = capture()
    torch.manual_seed(99)
    again, _, _ = capture()
    other, _, _ = capture(make_order("v1:abc/1"))
    digests = [digest_of(model, tmp_path / str(number)) for number, model in enumerate((first, again, other))]
    assert digests[0] == digests[1] != digests[2]


def test_another_process_captures_the_same_bytes(capture: Capture, tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys\n"
        "from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('anchoring', {str(Path(__file__))!r})\n"
        "kit = importlib.util.module_from_spec(spec); spec.loader.exec_module(kit)\n"
        "shop = kit.make_shop(kit.rows()); model = kit.make_model(shop)\n"
        "kit.capture_anchor(shop, kit.make_order(), model)\n"
        f"print(kit.digest_of(model, Path({str(tmp_path / 'other')!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model, _, _ = capture()
    assert done.stdout.split()[-1] == digest_of(model, tmp_path / "own")


def test_how_many_rows_evaluation_takes_at_once_changes_nothing(capture: Capture, tmp_path: Path) -> None:
    # Only the step's own rows do, and they are part of its recipe.
    shop = make_shop(rows())
    shop.experiment = SimpleNamespace(run=SimpleNamespace(eval_batch_size=3))
    model, (other, _, _) = make_model(shop), capture()
    capture_anchor(shop, make_order(), model)
    assert digest_of(model, tmp_path / "a") == digest_of(other, tmp_path / "b")


def test_the_penalty_is_exactly_zero_on_the_model_it_was_captured_on(capture: Capture) -> None:
    model, guard, _ = capture()
    assert float(guard.anchor.penalty(model).detach()) == 0.0
    assert not guard.stale(model)


def test_what_is_told_apart_is_found_and_the_rest_is_let_through(capture: Capture) -> None:
    _, guard, _ = capture()
    assert guard.rates["detected"].value == 1.0
    assert guard.rates["false_positive_rate"].value <= 0.34
    assert guard.rates["detected"].n == 6  # a fifth of 30
    assert guard.rates["false_positive_rate"].n == 12
    assert {"false_positive_rate/benign", "false_positive_rate/medical", "detected_with_answer"} <= set(guard.rates)


def test_the_rates_land_among_the_metrics(capture: Capture) -> None:
    _, guard, result = capture()
    attempt = SimpleNamespace(number=0)
    (row,) = history_rows("safety", [(attempt, {"anchor": result})])  # type: ignore[list-item]
    rate = guard.rates["detected"]
    assert (row["phase"], row["at"]) == ("safety", "anchor")
    assert (row["anchor/detected"], row["anchor/detected/prompts"]) == (rate.value, rate.n)
    assert row["anchor/detected/low"] <= row["anchor/detected"] <= row["anchor/detected/high"]
    assert result.tokens == 0 and json.dumps(row, allow_nan=False)


def test_the_refusal_is_the_one_that_most_harmful_rows_have(capture: Capture) -> None:
    assert capture()[1].refusal == "sorry , no ."
    assert capture(make_order(options={"refusal": "não ."}))[1].refusal == "não ."


def test_prompts_alone_are_watched_on_request(capture: Capture) -> None:
    _, guard, _ = capture(make_order(options={"every": 0}))
    assert (guard.every, guard.running) == (0, 0.0)
    assert not any(name.endswith("with_answer") for name in guard.rates)


def test_long_prompts_are_left_out_and_counted(capture: Capture) -> None:
    long = {**rows()[0], "prompt": say("user", "please hurt " * 40)}
    _, _, result = capture(found=[*rows(), long])
    assert result.notes == ("1 prompts of more than 32 tokens were left out",)


def test_kinds_and_sides_are_chosen(capture: Capture) -> None:
    _, guard, _ = capture(make_order(options={"benign": ["medical"]}))
    assert "false_positive_rate/benign" not in guard.rates
    _, guard, _ = capture(make_order(kinds=("harmful", "medical")))
    assert "false_positive_rate/benign" not in guard.rates


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (rows(harmful=0), "no training rows of harmful"),
        (rows(benign=0), "no training rows of any other kind"),
        ([*rows(), {**rows()[0], "kind": "benign"}], "both harmful and benign"),
        (rows(benign=20), r"6 benign calibration prompts cannot promise .* 10\.00%"),
        ([{**row, "completion": []} for row in rows()], "no harmful row has a completion to refuse with"),
    ],
)
def test_data_that_make_no_anchor_are_an_error(capture: Capture, found: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        capture(found=found)


def test_a_model_that_diverged_is_told_so() -> None:
    shop = make_shop(rows())
    model = make_model(shop)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="the model has diverged"):
        capture_anchor(shop, make_order(), model)


def test_benign_rows_without_answers_cannot_set_the_limit_for_answers(capture: Capture) -> None:
    found = [row if row["kind"] == "harmful" else {**row, "completion": []} for row in rows()]
    with pytest.raises(DataError, match="0 benign"):
        capture(found=found)
    assert capture(make_order(options={"every": 0}), found)[1].every == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"calibration": 0.6, "measured": 0.4}, "leave no prompts for the anchor to learn from"),
        ({"false_positives": 0}, "false_positives"),
        ({"harmfull": ["x"]}, "Did you mean 'harmful'"),
    ],
)
def test_options_that_cannot_be_are_refused(capture: Capture, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        capture(make_order(options=options))


# ---- before a run


@pytest.mark.parametrize(
    ("found", "options", "told"),
    [
        (rows(benign=30), {}, r"phases.safety.steps.anchor would set its thresholds on 8 benign prompts, but 19"),
        (rows(harmful=0), {}, "draws no prompts to refuse"),
        (rows(benign=0), {}, "one-sided safety data"),
        ([{**row, "completion": []} for row in rows(benign=90)], {}, "no harmful row has a completion"),
    ],
)
def test_a_run_is_refused_before_it_begins(found: Any, options: dict[str, Any], told: str) -> None:
    plan: Any = SimpleNamespace(corpus=Rows(found))
    section = make_order(options={"false_positives": 0.1, **options}).section
    with pytest.raises(DataError, match=told):
        check_anchor(plan, "phases.safety.steps.anchor", section)


def test_a_run_that_can_be_is_let_through() -> None:
    plan: Any = SimpleNamespace(corpus=Rows(rows(benign=90)))
    check_anchor(plan, "here", make_order(options={"false_positives": 0.1}).section)


# ---- the prompts


def parts_of(seed: int = 0, **options: Any) -> Parts:
    chosen = AnchorOptions(**options)
    return divide(two_sides(rows(), chosen, "here"), chosen, seed)


def test_the_three_parts_are_disjoint_and_hold_both_sides_at_their_shares() -> None:
    parts = parts_of(calibration=0.3, measured=0.2)
    sizes = [
        (sum(one.harmful for one in part), len(part)) for part in (parts.capture, parts.calibration, parts.measured)
    ]
    assert sizes == [(15, 45), (9, 27), (6, 18)]
    assert len({one.prompt[0]["content"] for one in parts.all}) == 90


def test_the_parts_depend_on_the_seed_alone() -> None:
    assert parts_of(1) == parts_of(1)
    assert parts_of(1) != parts_of(2)


def test_a_side_is_capped_evenly_by_kind() -> None:
    found = [*rows(), *({**row, "kind": "rare"} for row in rows(0, 64)[60:])]  # 30 benign, 30 medical, 4 rare
    options = AnchorOptions(prompts=14)
    kinds = Counter(one.kind for one in divide(two_sides(found, options, "here"), options, 0).all)
    assert kinds == {"harmful": 14, "benign": 5, "medical": 5, "rare": 4}


def test_every_part_holds_every_kind_at_its_share() -> None:
    parts = parts_of(calibration=0.3, measured=0.2)
    for part, count in ((parts.capture, 15), (parts.calibration, 9), (parts.measured, 6)):
        assert Counter(one.kind for one in part) == {"benign": count, "harmful": count, "medical": count}
        assert [one.kind for one in part] != sorted(one.kind for one in part)


def test_a_prompt_that_stands_twice_counts_once() -> None:
    assert len(two_sides([*rows(), *rows()], AnchorOptions(), "here")) == 90


def test_prompts_end_where_an_answer_begins_and_answers_follow_them() -> None:
    shop = make_shop(rows())
    (one,) = render(shop.tokenizer, two_sides(rows(2, 1), AnchorOptions(), "here")[1:2], 32)
    assert shop.tokenizer.decode(one.prompt) == "<user> kara 1 hurt hurt hurt hurt<asst>"
    assert one.good is not None and one.bad is not None
    assert shop.tokenizer.decode(one.good[len(one.prompt) :]) == " sorry , no .<end>"
    assert shop.tokenizer.decode(one.bad[len(one.prompt) :]) == " take the hammer<end>"


def test_the_usual_refusal_is_the_most_frequent_and_of_equals_the_first_by_name() -> None:
    requests = two_sides(rows(harmful=4), AnchorOptions(), "here")
    assert usual_refusal(requests, "here") == "sorry , no ."
    assert usual_refusal([request for request in requests if request.harmful][:2], "here") == "i will not ."

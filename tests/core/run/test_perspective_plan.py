"""Plans of the Perspective curriculum: a model that grows in the course of it, and what every stage costs."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import pytest
from phasegate.core.cli.terminal import make_console, show_plan
from phasegate.core.config.loading import load_experiment
from phasegate.core.config.schema import (
    DataSection,
    Experiment,
    FreshSection,
    PhaseSection,
    Ref,
    StepSection,
)
from phasegate.core.model.builder import ModelFacts
from phasegate.core.run.plan import Plan, make_plan, plan_record
from phasegate.core.run.sizes import Sizes, forms_of
from phasegate.core.run.store import Store
from phasegate.registry.errors import ConfigError
from phasegate.registry.plugins import Plugins

# The paper's matrices (width 4096): a PDR layer of rank 256, a GQA layer of 32 and 8 heads of 128, an FFN of 11008.
PDR = 3 * 4096**2 + 2 * 256 * 4096
GQA = 2 * 4096 * 4096 + 2 * 4096 * 1024
FFN = 3 * 4096 * 11008
EMBEDDING = 32768 * 4096
#: The bias of every PDR layer's decay; the norms before mixer and FFN, of what a PDR layer reads, of queries and keys.
BIASES = 60 * 4096
NORMS = 80 * 2 * 4096 + 60 * 4096 + 20 * 2 * 128 + 4096
SEED = 60 * PDR + 20 * GQA + 20 * FFN + EMBEDDING

STEP = 1024 * 4096  # tokens of a step after the seed

#: The nano preset at sizes to count by hand, whatever it is tuned to: 4 layers of width 64, 3 of them PDR of rank 32.
NANO = (
    "model.num_hidden_layers=4",
    "model.window=32",
    "model.mixer={use: pdr, rank: 32}",
    "model.dense_layers=[3]",
    "model.num_experts=8",
    "model.moe_intermediate_size=128",
    "model.num_key_value_heads=2",
    "phases.seed.options.steps=1800",
    "phases.seed.options.twin=true",
)


@cache
def plan_of(name: str, *overrides: str) -> Plan:
    return make_plan(load_experiment(name, overrides), Plugins.load([]), Store(Path("nowhere")))


def shown(plan: Plan) -> str:
    stream = io.StringIO()
    show_plan(make_console(stream), plan)
    return stream.getvalue()


def row(text: str, first: str) -> str:
    return " ".join(next(line for line in text.splitlines() if line.strip().startswith(first)).split())


def test_the_seed_of_the_paper_has_6_824_billion_parameters_in_matrices_and_its_experts_a_trillion() -> None:
    assert f"{SEED / 1e9:.3f}" == "6.824"
    sizes = plan_of("perspective-paper").sizes
    assert sizes["seed"].total == SEED + BIASES + NORMS
    assert sizes["differentiation"].by_role["experts"] == 128 * 60 * FFN == pytest.approx(1.0388e12, rel=5e-5)
    assert sizes["differentiation"].total == SEED + BIASES + NORMS + 128 * 60 * FFN + 60 * 128 * 4096
    assert sizes["differentiation"].total == pytest.approx(1.0457e12, rel=5e-5)


def test_a_token_passes_as_much_of_the_seed_as_of_the_experts_that_are_cloned_from_it() -> None:
    sizes = plan_of("perspective-paper").sizes
    met = SEED + 60 * FFN + BIASES + NORMS  # FFNs for 20 layers, passed in 80
    assert f"{met / 1e9:.2f}" == "14.94"
    assert sizes["seed"].active == met
    assert sizes["experts"].active == met + 60 * 128 * 4096  # with linear routers
    assert sizes["manifold"].active == met + 60 * 3 * 4097 + 3 * 128  # with maps to the torus, and shared positions


def test_every_stage_of_the_paper_costs_what_its_model_tokens_and_frozen_weights_come_to() -> None:
    budget = plan_of("perspective-paper").budget
    phases = budget.phases
    tokens = [phases[name].tokens for name in ("seed", "experts", "differentiation", "ternary", "manifold")]
    assert tokens == [120_000 * 2048 * 4096, 0, 119_210 * STEP, 47_684 * STEP, 11_921 * STEP]
    assert tokens[2:] == pytest.approx([500e9, 200e9, 50e9], rel=1e-4)
    attention = 12 * 20 * 32 * 128 * 512  # in 20 layers, back over 512 tokens
    seed = 6 * (SEED + BIASES + 60 * FFN) + attention
    assert phases["seed"].training == pytest.approx(tokens[0] * seed)
    assert phases["seed"].training == pytest.approx(9.0e22, rel=0.01)
    assert phases["experts"].training == 0.0
    moe = seed + 6 * 60 * 128 * 4096
    assert phases["differentiation"].training == pytest.approx(tokens[2] * moe)
    assert phases["ternary"].training == pytest.approx(tokens[3] * moe * 4 / 3)  # and the teacher's forward pass
    torus = seed + 6 * (60 * 3 * 4097 + 3 * 128)
    assert phases["manifold"].training == pytest.approx(tokens[4] * torus * 2 / 3)  # through frozen weights
    # SPEC counts parameters alone: attention and routers add less than a hundredth
    claims = [claim.flops for claim in budget.claims[1:]]
    assert [phases[name].training for name in ("differentiation", "ternary", "manifold")] == pytest.approx(
        claims, rel=0.01
    )


def test_no_stage_of_a_plan_runs_above_the_peak_of_its_devices() -> None:
    for name in ("perspective-paper", "perspective-nano"):
        budget = plan_of(name).budget
        for phase in budget.phases.values():
            if phase.hours:
                rate = (phase.training + phase.inference) / phase.hours / 3600 / budget.machine.devices
                assert rate <= budget.machine.peak


def test_memory_is_that_of_the_largest_model_on_the_way() -> None:
    plan = plan_of("perspective-paper")
    assert plan.memory > 16 * plan.sizes["experts"].total > 16 * plan.facts.total


def test_the_papers_numbers_stand_in_the_plan() -> None:
    text = shown(plan_of("perspective-paper"))
    sizes = text[text.index("parameters by phase") :]
    assert row(sizes, "seed") == "seed 6.8253 G – 6.8244 G – 910.34 k 14.941 G"
    assert row(sizes, "differentiation") == "differentiation 1.0457 T 1.0388 T 6.8244 G 31.457 M 910.34 k 14.973 G"
    assert row(sizes, "manifold") == "manifold 1.0457 T 1.0388 T 6.8244 G 737.84 k 910.34 k 14.942 G"
    compute = text[text.index("compute in FLOPs") :]
    assert row(compute, "seed").split()[:2] == ["seed", "9.07e22"]


def test_the_papers_claims_stand_above_what_they_come_to() -> None:
    text = shown(plan_of("perspective-nano"))
    claims = text[text.index("the paper's compute") :]
    assert row(claims, "1 seed") == "1 seed claimed 3.20e21 2,700 329 T (106%)"
    assert row(claims, "6 N D  ") == "6 N D 6.83 G 1 T 4.10e22 91,200 125 T (40%)"
    assert row(claims, "6 N D, FFNs tied") == "6 N D, FFNs tied 14.94 G 1 T 8.96e22 200,000 125 T (40%)"
    assert row(claims, "6 N D + teacher") == "6 N D + teacher 14.94 G 200 G 2.39e22 53,200 125 T (40%)"
    assert row(claims, "4 N D") == "4 N D 14.94 G 50 G 2.99e21 6,650 125 T (40%)"
    assert row(claims, "all") == "all claimed 1.18e23 33,200 985 T (316%)"
    assert row(claims, "corrected") == "corrected 1.13e23 251,000 125 T (40%)"
    assert "at 3 US dollars an A100-hour: 99,700 claimed, 752,000 corrected" in claims
    assert "foundation" not in text and "2,800 G" not in text


def test_a_plan_of_another_curriculum_shows_neither_the_claims_nor_sizes_that_do_not_change() -> None:
    text = shown(plan_of("ncas-nano"))
    assert "(foundation)" not in text and "2,800 G" in text
    assert "A100" not in text and "parameters by phase" not in text


def test_the_plan_of_the_paper_stays_within_a_hundred_columns_but_for_its_steps() -> None:
    text = shown(plan_of("perspective-paper"))
    tables = text[text.index("parameters by phase") :].splitlines()
    assert max(len(line.rstrip()) for line in tables if line.startswith("  ")) <= 100


def test_the_record_has_the_sizes_of_every_phase_and_the_claims() -> None:
    record = json.loads(json.dumps(plan_record(plan_of("perspective-nano"))))
    totals = {stage["phase"]: stage["parameters"]["total"] for stage in record["stages"]}
    assert totals["seed"] < totals["manifold"] == record["parameters"]["total"]
    assert "claims" in record["budget"] and "paper" not in record["budget"]


def test_growth_doubles_the_experts_and_the_rows_of_linear_routers() -> None:
    plain, plan = (
        plan_of("perspective-nano", *NANO),
        plan_of("perspective-nano", *NANO, "phases.experts.options.growth=2"),
    )
    once, grown = plain.sizes["experts"], plan.sizes["experts"]
    assert grown.by_role["experts"] == 4 * once.by_role["experts"] == 4 * 8 * 3 * 3 * 64 * 128
    assert grown.by_role["router"] == 4 * once.by_role["router"] == 4 * 8 * 3 * 64
    assert grown.active - once.active == 3 * once.by_role["router"]
    assert plan.sizes["seed"] == plain.sizes["seed"]


def test_experts_and_their_number_per_token_may_be_those_of_the_upcycling() -> None:
    overrides = ("phases.experts.steps.upcycle.options.experts=4", "phases.experts.steps.upcycle.options.top_k=2")
    plain, other = (plan_of("perspective-nano", *NANO, *some).sizes["experts"] for some in ((), overrides))
    expert = 3 * 3 * 64 * 128  # in three layers
    assert other.by_role["experts"] == 4 * expert
    assert other.active - plain.active == expert - 4 * 3 * 64
    assert other.flops_per_token - plain.flops_per_token == 6 * (expert - 4 * 3 * 64)


def test_a_twin_is_counted_as_what_it_is() -> None:
    plan = plan_of("perspective-nano", *NANO)
    tokens = 1800 * 16 * 64
    head, ffn = 1536 * 64, 4 * 3 * 64 * 128
    pdr = 3 * (3 * 64 * 64 + 2 * 32 * 64 + 64)
    gqa = 2 * 64 * 64 + 2 * 64 * 32
    mha = 4 * 64 * 64  # the twin has a key-value head for every head, so that it is as large
    twin = 6 * (4 * mha + ffn + head) + 12 * 64 * (3 * 64 + 32)  # one layer looks back over 32 tokens
    own = 6 * (pdr + gqa + ffn + head) + 12 * 64 * 32
    assert plan.budget.phases["seed"].training == pytest.approx(tokens * (twin + own))


class Fixed:
    """A builder that knows nothing of upcycling."""

    def facts(self) -> ModelFacts:
        return ModelFacts(total=7, active=5, by_role={"experts": 4}, flops_per_token=30.0)


def experiment(*steps: StepSection) -> Experiment:
    named = {f"step-{number}": step for number, step in enumerate(steps)}
    data, phases = DataSection(sequence_length=8), {"only": PhaseSection(steps=named)}
    return Experiment(name="x", data=data, phases=phases)


def test_a_builder_that_knows_nothing_of_upcycling_is_believed() -> None:
    sizes = Sizes(experiment(StepSection(objective="upcycle"), StepSection()), lambda _: Fixed())
    assert sizes.by_phase()["only"].total == sizes.largest().total == 7
    assert sizes.per_token("only", "step-1", 8) == 30.0


def test_a_fresh_model_forgets_what_steps_before_it_made() -> None:
    upcycle, twin = StepSection(objective="upcycle"), StepSection(fresh=FreshSection(mixer=Ref(use="pdr")))
    first, upcycled, fresh, again = forms_of(experiment(upcycle, twin, StepSection(fresh=FreshSection())))["only"]
    assert (upcycled.experts, fresh.experts) == (9, None)
    assert fresh.model.mixer.use == "pdr" and again == first


def test_a_model_is_counted_once_for_each_form_and_length() -> None:
    built: list[int | None] = []

    def build(one: Experiment) -> Fixed:
        built.append(one.data.sequence_length)
        return Fixed()

    sizes = Sizes(experiment(StepSection(), StepSection(fresh=FreshSection())), build)
    for length in (8, 16, 8, 16):
        assert sizes.per_token("only", "step-0", length) == sizes.per_token("only", "step-1", length)
    sizes.by_phase()
    assert built == [8, 16]


def test_a_model_that_a_step_cannot_make_is_named_with_the_step() -> None:
    def build(one: Experiment) -> Fixed:
        if one.model.router.use == "torus":
            raise ConfigError("the router does not fit.")
        return Fixed()

    sizes = Sizes(experiment(StepSection(objective="reroute", router=Ref(use="torus"))), build)
    with pytest.raises(ConfigError, match=r"^phases\.only\.steps\.step-0: the router does not fit\.$"):
        sizes.by_phase()

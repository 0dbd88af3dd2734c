"""What a report says of a study: resolved differences in words, the rest marked, sharing, trials, gates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from phasegate.core.report.sharing_page import prefix_tree
from phasegate.core.report.study_page import study_answer, study_page
from phasegate.core.report.study_reading import study_facts

Study = Callable[..., Path]


def told(folder: Path) -> str:
    return "\n".join(study_answer(study_facts(folder))).replace("\xa0", " ")


def test_resolved_differences_are_said_first_and_the_rest_is_marked(study: Study) -> None:
    text = told(study("orders"))
    assert text.startswith("4 of 9 differences from paper are resolved, over 3 seeds.")
    assert "no specialization: quality worse by −0.023 [−0.031, −0.015]." in text
    assert "Not resolved from paper in any score: probes early." in text
    assert "alignment before safety moves safety by +0.970 [0.940, 1.000]" in text


def test_where_nothing_is_resolved_the_answer_says_so(study: Study) -> None:
    facts = study_facts(study("orders"))
    rows = [{"name": row.name, "order": row.order, "seeds": {}, "scores": {}} for row in facts.rows[:2]]
    rows[1]["differences"] = {"quality": {"value": 0.1, "low": -0.1, "high": 0.3, "resolved": False}}
    text = told(study("orders", rows=rows, effects=[]))
    assert text.startswith("Nothing is resolved: none of 1 difference from paper stands out of its noise.")


def test_an_interval_without_zero_that_does_not_hold_among_all_others_is_said_to_be_alone(study: Study) -> None:
    facts = study_facts(study("orders"))
    rows = [{"name": row.name, "order": row.order, "seeds": {}, "scores": {}} for row in facts.rows[:2]]
    rows[1]["differences"] = {"quality": {"value": 0.1, "low": 0.02, "high": 0.3, "resolved": False}}
    text = told(study("orders", rows=rows, effects=[]))
    assert (
        "By their own interval only, which one in twenty does by chance: no specialization in quality (+0.100)." in text
    )


def test_a_score_says_whether_it_is_relative_and_whose_probes_were_fitted_anew(study: Study) -> None:
    scores = {
        "quality": {"direction": "maximize", "of": ["choice acc", "format acc"], "relative": True},
        "error": {"direction": "minimize", "of": ["calibration ece"], "refit": "metacognition/probes"},
    }
    about = dict(study_page(study_facts(study("orders", scores=scores))).about)
    assert about["quality is"] == "the mean of choice acc and format acc, each divided by its best"
    assert about["error is"] == "calibration ece, with the probes of metacognition/probes fitted anew"


def test_sharing_is_told_in_trainings_and_minutes(study: Study) -> None:
    text = told(study("orders"))
    assert "Without sharing, 87 trainings of single phases; 60 of them are different." in text
    assert (
        "50 were trained here in 31.5 minutes, 37 times a stage was taken from the store, saving 18.2 minutes." in text
    )


def test_orders_that_share_a_beginning_share_its_boxes() -> None:
    nodes = prefix_tree([["a", "b", "c"], ["a", "c"], ["a"]])
    assert [(node.name, node.depth, node.parent, node.leaf) for node in nodes] == [
        ("a", 0, None, True),
        ("b", 1, 0, False),
        ("c", 2, 1, True),
        ("c", 1, 0, True),
    ]
    assert [node.row for node in nodes] == [0.5, 0, 0, 1]


def test_the_ablation_table_shares_twenty_of_its_twenty_nine_phases(study: Study) -> None:
    facts = study_facts(study("orders"))
    orders = [row.order.split(">") for row in facts.rows]
    assert (sum(map(len, orders)), len(prefix_tree(orders))) == (29, 20)


def test_a_trial_that_breaks_a_gate_is_counted_and_a_pruned_one_named_with_its_phase(study: Study) -> None:
    text = told(study("parameters"))
    assert "3 of 6 trials are best" in text and "1, 2 and 3." in text
    assert "learning_rate matters most for the score: it explains 83 %" in text
    assert "2 trials broke a gate; 1 was pruned, after foundation." in text


def test_a_study_of_one_score_names_its_best_trial_and_settings(study: Study) -> None:
    scores = {"quality": {"direction": "maximize", "of": ["acc"]}}
    text = told(study("parameters", scores=scores, best=[2]))
    assert "The best of 6 trials is trial 2: quality 0.880 with" in text and "schedule = linear" in text


def test_two_scores_are_drawn_against_each_other_and_one_is_not(study: Study) -> None:
    keys = {section.key for section in study_page(study_facts(study("parameters"))).sections}
    assert {"best", "course", "pareto", "parameters", "constraints", "trials"} <= keys
    one = study_facts(study("parameters", scores={"quality": {"direction": "maximize", "of": ["acc"]}}))
    assert "pareto" not in {section.key for section in study_page(one).sections}


def test_constraints_that_could_not_be_evaluated_count_as_broken(study: Study) -> None:
    trial = {"number": 0, "state": "COMPLETE", "values": [0.5, 0.1], "constraints": {"gate": None}, "parameters": {}}
    assert "1 trial broke a gate; 0 were pruned." in told(study("parameters", trials=[trial], best=[]))

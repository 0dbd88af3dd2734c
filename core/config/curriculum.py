"""The order of phases: which come when, what each must find, and what a criterion may be held against."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...registry.components import PhaseSpec
from ...registry.suggest import did_you_mean, listing
from .problems import Problems
from .schema import CriterionSection, Experiment


def ordered(order: str | None, names: Sequence[str], problems: Problems) -> tuple[str, ...]:
    """Return phase names in the order they run: ``order`` (``a>b>c``, may skip phases) or as they are written."""
    if order is None:
        return tuple(names)
    wanted = [name.strip() for name in order.split(">")]
    for index, name in enumerate(wanted):
        if name not in names:
            text = f"order names a phase '{name}' that the experiment does not have.{did_you_mean(name, names)}"
            problems.add(("order",), f"{text} Phases: {listing(names)}.")
        elif name in wanted[:index]:
            problems.add(
                ("order",),
                f"order names '{name}' twice; write the second as a phase with a name of its own and use: {name}.",
            )
    return tuple(name for index, name in enumerate(wanted) if name in names and name not in wanted[:index])


def check_requirements(
    specs: Mapping[str, PhaseSpec], providers: Mapping[str, Sequence[str]], problems: Problems, *, ordered: bool
) -> set[str]:
    """Note the first phase that needs what no earlier phase provides; ``specs`` is in the order of the run, which
    ``order`` says if it is ``ordered``.

    ``providers`` lists, for each thing, all phase components that could provide it. Returns the phases that lack
    something.
    """
    provided: set[str] = set()
    lacking: set[str] = set()
    names = list(specs)
    for index, (name, spec) in enumerate(specs.items()):
        for need in sorted(set(spec.requires) - provided):
            later = [other for other in names[index + 1 :] if need in specs[other].provides]
            if later:
                cure = f"{later[0]} provides it, but comes later; put it before {name}."
            elif providers.get(need):
                cure = f"It is provided by {' or '.join(sorted(providers[need]))}; add one before {name}."
            else:
                cure = "No loaded phase provides it; a plugin may (--plugins)."
            text = f"phase {name} requires '{need}', which nothing before it provides. {cure}"
            problems.add(("order",) if ordered else ("phases", name), text)
            lacking.add(name)
            provided.add(need)  # one thing that is missing is told once
        provided |= set(spec.provides)
    return lacking


def check_comparisons(experiment: Experiment, problems: Problems, lacking: Collection[str] = ()) -> None:
    """Note every ``against`` that names no earlier stage, but for a parent of phases ``lacking`` something before them.

    Allowed are an earlier phase, a step of one (``alignment/sft``), ``parent`` (the stage before this phase) and, in
    completion criteria, an earlier step of the same phase (``./sft`` or with the phase's name).
    """
    earlier: list[str] = []
    for name, phase in experiment.phases.items():
        own = [label for step in list(phase.steps)[:-1] for label in (f"./{step}", f"{name}/{step}")]
        for kind, criteria, allowed in (("entry", phase.entry, earlier), ("gates", phase.gates, [*earlier, *own])):
            for label, criterion in criteria.items():
                if criterion.against != "parent" or name not in lacking:
                    _comparison(criterion, (name, kind, label), allowed, bool(earlier), problems)
        earlier += [name, *(f"{name}/{step}" for step in phase.steps)]


def _comparison(
    criterion: CriterionSection, place: tuple[str, str, str], allowed: Sequence[str], parent: bool, problems: Problems
) -> None:
    against, path = criterion.against, ("phases", *place, "against")
    if against is None or against in allowed or (against == "parent" and parent):
        return
    if against == "parent":
        text = f"{'.'.join(path)}: phase {place[0]} comes first, so it has no parent to be compared with."
        problems.add(path, text)
        return
    known = [*allowed, *(["parent"] if parent else [])]
    text = f"{'.'.join(path)}: no stage before this one is called '{against}'.{did_you_mean(against, known)}"
    problems.add(path, f"{text} Stages: {listing(known)}.")


def check_new_steps(name: str, said: Mapping[str, object], recipe: Mapping[str, object], problems: Problems) -> None:
    """Note steps that the recipe does not have and that do not say what they are: most likely a misspelt name."""
    for step, section in said.items():
        if step in recipe or section is None or not isinstance(section, Mapping):
            continue
        lacking = [key for key in ("objective", "steps") if key not in section]
        if lacking:
            text = f"phase {name} has no step '{step}'.{did_you_mean(step, recipe)} Steps: {listing(recipe)}."
            problems.add(("phases", name, "steps", step), f"{text} A new step says its {' and its '.join(lacking)}.")


def check_new_criteria(
    name: str, kind: str, said: Mapping[str, object], recipe: Mapping[str, object], problems: Problems
) -> None:
    """Note criteria that the recipe does not have and that do not say what they measure."""
    for label, section in said.items():
        if label in recipe or not isinstance(section, Mapping):
            continue
        lacking = [key for key in ("use", "metric") if key not in section]
        if lacking:
            text = f"phases.{name}.{kind} has no criterion '{label}'.{did_you_mean(label, recipe)}"
            text = f"{text} Criteria: {listing(recipe)}. A new criterion says its {' and its '.join(lacking)}."
            problems.add(("phases", name, kind, label), text)

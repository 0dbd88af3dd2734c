"""What a run works with: the store, the stop flag, the tokenizer, and the models that phases start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.atomic import read_json, write_json
from ...registry.errors import StoreError
from ...registry.provenance import refuse_drift
from .fingerprint import Recipe
from .interrupt import Interruption
from .plan import Plan, StagePlan, model_builder, used_components
from .processes import is_main, wait_for_all
from .seeds import derive
from .step import Workshop
from .store import Store, Work
from .tokenizing import TOKENIZER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .loop import StageOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Parents:
    """The models a phase can start from or be compared with: ``parent``, or an earlier stage or step by name."""

    parent: Callable[[], PreTrainedModel]
    named: Callable[[str], Path]
    parent_evidence: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The store and the interruption flag of one execution, callbacks that show progress, and whether changed
    plugin code is accepted."""

    store: Store
    interruption: Interruption
    allow_drift: bool
    callbacks: Callable[[str, float], tuple[Any, ...]]

    @contextmanager
    def single_flight(self, recipe: Recipe, show: Callable[[str, Any], None]) -> Iterator[None]:
        """Hold the right to make a stage; of several processes of one run, the main one holds it for all."""
        if not is_main():
            wait_for_all()
            yield
            return
        if self.store.find(recipe) is not None:
            wait_for_all()
            yield
            return
        with self.store.single_flight(recipe, waiting=lambda text: show("waiting", text), stop=self.interruption.check):
            wait_for_all()
            yield

    def begin(self, stage: StagePlan, plan: Plan) -> Work:
        """Return the work folder of a stage, the same in every process; refuse to go on in one that other plugin
        code began."""
        if is_main():
            work = self.store.begin(stage.recipe)
            note = work.folder / "provenance.json"
            if note.exists():
                self.trust(read_json(note, "a note of plugin code"), stage, plan, f"the unfinished stage {work.folder}")
            else:
                write_json(note, dict(plan.provenance))
        wait_for_all()
        return self.store.begin(stage.recipe)

    def trust(self, old: Mapping[str, Any], stage: StagePlan, plan: Plan, what: str) -> None:
        """Raise ``PluginError`` when the code behind this stage's components is not the code that made it.

        Only distributions and components that the stage uses count: another experiment may have loaded others.
        """
        used = {entry.key: entry for entry in used_components(plan.experiment, [stage.section], plan.registry).values()}
        dists = {entry.dist for entry in used.values()}

        def relevant(manifest: Mapping[str, Any]) -> dict[str, Any]:
            return {
                "api": manifest["api"],
                "dists": {name: facts for name, facts in manifest["dists"].items() if name in dists},
                "components": {key: value for key, value in manifest["components"].items() if key in used},
            }

        refuse_drift(relevant(old), relevant(plan.provenance), run=what, allow=self.allow_drift)

    def shop(self, plan: Plan, before: Sequence[StageOutcome], work: Work) -> Workshop:
        """Return what the steps of a phase share."""
        assert plan.experiment.data.sequence_length is not None
        return Workshop(
            experiment=plan.experiment,
            registry=plan.registry,
            corpus=plan.corpus,
            tokenizer=self.tokenizer(plan, before, work),
            length=plan.experiment.data.sequence_length,
            interruption=self.interruption,
            callbacks=self.callbacks,
            plugins=plan.plugins,
        )

    def parents(self, plan: Plan, before: Sequence[StageOutcome], tokenizer: PreTrainedTokenizerFast) -> Parents:
        """Return the models that the next phase may ask for."""
        from ..model.loading import align_generation, load_model

        def parent() -> PreTrainedModel:
            if before:
                self.store.verify(before[-1].stage)
                return load_model(before[-1].stage.checkpoint, plan.registry)
            builder = model_builder(plan.experiment, plan.registry, plan.derived)
            model: PreTrainedModel = builder.build(derive(plan.experiment.seed, "model"))
            align_generation(model, tokenizer)
            return model

        read: set[str] = set()

        def named(name: str) -> Path:
            phase, _, step = name.partition("/")
            for outcome in before:
                if outcome.name == phase:
                    if phase not in read:
                        self.store.verify(outcome.stage)
                        read.add(phase)
                    if not step or step == outcome.facts["last_step"]:
                        return outcome.stage.checkpoint
                    return outcome.stage.folder / "steps" / step
            raise StoreError(
                f"there is no earlier stage '{name}' to compare with; the run has {[o.name for o in before]}"
            )

        return Parents(
            parent=parent,
            named=named,
            parent_evidence=before[-1].stage.evidence if before else None,
        )

    def tokenizer(self, plan: Plan, before: Sequence[StageOutcome], work: Work) -> PreTrainedTokenizerFast:
        """Return the tokenizer of the run: the parent's, or the one in the work folder, or a newly trained one."""
        from ..model.tokenizer import load_tokenizer
        from .tokenizing import made_tokenizer, write_tokenizer

        section = plan.experiment.tokenizer
        if before:
            self.store.verify(before[-1].stage)
            return load_tokenizer(before[-1].stage.checkpoint, section.chat_template)
        folder = work.folder / TOKENIZER
        if made_tokenizer(folder) is None and is_main():
            write_tokenizer(section, plan.corpus, folder)
        wait_for_all()
        return load_tokenizer(folder, section.chat_template)

"""What the phases of a run changed in the weights, from their evidence or from the models themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...registry.atomic import read_json
from .commit import CHANGES
from .comparison import RunStage, experiment_of
from .seeds import derive

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...registry.registry import Registry
    from ..config.schema import Experiment


@dataclass(slots=True, kw_only=True)
class Lineage:
    """The stages of one run in their order, and the experiment that the first one's start is built from."""

    stages: Sequence[RunStage]
    source: str
    plugins: Sequence[str] = ()
    _setting: tuple[Experiment, Registry] | None = field(default=None, init=False)

    def changes(self, place: int) -> dict[str, Any]:
        """What the phase at ``place`` changed (see ``weight_changes``): read where it was written down at commit."""
        from ..model.changes import weight_changes

        written = self.stages[place].stage.evidence / CHANGES
        if written.is_file():
            return read_json(written, "a phase's changes")
        return weight_changes(self._start(place), self._load(self.stages[place].stage.checkpoint))

    def steps(self, place: int) -> list[dict[str, Any]]:
        """How the directions of consecutive steps of a phase compare (see ``delta_overlap``), in the last attempt."""
        from ..model.changes import delta_overlap

        stage = self.stages[place].stage
        names = list(stage.manifest["facts"]["attempts"][-1]["steps"])  # a recipe keeps no order of its keys
        if len(names) < 2:
            return []
        models = [
            self._start(place),
            *(self._load(stage.folder / "steps" / name) for name in names[:-1]),
            self._load(stage.checkpoint),
        ]
        return [
            {"first": first, "second": second, **delta_overlap(*models[number : number + 3])}
            for number, (first, second) in enumerate(pairwise(names))
        ]

    def _start(self, place: int) -> PreTrainedModel:
        """The model that a phase started from: its parent's, or the one that was built for the first."""
        if place:
            return self._load(self.stages[place - 1].stage.checkpoint)
        from ..config.filling import explain
        from .plan import model_builder

        experiment, registry = self._set_up()
        model: PreTrainedModel = model_builder(experiment, registry, explain(experiment)).build(
            derive(experiment.seed, "model")
        )
        return model

    def _load(self, folder: Path) -> PreTrainedModel:
        from ..model.loading import load_model

        return load_model(folder, self._set_up()[1])

    def _set_up(self) -> tuple[Experiment, Registry]:
        if self._setting is None:
            experiment, plugins, _ = experiment_of(self.source, self.plugins)
            self._setting = (experiment, plugins.components())
        return self._setting

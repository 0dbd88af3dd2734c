"""The trackers that a run can report to: what each is called, and the package that it comes in."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...registry.errors import ConfigError
from ...registry.suggest import did_you_mean, listing
from .problems import Problems

LABEL = "run.report_to"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What to install for a tracker, and the modules of which one must be there (none where it is a service of its
    surroundings)."""

    pip: str
    modules: tuple[str, ...]

    def installed(self) -> bool:
        """Tell whether one of the modules is there, without importing it."""
        return not self.modules or any(importlib.util.find_spec(module) is not None for module in self.modules)


#: The names of ``TrainingArguments(report_to=...)`` in transformers. Its dvclive is left out: it counts steps of its
#: own, so phases could not share an axis, and writes into the working directory.
TRACKERS: Mapping[str, Package] = {
    "azure_ml": Package(pip="azureml-core", modules=("azureml",)),
    "clearml": Package(pip="clearml", modules=("clearml",)),
    "codecarbon": Package(pip="codecarbon", modules=("codecarbon",)),
    "comet_ml": Package(pip="comet-ml", modules=("comet_ml",)),
    "dagshub": Package(pip="dagshub", modules=("dagshub",)),
    "flyte": Package(pip="flytekit", modules=("flytekit",)),
    "kubeflow": Package(pip="kubeflow", modules=()),
    "mlflow": Package(pip="mlflow", modules=("mlflow",)),
    "neptune": Package(pip="neptune", modules=("neptune",)),
    "swanlab": Package(pip="swanlab", modules=("swanlab",)),
    "tensorboard": Package(pip="tensorboard", modules=("tensorboard", "tensorboardX")),
    "trackio": Package(pip="trackio", modules=("trackio",)),
    "wandb": Package(pip="wandb", modules=("wandb",)),
}


def check_trackers(names: Iterable[str], problems: Problems) -> None:
    """Note every name that is no tracker, with the nearest that is one."""
    for number, name in enumerate(names):
        if name not in TRACKERS:
            text = (
                f"{LABEL}: there is no tracker '{name}'.{did_you_mean(name, TRACKERS)} Trackers: {listing(TRACKERS)}."
            )
            problems.add(("run", "report_to", str(number)), text)


def require_packages(names: Iterable[str]) -> None:
    """Raise ``ConfigError`` for the first tracker whose package is not installed."""
    for name in names:
        if not TRACKERS[name].installed():
            raise ConfigError(
                f"{LABEL} names {name}, whose package is not installed; run pip install {TRACKERS[name].pip}, or take "
                "it out of the list"
            )

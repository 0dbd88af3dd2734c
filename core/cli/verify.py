"""``platform verify``: prove on a few small steps that an experiment's configuration does what it says."""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ExperimentName, Overrides, PluginRequests, requests_of
from .printing import echo

if TYPE_CHECKING:
    from ..verify.proof import Proof

FAILED = 1


def command(
    experiment: ExperimentName,
    overrides: Overrides = None,
    plugins: PluginRequests = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Make all other proofs too when one fails.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the proofs; as many as cores if left out.")
    ] = None,
) -> None:
    """Prove that every setting of an experiment acts, before money is spent; exit with 1 at the first that does not.

    A small form of the experiment is trained in a temporary folder: all its phases, steps, terms and components on few
    rows. Nothing of it is kept.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    import torch
    from transformers.utils import logging

    from ..verify.verify import verify

    # A model of three steps makes libraries complain; what the platform itself has to say is said.
    warnings.filterwarnings("ignore", module=r"(?!phasegate(\.|$))")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    # Forking is safe on Linux alone, and not for a process that has used a GPU.
    forks = sys.platform == "linux" and not torch.accelerator.is_available()
    most = len(os.sched_getaffinity(0)) if forks else 1
    count: Counter[str] = Counter()
    for proof in verify(experiment, overrides or (), requests_of(plugins), workers or most):
        count[proof.outcome] += 1
        _print(proof)
        if proof.outcome == "fails" and not keep_going:
            break
    told = f"{count['holds']} proofs hold, {count['fails']} fail, {count['skipped']} have nothing to show here"
    echo(told)
    if count["fails"]:
        raise typer.Exit(FAILED)


def _print(proof: Proof) -> None:
    echo(f"{proof.outcome:<7}  {proof.name}: {proof.subject} – {proof.reason}")

"""``platform compare``: one prompt through the curriculum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import STORE, PluginRequests, StoreFolder, requests_of
from .printing import echo

_SHOWN = 2  # experts of a layer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of an experiment's runs (the newest).")],
    prompt: Annotated[list[str], typer.Option("--prompt", help="What to say to the models; may be repeated.")],
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="The longest answer, in tokens.")] = 32,
    domain: Annotated[str | None, typer.Option("--domain", help="What the prompts are about, for probes.")] = None,
    plugins: PluginRequests = None,
    store: StoreFolder = STORE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")] = False,
) -> None:
    """Show what the model after each phase answers, how sure it is, and the experts it uses."""
    from dataclasses import asdict

    from transformers.utils import logging

    from ..run.comparison import ask_through, experiment_of, find_run, stages_of
    from ..run.store import Store
    from .listing import print_json, print_table

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    folder = find_run(run)
    stages = stages_of(folder, Store(store))
    _, enabled, _ = experiment_of(str(folder.experiment), requests_of(plugins))
    answers = list(ask_through(stages, prompt, enabled.components(), tokens, domain))
    if as_json:
        print_json([asdict(said) for said in answers])
        return
    for text in prompt:
        echo(f"\n{text}")
        rows = [
            (said.phase, said.form, said.answer, _confidence(said), _notes(said), _experts(said.experts))
            for said in answers
            if said.prompt == text
        ]
        print_table(("phase", "asked as", "answer", "confidence", "", "experts by layer"), rows)


def _confidence(said: Any) -> str:
    return "–" if said.confidence is None else f"{said.confidence:.2f} ({said.measure})"


def _notes(said: Any) -> str:
    told = [word for word, holds in (("vetoed", said.vetoed), ("would rather abstain", said.abstains)) if holds]
    return ", ".join([*told, *(f"{name} of other weights" for name in said.stale)])


def _experts(used: Mapping[int, Mapping[int, float]]) -> str:
    return "  ".join(
        f"{layer}: " + " ".join(f"{expert} {share:.0%}" for expert, share in list(experts.items())[:_SHOWN])
        for layer, experts in used.items()
    )

"""Looking at runs that are done: their stages in the store, their experiment, and one prompt through all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...registry.errors import StoreError
from .records import RunFolder, open_run
from .store import Stage, Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ...registry.plugins import Plugins
    from ..config.schema import Experiment

Form = Literal["chat", "continuation"]

_STAGES = "stages.json"
_TALKING = frozenset({"contrast", "dpo", "sft"})  # objectives that teach a model the chat template


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStage:
    """One phase of a run as the store has it; ``talks`` once the model has been trained on dialogues."""

    phase: str
    stage: Stage
    talks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a model says to a prompt: greedily, in which form it was asked, how sure it is by which measure (None where
    nothing can tell), whether its anchor put a refusal in place of the answer, whether its probes would rather not
    answer, which companions were fitted to other weights, and the share of prompt and answer tokens that each expert
    gets, by layer."""

    phase: str
    prompt: str
    form: Form
    answer: str
    confidence: float | None
    measure: str
    vetoed: bool = False
    abstains: bool = False
    stale: tuple[str, ...] = ()
    experts: Mapping[int, Mapping[int, float]] = field(default_factory=dict)


def find_run(path: Path) -> RunFolder:
    """The run in this folder, or the newest one below it; ``StoreError`` where there is none."""
    if path.is_dir() and not (path / _STAGES).is_file():
        inside = sorted(folder.parent for folder in path.glob(f"*/{_STAGES}") if not folder.parent.name.startswith("."))
        if inside:
            return open_run(inside[-1])
    return open_run(path)


def run_of_stage(name: str, runs: Path) -> RunFolder | None:
    """The newest run below ``runs`` that made or used the stage of this name; None where there is none."""
    for path in sorted(runs.glob(f"*/*/{_STAGES}"), key=lambda path: path.parent.name, reverse=True):
        if path.parent.name.startswith("."):
            continue
        run = open_run(path.parent)
        if any(row["stage"] == name for row in run.stages()):
            return run
    return None


def stages_of(run: RunFolder, store: Store) -> tuple[RunStage, ...]:
    """The finished phases of a run in their order; ``StoreError`` where it has none, or the store has others."""
    found: list[RunStage] = []
    for row in run.stages():
        stage = store.get(row["stage"])
        if stage.digest != row["digest"]:
            raise StoreError(
                f"the store {store.root} has another stage {stage.name} than the run {run.path} made; name the run's "
                "own store with --store"
            )
        steps = stage.manifest["recipe"]["section"]["steps"].values()
        talks = bool(found and found[-1].talks) or any(step["objective"] in _TALKING for step in steps)
        found.append(RunStage(phase=row["phase"], stage=stage, talks=talks))
    if not found:
        raise StoreError(f"the run {run.path} has finished no phase yet; run it again and it goes on")
    return tuple(found)


def experiment_of(name_or_path: str, plugins: Sequence[str] = ()) -> tuple[Experiment, Plugins, Path]:
    """An experiment, complete, with its plugins and the folder that its relative paths start from; its phases may stand
    in any order, as those of a study's runs do."""
    from ...registry.plugins import Plugins
    from ..config.complete import complete
    from ..config.loading import load_experiment

    loaded = replace(load_experiment(name_or_path, (), plugins), unmet=True)
    enabled = Plugins.load(loaded.experiment.plugins, loaded.experiment.require)
    return complete(loaded, enabled.components()), enabled, loaded.base_folder


def ask_through(
    stages: Sequence[RunStage], prompts: Sequence[str], registry: Any, tokens: int = 32, domain: str | None = None
) -> Iterator[Said]:
    """Pose every prompt to the model of every phase, stage by stage; of each answer at most ``tokens`` tokens.

    ``domain`` is what the prompts are about, by whose weight probes decide and report (None: the strictest). A model
    that has learnt no dialogue is asked to continue the text as well as through the chat template.
    """
    from ..model.loading import load_model
    from ..model.tokenizer import load_tokenizer

    for stage in stages:
        model, tokenizer = load_model(stage.stage.checkpoint, registry), load_tokenizer(stage.stage.checkpoint)
        forms: tuple[Form, ...] = ("chat",) if stage.talks else ("continuation", "chat")
        for prompt in prompts:
            for form in forms:
                if form == "continuation" or tokenizer.chat_template:
                    yield ask(model, tokenizer, prompt, form, tokens, stage.phase, domain)


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    form: Form,
    tokens: int,
    phase: str = "",
    domain: str | None = None,
) -> Said:
    """Pose one prompt and return the greedy answer with what is known of it.

    The confidence is that of the model's probes where it has them (dialogues are what they were fitted to, so only for
    these), else the mean over answer tokens of the largest next-token probability.
    """
    import torch

    from ...evals.undisturbed import undisturbed
    from ..model.answers import spoken_tokens
    from ..model.speaker import Speaker

    with undisturbed(model), torch.inference_mode():
        speaker = Speaker(model, tokenizer)
        probed = "probes" in speaker.companions and form == "chat"
        options: dict[str, Any] = {"do_sample": False, "max_new_tokens": tokens, "confidence": probed}
        options["domain"] = domain if probed else None
        if form == "chat":
            given = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        else:
            given = with_separator(tokenizer, prompt)
        ids = torch.tensor([given], device=model.device)
        found = speaker.generate(ids, attention_mask=torch.ones_like(ids), **options)
        ends = model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or ())
        spoken = int(spoken_tokens(found.sequences[:, len(given) :], ends).sum())
        whole = found.sequences[:, : len(given) + spoken]
        vetoed = bool(found.vetoed[0])
        if vetoed:
            # Nothing of the refusal came from the model, so its probabilities say nothing of it.
            confidence, measure = None, ""
        elif found.confidence is not None:
            confidence, measure = float(found.confidence[0]), "probes"
        else:
            logits = model(input_ids=whole, use_cache=False).logits[0, len(given) - 1 : -1].float()
            confidence = float(logits.softmax(-1).amax(-1).mean()) if len(logits) else None
            measure = "max softmax" if len(logits) else ""
        return Said(
            phase=phase,
            prompt=prompt,
            form=form,
            answer=found.texts[0],
            confidence=confidence,
            measure=measure,
            vetoed=vetoed,
            abstains=bool(found.abstained[0]) if found.abstained is not None else False,
            stale=tuple(speaker.stale()),
            experts=experts_used(model, whole[0].tolist()),
        )


def with_separator(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """A text as training and evaluation show it: behind the token that separates documents."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return ids if first is None else [int(first), *ids]


def experts_used(model: PreTrainedModel, ids: Sequence[int]) -> dict[int, dict[int, float]]:
    """Share of the tokens that each expert gets, by layer, the busiest first; empty for a dense model."""
    from ...evals.recording import count_routes
    from ..model.parameters import routers_of

    routers = routers_of(model)
    if not routers:
        return {}
    counts = count_routes(model, routers, [list(ids)], prefix=None, batch_size=1)[0]  # shape: (L, E)
    used = {}
    for (_, layer, _), row in zip(routers, counts, strict=True):
        order = sorted(range(len(row)), key=lambda expert: (-row[expert], expert))
        used[layer] = {expert: round(float(row[expert] / row.sum()), 4) for expert in order if row[expert]}
    return used

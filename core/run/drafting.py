"""The step that distils a draft model: the target speaks, a small network learns what it says, and goes with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...registry.errors import ConfigError
from ...registry.options import parse
from ..config.objectives import DraftOptions
from .draft_samples import SHORTEST, Sampling, learnt, rows_of
from .seeds import derive, seed_everything
from .step import StepOrder, StepResult, Workshop, run_trainer, step_hook

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..config.schema import StepSection
    from ..model.drafter import DrafterForCausalLM
    from .plan import Plan


def train_draft(shop: Workshop, order: StepOrder, model: PreTrainedModel) -> StepResult:
    """Distil a draft model from ``model`` and attach it; the model's weights keep their bits.

    Samples and training streams follow from ``order.identity``; the samples are kept in ``order.folder``, so that a
    step that was killed goes on from the same ones. Raises ``Interrupted`` after a signal, with a complete checkpoint
    on disk once training began; ``ConfigError`` for a draft from ``options.path`` that does not fit the target.
    """
    from ...evals.undisturbed import undisturbed
    from ..model.companions import attach
    from ..model.draft import Draft, vocabulary_of
    from ..training.checkpoint import StopCallback
    from ..training.hooks import attach_all
    from ..training.job import StepJob, build_trainer

    section, label = order.section, f"phases.{order.phase}.steps.{order.name}"
    options = _options(section, label)
    started = time.perf_counter()
    seed = derive(order.identity, order.name, "train")
    model.to(_device())
    network = _begin(shop, order, model, options, label)
    with undisturbed(model, seed=derive(order.identity, order.name, "samples")):
        model.eval()
        sampling = Sampling(shop=shop, order=order, model=model, options=options, label=label)
        samples, notes = sampling.samples()
        pairs = [*learnt(samples), *sampling.dialogues()]
        rows = rows_of(pairs, section, section.sequence_length or shop.length, (order.identity, order.name))
        seed_everything(seed)
        stop = StopCallback(shop.interruption.event)
        tokens = section.steps * section.rows * (section.sequence_length or shop.length)
        job = StepJob(
            objective=section.objective,
            model=network,
            tokenizer=shop.tokenizer,
            train=rows,
            heldout=None,
            replay=None,
            section=section,
            losses=(),
            domains=shop.corpus.domains,
            seed=seed,
            folder=order.folder,
            reference=model,
            logging_steps=shop.experiment.run.logging_steps,
            save_steps=max(1, round(section.steps * shop.experiment.run.save_every)),
            callbacks=(
                *shop.callbacks(order.name, tokens / section.steps),
                stop,
                *step_hook(shop, order),
            ),
            precision=shop.experiment.precision,
        )
        trainer = build_trainer(job)
        attach_all(job.callbacks, trainer)
        history = run_trainer(shop, order, trainer, stop)
    draft = Draft(
        network=network.eval(),
        trunk="",
        vocabulary=vocabulary_of(shop.tokenizer),
        proposals=options.proposals,
        facts={"phase": order.phase, "samples": len(samples), "step": order.name, "steps": section.steps},
    )
    attach(model, "draft", draft.of(model))
    return StepResult(
        history=history, tokens=tokens, seconds=time.perf_counter() - started, bump=None, notes=tuple(notes)
    )


def check_draft(plan: Plan, label: str, section: StepSection) -> None:
    """Refuse, before anything is trained, a draft with another vocabulary, prompts that are none, and what the step
    would not read."""
    options = _options(section, label)
    for name, given in (("losses", section.losses), ("replay", section.replay.rows or section.replay.share)):
        if given:
            raise ConfigError(f"{label}.{name} has no effect in a draft step, which trains no router; remove it.")
    length = section.sequence_length or plan.experiment.data.sequence_length or 0
    if options.sample_tokens + SHORTEST > length:
        raise ConfigError(
            f"{label} draws samples of {options.sample_tokens} tokens, which leaves no prompt in rows of {length}; "
            "lower options.sample_tokens or raise sequence_length."
        )
    needed = {"prompt"} if section.view != "text" and options.text < 1 else set()
    needed |= {"completion"} if options.dialogues else set()
    if needed and (missing := needed - set(plan.corpus.rows(section.view, "train", section.kinds).column_names)):
        raise ConfigError(
            f"{label} needs a view with {' and '.join(sorted(missing))}, which '{section.view}' does not have; set "
            "view: chat, or learn from text alone (view: text without options.dialogues)."
        )
    if options.path is None:
        return
    from ..model.draft import draft_facts, same_vocabulary, vocabulary_of
    from ..model.tokenizer import make_tokenizer
    from .tokenizing import words_of

    what, facts = f"{label}.options.path: the draft model in '{options.path}'", draft_facts(options.path)
    tokenizer = plan.experiment.tokenizer
    size, own = int(facts["shape"]["vocab_size"]), tokenizer.vocab_size or 0
    same_vocabulary(what, (size, own))
    # The digest is told only by the tokenizer itself, which the run would train on these very texts.
    made = make_tokenizer(tokenizer, words_of(plan.corpus, tokenizer.documents), own)
    same_vocabulary(what, (size, own), (str(facts["vocabulary"]), vocabulary_of(made)))


def _options(section: StepSection, label: str) -> DraftOptions:
    options: DraftOptions = parse(DraftOptions, section.options, f"{label} (draft)")
    return options


def _device() -> Any:
    """Where the trainer will put its model."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _begin(
    shop: Workshop, order: StepOrder, model: PreTrainedModel, options: DraftOptions, label: str
) -> DrafterForCausalLM:
    """The network that training starts from: that of ``options.path``, the model's own of the same size, a new one."""
    from ..model.companions import companions_of
    from ..model.draft import Draft, draft_facts, draft_tensors, same_vocabulary, vocabulary_of
    from ..model.draft_start import DraftShape, build_draft

    if options.path is not None:
        facts, tensors = draft_facts(options.path), draft_tensors(options.path)
        what = f"{label}.options.path: the draft model in '{options.path}'"
        sizes = (int(facts["shape"]["vocab_size"]), model.get_input_embeddings().num_embeddings)
        same_vocabulary(what, sizes, (str(facts["vocabulary"]), vocabulary_of(shop.tokenizer)))
        return Draft.restore(facts, tensors, model, shop.registry).network
    shape = DraftShape(
        hidden_size=options.hidden_size,
        layers=options.layers,
        heads=options.heads,
        intermediate_size=options.intermediate_size,
    )
    fresh = build_draft(model, shape, derive(order.identity, order.name, "network"))
    known = companions_of(model).get("draft")
    if known is not None and _form(known.network) == _form(fresh):
        fresh.load_state_dict(known.network.state_dict())
    return fresh


def _form(network: DrafterForCausalLM) -> Mapping[str, Any]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}

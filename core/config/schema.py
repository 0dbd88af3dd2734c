"""The experiment as typed, frozen dataclasses: what a YAML file may say, and nothing else.

A *reference* names a component and carries its options inline: ``router: linear`` or
``router: {use: linear, gate: softmax}``. Options are checked against the component's own
config dataclass when the plan is made, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["advance", "extend", "rollback", "stop"]
Objective = Literal[
    "causal", "sft", "dpo", "contrast", "probes", "anchor", "draft", "distill", "upcycle", "grow", "reroute"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A component by name, with its options."""

    use: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight schedule: ``start`` falls (or rises) to ``end`` over the first ``over`` of a step, by half a cosine."""

    start: float
    end: float
    over: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSection:
    """A loss term: a loss component, its weight schedule and its options."""

    use: str
    weight: Weight | float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionSection:
    """One inequality of a gate: a metric that a gate component measures, a bound, a baseline, a confidence.

    ``metric`` may hold ``*``; the criterion then holds only if every matching metric passes
    (``skip`` lists exceptions). ``against`` names a stage (``foundation``, ``alignment/sft``);
    ``statistic`` is then the paired ``difference`` or the ``win_rate`` over the same documents.
    ``paper`` is the published bound, shown beside the one that is used.
    """

    use: str
    metric: str
    skip: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    statistic: Literal["value", "difference", "win_rate"] = "value"
    against: str | None = None
    confidence: float = 0.95
    documents: int | None = None
    paper: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSection:
    """How rows are drawn: ``uniform`` keeps the mixture in every batch; ``concentrated`` gives each batch one
    primary batch type with share ``primary`` and the general mixture for the rest."""

    kind: Literal["uniform", "concentrated"] = "uniform"
    mixture: Mapping[str, float] = field(default_factory=dict)
    primary: float = 0.7
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    type_shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySection:
    """Replay of earlier phases' data. In a causal step ``share`` of the rows are replayed; in sft and dpo steps
    ``rows`` replayed rows are added to every batch as a loss of their own with ``weight``
    (text and chat rows in proportion ``chat``; dialogues of the named ``views`` only, of all if none is named), cut at
    ``sequence_length`` (that of the step if not given); ``routing: replayed`` shows loss terms and router statistics
    these rows alone, so that a term which holds the routing of text is not traded
    against that of dialogue."""

    share: float = 0.0
    rows: int = 0
    weight: float = 0.0
    chat: float = 0.0
    views: tuple[str, ...] = ()
    routing: Literal["all", "replayed"] = "all"
    sequence_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSection:
    """How rotary positions are stretched before a step trains: to ``factor`` times the length that the model was first
    built for, by ``ntk`` (base scaled by factor^(d/(d-2))), ``abf`` (base set to ``theta``), ``yarn`` or ``linear``.
    ``factor`` counts from the first length, not from the step before."""

    rope: Literal["keep", "ntk", "abf", "yarn", "linear"] = "keep"
    factor: float = 1.0
    theta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerSection:
    """A quantizer that comes over the experts while a step trains: at the shares of the step in ``events`` the shares
    of the weights in ``shares`` are quantized, the last of which is all of them.

    ``order`` says which come first: the ``largest`` of every matrix, the ``smallest``, or none (``soft``: all of them,
    blended in from the first event to the last). ``freeze`` gives latent weights no gradient once they are quantized.
    """

    use: str
    events: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    shares: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    order: Literal["largest", "smallest", "soft"] = "largest"
    freeze: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshSection:
    """What a step trains instead of the model of the step before: a new one, built as the experiment says but for a
    ``mixer``, a ``router`` or ``options`` of its own. A twin to compare with, or the first model after such a twin."""

    mixer: Ref | None = None
    router: Ref | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSection:
    """One step inside a phase: objective, data view, schedule, trainable set, loss terms.

    ``causal``, ``sft``, ``dpo``, ``contrast`` and ``distill`` train the model. ``probes`` fits confidence probes on its
    frozen hidden states, ``anchor`` captures a safety anchor, ``draft`` distils a draft model: these add to the model
    what travels with it and leave its weights as they are. ``upcycle`` makes an MoE of a dense model, ``grow`` gives it
    more experts, ``reroute`` the router that it names. ``kinds`` keeps only rows of these kinds of the view.
    """

    objective: Objective = "causal"
    view: str = "text"
    kinds: tuple[str, ...] = ()
    steps: int = 100
    rows: int = 16
    accumulate: int = 1
    sequence_length: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.02
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    decay_from: float = 0.0
    floor: float = 0.1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    learning_rate_scale: Mapping[str, float] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    losses: Mapping[str, LossSection] = field(default_factory=dict)
    batches: BatchSection = field(default_factory=BatchSection)
    replay: ReplaySection = field(default_factory=ReplaySection)
    context: ContextSection = field(default_factory=ContextSection)
    anchor: Ref | None = None
    router: Ref | None = None
    quantizer: QuantizerSection | None = None
    fresh: FreshSection | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    activation_checkpointing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySection:
    """What a verdict leads to: ``extend`` repeats at most ``extensions`` times, each for ``extend_by`` of the
    phase's steps; when they are used up, ``then`` decides."""

    on_fail: Verdict = "extend"
    on_undecided: Verdict = "advance"
    extensions: int = 1
    extend_by: float = 0.25
    then: Verdict = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class BumpSection:
    """The transition bump: how often (share of the phase) and on how many rows the old validation loss is read."""

    every: float = 0.02
    rows: int = 32
    tolerance: float = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSection:
    """A phase: its component, steps, entry and completion criteria, policy and transition settings.

    With ``recipe`` the component's defaults lie under what is said here; a complete experiment has taken them and
    says false.
    """

    use: str = ""
    recipe: bool = True
    steps: Mapping[str, StepSection] = field(default_factory=dict)
    entry: Mapping[str, CriterionSection] = field(default_factory=dict)
    gates: Mapping[str, CriterionSection] = field(default_factory=dict)
    policy: PolicySection = field(default_factory=PolicySection)
    bump: BumpSection = field(default_factory=BumpSection)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSection:
    """A byte-level BPE tokenizer trained on the experiment's text, or an existing one from ``path``."""

    vocab_size: int | None = None
    path: str | None = None
    documents: int = 20_000
    chat_template: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """Named sources, the root that their relative paths start from, and how text is cut."""

    root: str | None = None
    sources: Mapping[str, Ref] = field(default_factory=dict)
    sequence_length: int | None = None
    held_out: float = 0.05
    contamination_ngram: int = 13
    rows_per_domain: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    """The model component, its router, token mixer and quantizer, and its options; what is not said follows from
    ``size``. With a ``quantizer`` the experts are quantized from the first step on."""

    use: str = "moe"
    router: Ref = field(default_factory=lambda: Ref(use="linear"))
    mixer: Ref = field(default_factory=lambda: Ref(use="attention"))
    quantizer: Ref | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSection:
    """How the run is carried out; nothing here changes the trained bits.

    ``report_to`` names trackers as transformers calls them (``tensorboard``, ``wandb``, …), which then get what is
    logged.
    """

    logging_steps: int = 20
    save_every: float = 0.25
    threads: int | None = None
    eval_batch_size: int = 64
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareSection:
    """What a plan assumes when it states hours and cost: a device by name, how many, the share of its peak that
    training reaches, and the price of one device for one hour in US dollars."""

    device: str = "h100"
    devices: int = 1
    utilization: float = 0.4
    price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSection:
    """A metric that a gate component measures, without a bound."""

    use: str
    metric: str
    documents: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSection:
    """A number that a study gives every run: the mean of metrics ``of`` the model that the run ends with.

    ``relative`` divides each metric by its best over the study before the mean is taken. ``refit`` names a probes step
    as ``phase/step``, which is carried out on that model first.
    """

    of: Mapping[str, MetricSection] = field(default_factory=dict)
    direction: Literal["maximize", "minimize"] = "maximize"
    relative: bool = False
    refit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySection:
    """What ``platform study`` varies and how it judges; nothing here changes what a run of the experiment trains.

    ``space`` names a search space. ``objectives`` are the scores that a sampler optimises (the first score if none is
    named). ``set`` holds overrides for every run of the study, as dotted keys. With ``gates: warn`` no gate stops or
    extends a phase, so that every run sees the same tokens; with ``enforce`` a run that a gate stops is pruned.
    ``sampler: auto`` runs listed rows and up to 60 orders exhaustively, and chooses by precedence among more of them,
    or by a Gaussian process among parameters.
    """

    space: Ref = field(default_factory=lambda: Ref(use="orders"))
    scores: Mapping[str, ScoreSection] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    sampler: Literal["auto", "exhaustive", "precedence", "gp", "tpe", "nsga2", "random"] = "auto"
    trials: int | None = None
    gates: Literal["warn", "enforce"] = "warn"
    prune: Literal["never", "median"] = "never"
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment file, complete."""

    name: str
    seed: int = 0
    size: str = "nano"
    plugins: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    precision: Literal["fp32", "bf16"] = "fp32"
    model: ModelSection = field(default_factory=ModelSection)
    tokenizer: TokenizerSection = field(default_factory=TokenizerSection)
    data: DataSection = field(default_factory=DataSection)
    phases: Mapping[str, PhaseSection] = field(default_factory=dict)
    order: str | None = None
    run: RunSection = field(default_factory=RunSection)
    hardware: HardwareSection = field(default_factory=HardwareSection)
    study: StudySection = field(default_factory=StudySection)

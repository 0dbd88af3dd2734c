"""What a report on a run states, as data; every rendering shows the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...evals.criteria import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A judgement of a phase, at its entry or its completion, with the published bound beside its own."""

    phase: str
    at: str
    judgement: Judgement
    paper: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFacts:
    """A finished phase: its stage, what was decided, and what it took.

    ``memory`` is the peak of the resident set in bytes, since the start of the phase or of the process, where it was
    recorded."""

    name: str
    stage: str
    digest: str
    parent: str | None
    created: str
    seed: int | None
    reused: bool
    action: str
    reason: str
    outcome: str
    tokens: int | None
    seconds: float | None
    memory: int | None
    memory_since: str
    device_memory: int | None
    attempts: tuple[tuple[str, Mapping[str, int]], ...]
    data: str
    components: Mapping[str, int]
    libraries: Mapping[str, str]

    @property
    def steps(self) -> int:
        """Optimiser steps of all attempts."""
        return sum(sum(steps.values()) for _, steps in self.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change since the phase ``since``; bounds cover 95 % on both sides together and are None without documents in
    common. ``resolved`` says that they leave out 0."""

    since: str
    value: float
    low: float | None
    high: float | None
    resolved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A metric after a phase, between one-sided bounds at 95 %; ``missing`` says why there is none."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    chance: float | None = None
    missing: str | None = None
    change: Change | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """A metric after every phase (None: not measured); ``higher`` says whether more is better, where a criterion tells.

    ``judged`` metrics are named by a criterion of the run."""

    gate: str
    key: str
    metric: str
    label: str
    higher: bool | None
    judged: bool
    values: tuple[Value | None, ...]

    @property
    def name(self) -> str:
        """The gate with its metric, as people read it."""
        return f"{self.gate} · {self.metric}{f' ({self.label})' if self.label else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPart:
    """The losses of one step of one attempt; ``start`` is its first optimiser step in the whole curriculum."""

    phase: str
    attempt: int
    step: str
    start: int
    steps: int
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BumpFacts:
    """What a step of a phase did to the held-out loss of the phase before (nats per token), over optimiser steps of the
    curriculum from ``start``; ``recovery`` is a share of the step, None where it did not recover."""

    phase: str
    attempt: int
    step: str
    start: int
    before: float
    height: float | None
    recovery: float | None
    series: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingFacts:
    """Who routes what after a phase: shares of each domain's tokens, shape (layers, domains, experts); load, shape
    (layers, experts); the owning domain of each expert by layer (None: no token), and entropy in nats by layer and
    domain."""

    phase: str
    domains: tuple[str, ...]
    shares: tuple[tuple[tuple[float, ...], ...], ...]
    load: tuple[tuple[float, ...], ...]
    owners: tuple[tuple[str | None, ...], ...]
    entropy: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFacts:
    """How far a phase moved the weights, relative to their size: all together and by role."""

    phase: str
    relative: float | None
    changed: int
    tensors: int
    roles: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Answers of about equal confidence: how many, how confident on average, and what share of them is right."""

    n: int
    confidence: float
    right: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Confident:
    """One measure of confidence: its name, calibration error, bins, area under the risk-coverage curve, the curve."""

    name: str
    ece: Value | None
    bins: tuple[Bin, ...]
    aurc: Value | None
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceFacts:
    """What the model knows of its own answers after a phase; ``stale`` probes were fitted to other weights."""

    phase: str
    questions: int
    stale: bool
    measures: tuple[Confident, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TradePoint:
    """A safety phase at one weight of over-refusal (None: the run itself, after ``phase``): what it refused and what it
    let through."""

    phase: str
    beta: float | None
    over_refusal: Value
    compliance: Value
    front: bool
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeFacts:
    """The safety-helpfulness frontier of a phase; without ``source`` there is only the run's own point."""

    phase: str
    source: str | None
    points: tuple[TradePoint, ...]
    area: Value | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablated:
    """The model without one expert in any layer: change of its score on average and by domain; negative is harm."""

    expert: int
    owner: str | None
    mean: Value
    most: str
    clear: bool
    drop: float
    domains: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationFacts:
    """What the model loses without each expert (masked and re-routed), and whether its owner loses most."""

    phase: str
    unit: str
    tokens: int
    documents: int
    hits: int
    n: int
    chance: float
    rows: tuple[Ablated, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkFacts:
    """A metric of a benchmark after every phase (None: not evaluated, with the reasons in ``missing`` where known)."""

    task: str
    settings: str
    metric: str
    documents: str
    values: tuple[Value | None, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Everything that a report on a run states; values by phase are in the order of ``phases``."""

    experiment: str
    run: str
    planned: tuple[str, ...]
    mode: str
    drift: bool
    parameters: Mapping[str, int]
    phases: tuple[PhaseFacts, ...]
    gates: tuple[Gate, ...]
    capabilities: tuple[Capability, ...]
    losses: tuple[LossPart, ...]
    bumps: tuple[BumpFacts, ...]
    routing: tuple[RoutingFacts, ...]
    weights: tuple[WeightFacts, ...]
    confidence: tuple[ConfidenceFacts, ...]
    trade: TradeFacts | None
    ablation: AblationFacts | None
    benchmarks: tuple[BenchmarkFacts, ...]
    distributions: Mapping[str, str]
    text: str

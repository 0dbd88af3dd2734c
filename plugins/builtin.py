"""The built-in components, registered exactly like those of any other package."""

from __future__ import annotations

from collections.abc import Iterable

from ..registry.components import (
    AnchorSpec,
    Component,
    GateSpec,
    LossSpec,
    MixerSpec,
    ModelSpec,
    PhaseSpec,
    QuantizerSpec,
    RouterSpec,
    SearchSpaceSpec,
    SourceSpec,
)
from ..registry.hookspecs import hookimpl

_HERE = __name__.rpartition(".")[0]


def _at(path: str) -> str:
    return f"{_HERE}.{path}"


@hookimpl
def phasegate_components() -> Iterable[Component]:
    """Yield every component that ships with the platform."""
    yield PhaseSpec(
        name="foundation",
        target=_at("phases.foundation:Foundation"),
        config=_at("phases.foundation:FoundationConfig"),
        summary="Learns language and facts from all domains until the loss is flat and every expert is used.",
        provides=("knowledge",),
        cost_driver="GPU hours",
    )
    yield PhaseSpec(
        name="specialization",
        target=_at("phases.specialization:Specialization"),
        config=_at("phases.specialization:SpecializationConfig"),
        summary="Makes experts specialise by domain without giving up what all of them know.",
        requires=("knowledge",),
        provides=("specialists",),
        cost_driver="compute",
    )
    yield PhaseSpec(
        name="alignment",
        target=_at("phases.alignment:Alignment"),
        config=_at("phases.alignment:AlignmentConfig"),
        summary="Teaches dialogue by SFT and preferences by DPO, with replay against forgetting.",
        requires=("knowledge",),
        provides=("dialogue",),
        cost_driver="annotation",
    )
    yield PhaseSpec(
        name="safety",
        target=_at("phases.safety:Safety"),
        config=_at("phases.safety:SafetyConfig"),
        summary="Teaches to refuse what is harmful and to answer everything that only looks like it.",
        requires=("dialogue",),
        provides=("refusals",),
        cost_driver="red-team",
    )
    yield PhaseSpec(
        name="metacognition",
        target=_at("phases.metacognition:Metacognition"),
        config=_at("phases.metacognition:MetacognitionConfig"),
        summary="Fits probes that say how sure the model is and withhold what it does not know.",
        requires=("dialogue",),
        provides=("confidence",),
        cost_driver="expert verification",
    )
    yield PhaseSpec(
        name="optimization",
        target=_at("phases.optimization:Optimization"),
        config=_at("phases.optimization:OptimizationConfig"),
        summary="Lengthens the context, refits what travels with the model, distils a draft, and ablates every expert.",
        requires=("dialogue",),
        provides=("long-context", "draft"),
        revision=2,
        cost_driver="long-context curation",
    )
    yield PhaseSpec(
        name="dense-seed",
        target=_at("phases.dense_seed:DenseSeed"),
        config=_at("phases.dense_seed:DenseSeedConfig"),
        summary="Pretrains a dense model to clone experts from, beside a twin with attention to compare with.",
        provides=("knowledge", "seed"),
        cost_driver="GPU hours",
    )
    yield PhaseSpec(
        name="expert-initialization",
        target=_at("phases.expert_initialization:ExpertInitialization"),
        config=_at("phases.expert_initialization:ExpertInitializationConfig"),
        summary="Clones the seed's FFNs into experts without changing what it computes, then breaks their symmetry.",
        requires=("seed",),
        provides=("experts",),
        cost_driver="compute",
    )
    yield PhaseSpec(
        name="expert-differentiation",
        target=_at("phases.expert_differentiation:ExpertDifferentiation"),
        config=_at("phases.expert_differentiation:ExpertDifferentiationConfig"),
        summary="Trains clones into different experts behind a top-1 router, with an even load.",
        requires=("experts",),
        provides=("specialists",),
        cost_driver="GPU hours",
    )
    yield PhaseSpec(
        name="ternary-distillation",
        target=_at("phases.ternary_distillation:TernaryDistillation"),
        config=_at("phases.ternary_distillation:TernaryDistillationConfig"),
        summary="Makes experts ternary by and by while they learn from the full-precision model.",
        requires=("experts",),
        provides=("ternary",),
        cost_driver="GPU hours",
    )
    yield PhaseSpec(
        name="manifold-alignment",
        target=_at("phases.manifold_alignment:ManifoldAlignment"),
        config=_at("phases.manifold_alignment:ManifoldAlignmentConfig"),
        summary="Replaces the router of frozen experts by one on a torus and trains it alone.",
        requires=("experts",),
        provides=("manifold",),
        cost_driver="compute",
    )
    yield RouterSpec(
        name="linear",
        target=_at("routers.linear:LinearRouter"),
        config=_at("routers.options:LinearRouterConfig"),
        summary="A linear gate that sends each token to its top-k experts.",
    )
    yield RouterSpec(
        name="torus",
        target=_at("routers.torus:TorusRouter"),
        config=_at("routers.options:TorusRouterConfig"),
        summary="Experts as points on a flat torus: each token goes to the nearest to where it is projected.",
    )
    yield MixerSpec(
        name="attention",
        target=_at("mixers.attention:attention"),
        config=_at("mixers.options:AttentionConfig"),
        summary="The library's attention, as the layer was built with it.",
    )
    yield MixerSpec(
        name="pdr",
        target=_at("mixers.pdr:Pdr"),
        config=_at("mixers.options:PdrConfig"),
        cache="linear_attention",
        summary="Perspective decay recurrence: a gated linear recurrence with one state per layer and no window.",
    )
    yield QuantizerSpec(
        name="ternary",
        target=_at("quantizers.ternary:Ternary"),
        config=_at("quantizers.options:TernaryConfig"),
        summary="Weights of -1, 0 and 1 times a scale per row or matrix.",
    )
    yield LossSpec(
        name="balance",
        target=_at("losses.balance:Balance"),
        config=_at("losses.options:BalanceConfig"),
        summary="Pulls expert load towards uniform over a window as wide as the global batch.",
    )
    yield LossSpec(
        name="z",
        target=_at("losses.z:RouterZ"),
        config=_at("losses.options:RouterZConfig"),
        summary="Keeps router logits small: the squared log-sum-exp.",
    )
    yield LossSpec(
        name="loss-free-bias",
        target=_at("losses.loss_free_bias:LossFreeBias"),
        config=_at("losses.options:LossFreeBiasConfig"),
        summary="Balances load without a gradient, by a bias that only changes which experts are selected.",
    )
    yield LossSpec(
        name="load-variance",
        target=_at("losses.load_variance:LoadVariance"),
        config=_at("losses.options:LoadVarianceConfig"),
        summary="Squared coefficient of variation of the load, with a gradient through the probabilities.",
    )
    yield LossSpec(
        name="diversity",
        target=_at("losses.diversity:Diversity"),
        config=_at("losses.options:DiversityConfig"),
        summary="Moves experts apart: the cosine of what each has changed since it was cloned.",
    )
    yield LossSpec(
        name="expert-delta",
        target=_at("losses.expert_delta:ExpertDelta"),
        config=_at("losses.options:ExpertDeltaConfig"),
        summary="Makes neighbours on the torus of experts that differ little, or neighbours alike.",
    )
    yield LossSpec(
        name="smooth",
        target=_at("losses.smooth:Smooth"),
        config=_at("losses.options:SmoothConfig"),
        summary="Keeps consecutive tokens close on the torus.",
    )
    yield LossSpec(
        name="fold",
        target=_at("losses.fold:Fold"),
        config=_at("losses.options:FoldConfig"),
        summary="Moves each expert to the middle of its tokens, and holds it near where it began.",
    )
    yield LossSpec(
        name="imitation",
        target=_at("losses.imitation:Imitation"),
        config=_at("losses.options:ImitationConfig"),
        summary="Teaches a new router the choices of the one that the phase began with.",
    )
    yield LossSpec(
        name="anchor",
        target=_at("losses.anchor:AnchorPenalty"),
        config=_at("losses.options:AnchorLossConfig"),
        summary="Keeps the model's safety anchor seeing what it saw when it was captured.",
    )
    yield AnchorSpec(
        name="half-space",
        target=_at("anchors.half_space:HalfSpace"),
        config=_at("anchors.options:HalfSpaceConfig"),
        summary="A linear monitor on the final hidden state, with a promised share of false positives.",
    )
    yield LossSpec(
        name="domain-entropy",
        target=_at("losses.domain_entropy:DomainEntropy"),
        config=_at("losses.options:DomainEntropyConfig"),
        summary="Narrows the experts that each domain uses towards a target entropy.",
    )
    yield LossSpec(
        name="harm-avoidance",
        target=_at("losses.harm_avoidance:HarmAvoidance"),
        config=_at("losses.options:HarmAvoidanceConfig"),
        summary="Makes safe answers to harmful prompts likely, and compliance unlikely.",
        objectives=("contrast",),
    )
    yield LossSpec(
        name="over-refusal",
        target=_at("losses.over_refusal:OverRefusal"),
        config=_at("losses.options:OverRefusalConfig"),
        summary="Makes help likelier than a refusal, by a margin, where a prompt is legitimate.",
        objectives=("contrast",),
    )
    yield LossSpec(
        name="domain-helpfulness",
        target=_at("losses.domain_helpfulness:DomainHelpfulness"),
        config=_at("losses.options:DomainHelpfulnessConfig"),
        summary="Keeps the answers to professional questions likely.",
        objectives=("contrast",),
    )
    yield ModelSpec(
        name="moe",
        target=_at("models.moe:MoeBuilder"),
        config=_at("models.moe:MoeConfig"),
        summary="The platform's own MoE language model, with a pluggable router.",
    )
    yield ModelSpec(
        name="stock",
        target=_at("models.stock:StockBuilder"),
        config=_at("models.stock:StockConfig"),
        summary="An MoE of the transformers library: Mixtral, OLMoE, Qwen3-MoE.",
    )
    yield SourceSpec(
        name="microworld",
        target=_at("sources.microworld:Microworld"),
        config=_at("sources.microworld:MicroworldConfig"),
        summary="A generated closed world of seven domains whose truth is known.",
        views=("text", "chat", "preference", "choice", "refusal", "unknown", "needle"),
    )
    yield SourceSpec(
        name="files",
        target=_at("sources.files:Files"),
        config=_at("sources.files:FilesConfig"),
        summary="Local files: text, JSON lines, CSV and Parquet, also compressed.",
        views=("text", "chat", "preference", "choice", "refusal", "unknown", "needle"),
    )
    yield SourceSpec(
        name="hub",
        target=_at("sources.hub:Hub"),
        config=_at("sources.hub:HubConfig"),
        summary="Any data set that the datasets library can load, streamed where wanted.",
        views=("text", "chat", "preference", "choice", "refusal", "unknown", "needle"),
    )
    yield GateSpec(
        name="anchor",
        target=_at("gates.anchor:AnchorGate"),
        config=_at("gates.anchor:AnchorGateConfig"),
        summary="What the safety anchor finds on held-out prompts, what it stops wrongly, and what is said with it.",
        metrics=(
            "detected",
            "detected/*",
            "false_positive_rate",
            "false_positive_rate/*",
            "auroc",
            "auroc/*",
            "blocked",
            "refused_guarded",
            "answered_guarded",
            "answered_guarded/*",
        ),
    )
    yield GateSpec(
        name="choice",
        target=_at("gates.choice:ChoiceGate"),
        config=_at("gates.choice:ChoiceConfig"),
        summary="Accuracy on multiple-choice questions, overall and by domain.",
        metrics=("acc", "acc/*", "acc_norm", "brier"),
    )
    yield GateSpec(
        name="format",
        target=_at("gates.format:FormatGate"),
        config=_at("gates.format:FormatConfig"),
        summary="Share of sampled answers that keep the format the instruction asks for.",
        metrics=("acc", "acc/*"),
    )
    yield GateSpec(
        name="perplexity",
        target=_at("gates.perplexity:PerplexityGate"),
        config=_at("gates.perplexity:PerplexityConfig"),
        summary="Perplexity on held-out text, overall and by domain.",
        metrics=("nll", "nll/*", "bits_per_byte", "perplexity", "perplexity/*"),
        higher_is_better=False,
    )
    yield GateSpec(
        name="preference",
        target=_at("gates.preference:PreferenceGate"),
        config=_at("gates.preference:PreferenceConfig"),
        summary="How far held-out chosen answers are preferred to rejected ones.",
        metrics=("margin", "margin/*", "acc", "acc/*"),
    )
    yield GateSpec(
        name="judge",
        target=_at("gates.judge:JudgeGate"),
        config=_at("gates.judge:JudgeConfig"),
        summary="Sampled answers judged against the known truth.",
        metrics=("score", "score/*"),
    )
    yield GateSpec(
        name="needle",
        target=_at("gates.needle:NeedleGate"),
        config=_at("gates.needle:NeedleConfig"),
        summary="Share of pass keys found in long documents, by length and depth.",
        metrics=("acc", "acc/*"),
    )
    yield GateSpec(
        name="refusal",
        target=_at("gates.refusal:RefusalGate"),
        config=_at("gates.refusal:RefusalConfig"),
        summary="Harmful prompts refused and all others answered, judged from both sides.",
        metrics=("refused/*", "complied/*", "answered", "answered/*", "over_refused", "balanced"),
    )
    yield GateSpec(
        name="routing",
        target=_at("gates.routing:RoutingGate"),
        config=_at("gates.routing:RoutingConfig"),
        summary="Expert load, routing entropy by domain, dead experts, and what routing tells of the domain.",
        metrics=(
            "load_min",
            "load_max",
            "load_mean_min",
            "load_mean_max",
            "entropy/*",
            "entropy_mean",
            "top2/*",
            "mutual_information",
            "dead",
            "gini",
            "gini_max",
        ),
    )
    yield GateSpec(
        name="ablation",
        target=_at("gates.ablation:AblationGate"),
        config=_at("gates.ablation:AblationConfig"),
        summary="What each expert is worth: the loss of held-out text without it, by domain, beside who owns it.",
        metrics=("match", "match_experts", "least_harm", "least_harm_single", "harm/*"),
    )
    yield GateSpec(
        name="calibration",
        target=_at("gates.calibration:CalibrationGate"),
        config=_at("gates.calibration:CalibrationConfig"),
        summary="Calibration and abstention of the confidence probes on held-out questions, beside max-softmax.",
        metrics=(
            "accuracy_answered",
            "aurc",
            "aurc_gain",
            "aurc_logprob",
            "aurc_softmax",
            "auroc",
            "auroc/*",
            "auroc_gain",
            "auroc_logprob",
            "auroc_softmax",
            "brier",
            "confident_wrong",
            "confident_wrong/*",
            "coverage",
            "coverage_right",
            "e_aurc",
            "ece",
            "ece_inverted",
            "ece_raw",
            "justified",
        ),
    )
    yield GateSpec(
        name="draft",
        target=_at("gates.draft:DraftGate"),
        config=_at("gates.draft:DraftConfig"),
        summary="What a draft model saves: wall clock with and without it, accepted proposals, unchanged answers.",
        metrics=(
            "acceptance",
            "alpha",
            "identical",
            "predicted_speedup",
            "speedup",
            "speedup/*",
            "tokens_per_step",
        ),
    )
    yield GateSpec(
        name="experts",
        target=_at("gates.experts:ExpertsGate"),
        config=_at("gates.experts:ExpertsConfig"),
        summary="How far experts are apart in their weights, and what quantizing does to them.",
        metrics=("similarity", "density", "density_all", "zeros", "error"),
        higher_is_better=False,
    )
    yield GateSpec(
        name="logged",
        target=_at("gates.logged:LoggedGate"),
        config=_at("gates.logged:LoggedConfig"),
        summary="A value of the training log: its last, its mean, its extremes.",
        metrics=("last", "mean", "max", "min"),
        higher_is_better=False,
    )
    yield GateSpec(
        name="recurrence",
        target=_at("gates.recurrence:RecurrenceGate"),
        config=_at("gates.recurrence:RecurrenceConfig"),
        summary="How far a pass over a whole text differs from reading it token by token with a cache.",
        metrics=("max_difference",),
        higher_is_better=False,
    )
    yield GateSpec(
        name="torus",
        target=_at("gates.torus:TorusGate"),
        config=_at("gates.torus:TorusConfig"),
        summary="Where consecutive tokens go: the same expert, a neighbour, or far away.",
        metrics=("same", "one_hop", "two_hop", "far", "distance", "drift", "unreached"),
    )
    yield GateSpec(
        name="plateau",
        target=_at("gates.plateau:PlateauGate"),
        config=_at("gates.plateau:PlateauConfig"),
        summary="Whether the training loss is flat over a window.",
        metrics=("improvement", "slope", "loss"),
        higher_is_better=False,
    )
    yield GateSpec(
        name="benchmark",
        target=_at("gates.benchmark:BenchmarkGate"),
        config=_at("gates.benchmark:BenchmarkConfig"),
        summary="Tasks of lm-evaluation-harness on local copies of their data.",
    )
    yield SearchSpaceSpec(
        name="orders",
        target=_at("spaces.orders:Orders"),
        config=_at("spaces.orders:OrdersConfig"),
        summary="All orders of the phases, each after what it requires; or all that leave some out.",
    )
    yield SearchSpaceSpec(
        name="paper-ablation",
        target=_at("spaces.paper_ablation:PaperAblation"),
        config=_at("spaces.paper_ablation:PaperAblationConfig"),
        summary="The six orders of the paper's ablation table, and rows of one's own.",
    )
    yield SearchSpaceSpec(
        name="parameters",
        target=_at("spaces.parameters:Parameters"),
        config=_at("spaces.parameters:ParametersConfig"),
        summary="Any keys of the experiment: ranges of numbers, or choices.",
    )
    yield SearchSpaceSpec(
        name="rows",
        target=_at("spaces.rows:Rows"),
        config=_at("spaces.rows:RowsConfig"),
        summary="Orders and settings listed by name.",
    )

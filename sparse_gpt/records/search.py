"""search.json and rankings.json: how a circuit was searched, and what it has to be compared with.

Losses are task losses on held-out samples, each after a calibration fitted on selection samples, unless said otherwise.
"""

from typing import ClassVar

import msgspec

from sparse_gpt.errors import InputError
from sparse_gpt.records.base import Count, Fraction, Nats, Part, Plain, Record, Seconds, older
from sparse_gpt.records.circuit import Node, NodeEntry


class Trial(Part):
    """One of the searches that ran side by side: its hyperparameters, and its size at the target before refinement."""

    trial: Count | None = None
    """Its number, from 0."""
    seed: Count | None = None
    """Of the initial gates."""
    k_coef: float | None = None
    """Penalty of an open gate, nats; in a path search that of the first step."""
    learning_rate: float | None = None
    """Of AdamW."""
    weight_decay: float | None = None
    """Of AdamW."""
    beta2: float | None = None
    """Of AdamW."""
    warmup: float | None = None
    """Fraction of the steps over which the learning rate rises."""
    init_noise_scale: float | None = None
    """Standard deviation of the initial gates."""
    init_noise_bias: float | None = None
    """Mean of the initial gates."""
    heaviside_temp: float | None = None
    """Width of the surrogate gradient of a gate."""
    grad_clip: float | None = None
    """Largest global norm of the gradient."""
    start: str | None = None
    """What was open at first: everything (flat), or the first nodes of integrated gradients."""
    gates: str | None = None
    """Kind of its gates: heaviside or concrete."""
    open_nodes: Count | None = None
    """Open in the mask that the search returned, before its ranking was truncated."""
    feasible: bool | None = None
    """Whether that mask was at the target on selection samples (path search); of the paper's: whether any node is
    open."""
    nodes: Count | None = None
    """Size at the target."""
    edges: Count | None = None
    """Size at the target."""
    task_loss: Nats | None = None
    """At that size."""
    reached: bool | None = None
    """Whether the target was reached on selection samples."""


class HistoryPoint(Part):
    """One step of all searches; lists have an entry per trial."""

    step: Count
    """Optimization step, from 0."""
    loss: tuple[Nats | None, ...]
    """Task loss of the step's training batch."""
    open_nodes: tuple[Count | None, ...]
    """Open gates before the step."""


class CurvePoint(Part):
    """The first nodes of a ranking as a circuit."""

    nodes: Count
    """How many."""
    edges: Count
    """Nonzero weights between them."""
    task_loss: Nats
    """On held-out samples."""
    selection_task_loss: Nats | None = None
    """On selection samples, less what is allowed above the target; with prune.objective=match the divergence from the
    model's own answer."""
    ablated_task_loss: Nats | None = None
    """Of the model with these nodes ablated, uncalibrated."""


class TargetPoint(Part):
    """The smallest first part of a ranking that reaches a target loss."""

    target_loss: Nats
    """What it has to reach on selection samples."""
    nodes: Count
    """Its size; where the target was not reached, of the part that came closest."""
    edges: Count
    """Nonzero weights between its nodes."""
    task_loss: Nats | None
    """On held-out samples."""
    reached: bool | None
    """Whether the target was reached."""


class SizeVersusTarget(Part):
    """Sizes at every target loss, and the area under log10(edges) over log10(target)."""

    points: tuple[TargetPoint, ...]
    """One per target."""
    area: float | None = older(None)
    """Over the targets that were reached; null with fewer than two."""
    mean_edges: float | None = older(None)
    """10 to the area divided by its extent: comparable only where `lowest_target` is the same."""
    lowest_target: Nats | None = older(None)
    """The lowest target that was reached."""


class Baseline(Part):
    """A ranking of nodes that no search has learned, at the search's target."""

    ranking: str
    """How nodes are ranked."""
    nodes: Count
    """Size of its smallest first part at the target."""
    edges: Count
    """The same in edges."""
    task_loss: Nats | None
    """There."""
    reached: bool | None
    """Whether the target was reached."""
    loss_versus_size: tuple[CurvePoint, ...] = older(())
    """Its first parts."""


class Quantiles(Part):
    """Of the losses of all draws."""

    levels: tuple[Fraction, ...] = ()
    """Which quantiles."""
    task_loss: tuple[Nats | None, ...] = ()
    """One per level."""
    task_loss_calibrated: tuple[Nats | None, ...] = ()
    """The same, each draw calibrated."""


class Control(Part):
    """Circuits that should not work, or the circuit with other ablation values: a loss per draw."""

    draws: Count | None = None
    """How many."""
    task_loss: tuple[Nats | None, ...] = ()
    """Of each draw."""
    task_loss_calibrated: tuple[Nats | None, ...] = ()
    """Of each draw, each calibrated."""
    quantiles: Quantiles | None = None
    """Of these."""


class Overlap(Part):
    """How much the circuits of the searches share: Jaccard overlap over all pairs."""

    searches: Count | None = older(None)
    """Circuits that are compared."""
    mean_jaccard: Fraction | None = older(None)
    """Null with fewer than two."""
    interval: tuple[float, float] | None = older(None)
    """Its 95 % bootstrap interval over searches; null with fewer than five."""
    random_jaccard: Fraction | None = older(None)
    """Of random circuits with the same counts at every site."""


class NodeLoss(NodeEntry):
    """The circuit without one node."""

    task_loss: Nats | None
    """Of what is left, calibration as is."""


class EdgeLoss(Part):
    """The circuit without one edge."""

    source: Node = msgspec.field(name="from")
    """The node it reads."""
    target: Node = msgspec.field(name="to")
    """The node it feeds."""
    task_loss: Nats | None
    """Of what is left, calibration as is."""


class Importance(Part):
    """Held-out task losses without each one node or edge; both lists are empty for large circuits."""

    nodes: tuple[NodeLoss, ...] = older(())
    """One per node."""
    edges: tuple[EdgeLoss, ...] = older(())
    """One per edge that can be removed alone."""
    task_loss: Nats | None = None
    """Of the circuit itself, on the same held-out samples, which are not all of them; older files do not say it."""


class Stage(Part):
    """The circuit after one stage of its refinement."""

    stage: str
    """search, nodes (minimized) or edges; "given back 1" where the first check on fresh samples failed and nodes came
    back, "edges 1" (before it "nodes 1", if no edge was pruned) what is left of that, and so on."""
    nodes: Count | None = None
    """Size then."""
    edges: Count | None = None
    """Size then."""
    task_loss: Nats | None = None
    """On held-out samples."""


class FreshCheck(Part):
    """A minimized circuit on training samples that its selection does not have (path search)."""

    task_loss: Nats
    """There, of the family (or task) with the largest, less what it is allowed above the target (`allowed`);
    with prune.objective=match a divergence."""
    accepted: bool
    """Whether that is at most the target."""
    given_back: Count | None = None
    """Nodes that came back before the circuit was minimized again; null where it was accepted, or where no nodes that
    could have come back help."""


class Search(Record):
    """What the search of a circuit tells about itself."""

    FILE: ClassVar[str] = "circuits/TASK/search.json"
    FORMAT: ClassVar[str] = "sparse_gpt.search/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.prune"

    task: str = older("")
    """Name of the task."""
    params_sha256: str = older("")
    """Fingerprint of the weights."""
    samples_sha256: str = ""
    """Fingerprint of the file of prompt pairs that was searched on; "" for a task of the suite."""
    steps: Count | None = older(None)
    """Optimization steps of every trial."""
    batch_pairs: Count | None = older(None)
    """Pairs of samples per step."""
    hyperparameters: dict[str, Plain | tuple[Plain, ...]] = older({})
    """The configuration group `prune`."""
    trials: tuple[Trial, ...]
    """The searches."""
    best_trial: Count | None = older(None)
    """The trial that the ranking comes from."""
    refined_from: str = older("the best trial")
    """What the refinement started from: the best trial or a baseline."""
    reached: bool | None = None
    """Whether the circuit's calibrated loss on selection samples is at most the target; older files do not say it."""
    allowed: dict[str, Nats] = msgspec.field(default_factory=dict)
    """What selection allows a family (or task) where that is more than its target: the model's own loss is near it or
    above (prune.above_model), or it is natural text (prune.above_natural)."""
    stages: tuple[Stage, ...] = older(())
    """Sizes from stage to stage."""
    fresh: tuple[FreshCheck, ...] = ()
    """Checks of what was minimized, in order; each has samples of its own."""
    history: tuple[HistoryPoint, ...] = older(())
    """At most a hundred steps."""
    size_versus_target: SizeVersusTarget | None = older(None)
    """Of the same ranking."""
    baselines: tuple[Baseline, ...] = older(())
    """Rankings that no search has learned."""
    overlap: Overlap = older(Overlap())
    """Of the searches' circuits."""
    random_circuit: Control = older(Control())
    """Random nodes, as many at every site and layer."""
    redrawn_values: Control = older(Control())
    """The circuit's edges with values drawn from the same matrices."""
    importance: Importance = older(Importance())
    """What each node and edge is worth."""
    loss_versus_size: tuple[CurvePoint, ...] = older(())
    """First parts of the best trial's ranking."""
    resampled: Control | None = None
    """The circuit with other draws of its ablation values, with resample ablation."""
    seconds: Seconds | None = older(None)
    """Time that all of it took, over all processes, but for what they lost when they were interrupted."""

    def __post_init__(self) -> None:
        """InputError unless every record of the history has one loss and one count per trial."""
        for point in self.history:
            if len(point.loss) != len(self.trials) or len(point.open_nodes) != len(self.trials):
                raise InputError(
                    f"step {point.step} of the history does not have {len(self.trials)} losses, one per trial"
                )


class RankingSizes(Part):
    """A ranking of nodes, and its sizes at every target loss."""

    ranking: str
    """How nodes are ranked."""
    points: tuple[TargetPoint, ...]
    """One per target."""
    area: float | None = older(None)
    """As in search.json."""
    mean_edges: float | None = older(None)
    """As in search.json."""
    lowest_target: Nats | None = older(None)
    """As in search.json."""


class Rankings(Record):
    """Sizes at every target loss, of the mask search and of rankings that no search has learned, before refinement."""

    FILE: ClassVar[str] = "circuits/TASK/rankings.json"
    FORMAT: ClassVar[str] = "sparse_gpt.rankings/1"

    task: str = older("")
    """Name of the task."""
    params_sha256: str = older("")
    """Fingerprint of the weights."""
    samples_sha256: str = ""
    """Fingerprint of the file of pairs that the task is from; "" for a task of the table."""
    hyperparameters: dict[str, Plain | tuple[Plain, ...]] = older({})
    """Those of the search that it stands beside."""
    rankings: tuple[RankingSizes, ...]
    """The mask search first."""

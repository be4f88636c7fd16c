"""bridge.json, steering.json and transport.json: how two bridged models fit together, and what the sparse model's nodes
and circuits are in the dense one."""

from typing import ClassVar

from sparse_gpt.errors import InputError
from sparse_gpt.records.base import Count, Fraction, Index, Nats, Part, Record, Site, Tokens, older
from sparse_gpt.records.circuit import NodeEntry


class Measures(Part):
    """How well one bridge joins the two models; null stands for what was not finite."""

    nmse_encoder: float | None = None
    """Squared error of the encoder, a fraction of the sparse stream's sum of squares."""
    nmse_decoder: float | None = None
    """Squared error of the decoder, a fraction of the dense stream's sum of squares."""
    kl_to_sparse: Nats | None = None
    """Divergence from the dense model of the hybrid that starts dense and ends sparse."""
    kl_to_dense: Nats | None = None
    """The same of the hybrid that starts sparse and ends dense."""
    loss_to_sparse: Nats | None = None
    """Cross-entropy of the hybrid that starts dense and ends sparse."""
    loss_to_dense: Nats | None = None
    """Cross-entropy of the hybrid that starts sparse and ends dense."""


class BridgedBoundary(Part):
    """One bridge, with its controls."""

    dense: Index
    """Boundary of the dense model: 0 is the embedding, 2 l + 1 after attention of layer l, 2 l + 2 after its MLP."""
    sparse: Index
    """Boundary of the sparse model."""
    linear: Measures | None = older(None)
    """The best linear maps to a sparse model that was trained without bridges; null without one."""
    trained: Measures
    """The bridges as they were trained."""
    untrained: Measures
    """Random bridges, as a run without bridge.init_from begins with; with it, bridges begin as least squares maps."""


class MixturePath(Part):
    """A hybrid with any number of switches; null stands for what was not finite."""

    path: str
    """A letter per piece between bridges: d where the dense model runs it, s where the sparse one does."""
    loss: Nats | None
    """Cross-entropy."""
    kl: Nats | None
    """Divergence from the dense model."""


class Mixtures(Part):
    """Hybrids of the two models."""

    complete: bool
    """Whether all paths are there; else those with at most two switches."""
    paths: tuple[MixturePath, ...]
    """One entry per path."""


class Bridge(Record):
    """How well the bridges of a finished run join the two models, beside two controls. Every number is a mean over
    tokens of the validation split."""

    FILE: ClassVar[str] = "bridge.json"
    FORMAT: ClassVar[str] = "sparse_gpt.bridge/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.bridge"

    params_sha256: str = older("")
    """Fingerprint of the sparse model's weights."""
    dense_params_sha256: str = older("")
    """Fingerprint of the dense model's weights."""
    independent_params_sha256: str | None = older(None)
    """Fingerprint of the sparse model that was trained without bridges; null without that control."""
    step: Count | None = older(None)
    """Finished training steps."""
    tokens: Tokens | None = older(None)
    """How many the numbers are means over."""
    dense_loss: Nats
    """Cross-entropy of the dense model."""
    sparse_loss: Nats
    """Cross-entropy of the sparse model."""
    independent_loss: Nats | None = older(None)
    """Cross-entropy of the independent model."""
    bridges: tuple[BridgedBoundary, ...]
    """One entry per bridged pair of boundaries, in order of depth."""
    mixtures: Mixtures = older(Mixtures(complete=False, paths=()))
    """Hybrids with any number of switches."""

    def __post_init__(self) -> None:
        """InputError unless every path has a letter, d or s, for each of the pieces that the bridges leave."""
        pieces = len(self.bridges) + 1
        for entry in self.mixtures.paths:
            if len(entry.path) != pieces or set(entry.path) - {"d", "s"}:
                raise InputError(f"path {ascii(entry.path)[:40]} is not {pieces} letters d or s")


class Curve(Part):
    """Means over samples of probabilities at the answer's position, one per strength."""

    answer: tuple[float, ...]
    """Probability of the answer among all tokens."""
    foil: tuple[float, ...]
    """Probability of the foil among all tokens."""
    share: tuple[float, ...]
    """The foil's part of the two."""


class SteeringCurves(Part):
    """What happens to the answer while one node is steered."""

    sparse: Curve
    """The sparse model, the node itself moved."""
    dense: Curve
    """The dense model, a change of one read."""
    random: tuple[Curve, ...]
    """The same in random directions of the same norm."""
    stream: Curve
    """The dense model, a change of its stream."""
    random_stream: tuple[Curve, ...]
    """The same in random directions of the same norm."""


class DensePlace(Part):
    """Where a node is felt in the dense model."""

    layer: Index
    """Block of the dense model, from 0."""
    site: Site
    """The read in that block."""


class Candidate(NodeEntry):
    """A node that was tried on validation samples; probabilities at strength 1."""

    difference: float | None = None
    """Root mean square over samples of its counterfactual difference's norm over positions."""
    importance: Nats | None = None
    """What the sparse model's task loss gains without it; 1 for all where it is not known."""
    score: float | None = None
    """Difference times importance."""
    dense_foil: Fraction | None = None
    """Probability of the foil in the dense model, one read changed."""
    stream_foil: Fraction | None = None
    """Probability of the foil in the dense model, its stream changed."""
    sparse_foil: Fraction | None = None
    """Probability of the foil in the sparse model."""
    dense_share: Fraction | None = None
    """The foil's part of both answers in the dense model, one read changed."""
    stream_share: Fraction | None = None
    """The foil's part of both answers in the dense model, its stream changed."""
    sparse_share: Fraction | None = None
    """The foil's part of both answers in the sparse model."""


class Steering(Record):
    """One node of a circuit moved towards its value on the other prompt, in the sparse and in the dense model."""

    FILE: ClassVar[str] = "circuits/TASK/steering.json"
    FORMAT: ClassVar[str] = "sparse_gpt.steering/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.steer"

    task: str
    """Name of the task."""
    params_sha256: str = older("")
    """Fingerprint of the sparse model's weights."""
    dense_params_sha256: str = older("")
    """Fingerprint of the dense model's weights."""
    node: NodeEntry
    """The node, in the sparse model."""
    dense: DensePlace
    """Where it is felt in the dense one."""
    pairs: Index
    """Held-out pairs of prompts that the curves are means over."""
    strengths: tuple[float, ...]
    """1 is the whole counterfactual difference."""
    curves: SteeringCurves
    """One value per strength each."""
    candidates: tuple[Candidate, ...] = older(())
    """Nodes that were tried, best first."""

    def __post_init__(self) -> None:
        """InputError unless every curve has one value per strength."""
        curves, count = self.curves, len(self.strengths)
        for curve in (curves.sparse, curves.dense, curves.stream, *curves.random, *curves.random_stream):
            for values in (curve.answer, curve.foil, curve.share):
                if len(values) != count:
                    raise InputError(f"a curve has {len(values)} values for {count} strengths")


class Outcome(Part):
    """The dense model with something ablated."""

    task_loss: Nats
    """Between answer and foil."""
    accuracy: Fraction
    """Samples whose answer beats its foil."""
    loss: Nats
    """Cross-entropy on pretraining text."""


class ImageBoundary(Part):
    """The image of a circuit at one bridged boundary: the span of the decoder's rows for the residual channels that its
    nodes read or write there."""

    dense: Index
    """Boundary of the dense model."""
    sparse: Index
    """Boundary of the sparse model."""
    channels: Index
    """Residual channels of the sparse model."""
    rank: Index
    """Dimensions of their span."""
    width: Index
    """Width of the dense stream."""


class SparseLosses(Part):
    """Of the circuit in its own model."""

    full_model_task_loss: Nats | None = older(None)
    """Of the whole sparse model."""
    ablated_task_loss: Nats | None = older(None)
    """Of the sparse model with the circuit ablated."""


class Transport(Record):
    """What the dense model loses with the image of a sparse model's circuit."""

    FILE: ClassVar[str] = "circuits/TASK/transport.json"
    FORMAT: ClassVar[str] = "sparse_gpt.transport/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.steer"

    task: str
    """Name of the task."""
    params_sha256: str = older("")
    """Fingerprint of the sparse model's weights."""
    dense_params_sha256: str = older("")
    """Fingerprint of the dense model's weights."""
    boundaries: tuple[ImageBoundary, ...]
    """Where the circuit has an image."""
    samples: Count | None = older(None)
    """Held-out prompts."""
    dense: Outcome
    """The dense model as it is."""
    image: Outcome | None = older(None)
    """Without the circuit's image; null for a circuit that has none."""
    random: tuple[Outcome, ...]
    """Without random images: spans of as many rows of other channels at the same boundaries."""
    sparse: SparseLosses = older(SparseLosses())
    """For comparison."""

"""Files of a training run: config.json as the report reads it, manifest.json, metrics.jsonl, evaluation.json."""

from typing import ClassVar

import msgspec

from sparse_gpt.records.base import Count, Fraction, Index, Nats, OpenRecord, Part, Plain, Record, Tokens, older

Counts = dict[str, Count | None]  # by tensor path


class ModelShape(Part):
    """The group `model`."""

    n_layer: Plain = None
    """Blocks."""
    d_model: Plain = None
    """Width of the residual stream."""
    n_head: Plain = None
    """Attention heads."""
    d_head: Index | None = None
    """Channels per head."""
    vocab_size: Plain = None
    """Entries of the vocabulary."""
    context: Plain = None
    """Tokens that are seen at once."""


class Density(Part):
    """The group `sparsity`."""

    density: float | None = None
    """Fraction of nonzero entries per projected tensor."""


class Steps(Part):
    """The group `train`."""

    steps: Plain = None
    """Planned training steps."""


class Data(Part):
    """The group `data`."""

    sources: str | tuple[str, ...] | None = None
    """What the corpus is made of; older files have one text with commas."""


class Settings(OpenRecord):
    """The part of the resolved configuration that reports look at. The whole of it is sparse_gpt.config.Config, which
    checks every field; a report is made of a run that another version would no longer train, too."""

    FILE: ClassVar[str] = "config.json"

    model: ModelShape = ModelShape()
    """Sizes."""
    sparsity: Density = Density()
    """Which fraction of weights stays nonzero."""
    train: Steps = Steps()
    """How long."""
    data: Data = Data()
    """On what."""


class Numerics(Part):
    """What the last bits of results depend on."""

    processor: str = older("")
    """Name of the processor."""
    vector_extensions: tuple[str, ...] = older(())
    """Those that compiled programs use."""
    cores: Count = older(0)
    """That this process may use."""
    threads: Count = older(0)
    """That compiled programs use."""
    xla_flags: str = older("")
    """The environment variable XLA_FLAGS."""


class Manifest(OpenRecord):
    """What a result depends on, and the fingerprint of the parameters that it ended with.

    Fields from `params_sha256` on are there once the run has ended.
    """

    FILE: ClassVar[str] = "manifest.json"
    FORMAT: ClassVar[str] = "sparse_gpt.manifest/1"
    FORMAT_REQUIRED: ClassVar[bool] = False  # older ones, and those made of facts alone, name none

    packages: dict[str, str] = msgspec.field(default_factory=dict)
    """Package -> version; "" where it is not installed."""
    python: str | None = None
    """Version."""
    git_revision: str | None = None
    """Of the code; "" where it is not known."""
    git_revision_missing: str | None = None
    """Why the revision is not known."""
    device_kind: str | None = None
    """As JAX names it."""
    device_count: Count | None = None
    """Devices of all processes."""
    machine: Numerics | None = None
    """What the last bits of results depend on: processor, vector extensions, threads, compiler flags."""
    imported: dict[str, str] | None = None
    """Of a model that was imported: SHA-256 of what it was read from."""
    seeds: dict[str, Count] | None = None
    """Of training and data."""
    dense: str | None = None
    """Of a bridged run: workdir of the dense model."""
    dense_params_sha256: str | None = None
    """Of a bridged run: fingerprint of the dense model."""
    corpus_sha256: str | None = None
    """SHA-256 of the corpus's manifest.json."""
    tokenizer_sha256: str | None = None
    """SHA-256 of the tokenizer."""
    params_sha256: str | None = None
    """SHA-256 over the sorted parameter paths with their shapes, dtypes and bytes."""
    step: Count | None = None
    """Finished training steps."""
    nonzeros: dict[str, Count] | None = None
    """Path of each tensor -> its nonzero entries."""


class MetricsRow(OpenRecord):
    """One logged training step: a line of the file. What else a program measures stands under its own name."""

    FILE: ClassVar[str] = "metrics.jsonl"

    step: Count
    """From 0."""
    tokens: Tokens | None = None
    """Seen so far."""
    loss: Nats | None = None
    """Of the step's batch, per token."""
    lr: float | None = None
    """Learning rate."""
    density: float | None = None
    """Fraction of weights that are not zero, as scheduled."""
    grad_rms: float | None = None
    """Root mean square of the gradient, before it is controlled."""
    tokens_per_second: float | None = None
    """Since the row before."""
    nonzeros: Counts | Count | None = None
    """Path of each tensor -> its nonzero entries."""
    val_loss: Nats | None = None
    """Held-out loss per token, in rows where it was evaluated."""
    dead_neurons: Count | None = older(None)
    """MLP neurons that stayed at zero on held-out text, as last evaluated; null before."""


class FamilyRow(Part):
    """One template family of a task: what was measured on its held-out samples, or why it could not be."""

    family: str
    """Its name."""
    novel: bool = False
    """Whether no search sees it."""
    reason: str | None = None
    """Why the tokenizer or the context does not allow it; then nothing else is there."""
    pairs: Count | None = None
    """Pairs of samples."""
    task_loss: Nats | None = None
    """Answer against foil alone; chance is ln 2."""
    full_vocabulary_loss: Nats | None = None
    """Of the answer among all tokens."""
    accuracy: Fraction | None = None
    """Samples whose answer beats its foil."""


class TaskRow(Part):
    """One task: what was measured on held-out samples, or why it could not be."""

    task: str
    """Its name."""
    reason: str | None = None
    """Why the tokenizer or the context does not allow it; then nothing else is there."""
    task_loss: Nats | None = None
    """Answer against foil alone; chance is ln 2."""
    full_vocabulary_loss: Nats | None = None
    """Of the answer among all tokens."""
    accuracy: Fraction | None = None
    """Samples whose answer beats its foil."""
    shifted_task_loss: Nats | None = None
    """On held-out words in the templates of the shifted variant."""
    shifted_full_vocabulary_loss: Nats | None = None
    """On held-out words in the templates of the shifted variant."""
    shifted_accuracy: Fraction | None = None
    """On held-out words in the templates of the shifted variant."""
    families: tuple[FamilyRow, ...] = ()
    """Its template families, where launch.evaluate --families has measured them."""


class Evaluation(Record):
    """How the full model does on every task."""

    FILE: ClassVar[str] = "evaluation.json"
    FORMAT: ClassVar[str] = "sparse_gpt.evaluation/1"

    params_sha256: str = older("")
    """Fingerprint of the weights."""
    pairs: Count | None = older(None)
    """Held-out pairs of samples per task and variant."""
    tasks: tuple[TaskRow, ...]
    """One row per task."""

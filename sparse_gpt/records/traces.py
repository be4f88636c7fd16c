"""traces.json and contexts.json: what the nodes of a circuit do on sample prompts and in running text."""

from typing import ClassVar

from sparse_gpt.errors import InputError
from sparse_gpt.records.base import Index, Number, Part, Record, Tokens, older
from sparse_gpt.records.circuit import NodeEntry


class Sample(Part):
    """One prompt, up to the position where the answer is predicted. Samples 2i and 2i + 1 are a pair: they differ
    minimally and have each other's answer as foil."""

    split: str = older("")
    """Where it comes from."""
    tokens: tuple[str, ...]
    """Texts of the tokens."""
    answer: str
    """Text of the right answer."""
    foil: str
    """Text of the answer to the other prompt of the pair."""
    logit_difference_full: float | None = older(None)
    """Logit of the answer minus that of the foil, in the full model."""
    logit_difference_circuit: float | None = older(None)
    """The same in the circuit, calibrated."""
    values: dict[str, tuple[Number | None, ...]]
    """"layer.site.channel" -> the node's activation at every token, in the circuit."""
    attention: dict[str, tuple[tuple[Number | None, ...], ...]] = older({})
    """"layer.head" -> a row of attention weights per query; a row sums to less than 1 where a sink takes the rest."""


class VocabularyEntry(Part):
    """A nonzero entry of the embedding or the unembedding."""

    token: str
    """Text of the token."""
    token_id: Index
    """Its id."""
    channel: Index
    """Residual channel."""
    weight: float
    """The entry."""


class Traces(Record):
    """Activations and attention of a circuit on a few prompts, and the entries that join it to the vocabulary."""

    FILE: ClassVar[str] = "circuits/TASK/traces.json"
    FORMAT: ClassVar[str] = "sparse_gpt.traces/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.prune"

    task: str = older("")
    """Name of the task."""
    site_widths: dict[str, Index] = older({})
    """Site -> its number of channels."""
    d_head: Index = older(0)
    """Channels per head; 0 where it is not known."""
    samples: tuple[Sample, ...]
    """The prompts."""
    embedding: tuple[VocabularyEntry, ...] = older(())
    """Of the prompts' tokens, on channels that the circuit reads."""
    unembedding: tuple[VocabularyEntry, ...] = older(())
    """Of answers and foils, on channels that the circuit writes or reads."""

    def __post_init__(self) -> None:
        """InputError unless values have the length of their sample's tokens, and attention at most that."""
        for index, sample in enumerate(self.samples):
            length = len(sample.tokens)
            for node, row in sample.values.items():
                if len(row) != length:
                    raise InputError(f"sample {index} has {length} tokens but node {node} has {len(row)} values")
            for head, pattern in sample.attention.items():
                if len(pattern) > length or any(len(row) > length for row in pattern):
                    raise InputError(f"sample {index} has {length} tokens but the attention of head {head} has more")


class Context(Part):
    """A piece of text with one value of a node."""

    tokens: tuple[str, ...]
    """Texts of the tokens."""
    at: Index
    """The token at which the value stands, from 0."""
    value: float
    """The node's activation there, in the full model."""


class NodeContexts(NodeEntry):
    """Where a node has its extremes; each context is from a window of its own."""

    top: tuple[Context, ...]
    """The largest values, largest first."""
    bottom: tuple[Context, ...]
    """The smallest values, smallest first."""


class Contexts(Record):
    """What nodes respond to in running text."""

    FILE: ClassVar[str] = "circuits/TASK/contexts.json"
    FORMAT: ClassVar[str] = "sparse_gpt.contexts/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.prune"

    split: str = older("")
    """Where the text comes from."""
    tokens: Tokens
    """How much was looked at."""
    nodes: tuple[NodeContexts, ...]
    """One entry per node."""

"""The circuit as a graph: nodes, edges (weights) and residual channels.

Weights join nodes within a sublayer. Between sublayers, a node that writes residual channel c reaches every later
node that reads c; those links have no weight. The nodes that a channel links are its *steps*, in the order
of the forward pass, from the embedding over writes and reads to the unembedding.
"""

import dataclasses
from collections.abc import Sequence

from sparse_gpt.config import NODE_SITES, READS, WRITES
from sparse_gpt.records import Circuit, Node, Traces
from sparse_gpt.records.traces import VocabularyEntry

HEAD_PARTS = ("attn_q", "attn_k", "attn_v")
DEPTH = {"attn_in": 0, "attn_q": 1, "attn_k": 1, "attn_v": 1, "attn_out": 2, "mlp_in": 3, "mlp_neuron": 4, "mlp_out": 5}
MAX_TOKENS = 12  # that a drawing shows at either side; tables have all


@dataclasses.dataclass(frozen=True)
class DrawnEdge:
    """A weight. `kind` is "block" (an edge of the circuit), "embedding" or "unembedding"; ends are keys."""

    source: str
    target: str
    weight: float
    kind: str


@dataclasses.dataclass(frozen=True)
class ResidualChannel:
    """A residual channel and its steps in the order of the forward pass.

    `links` are the pairs of steps (earlier, later) that the channel joins: each write with each later read.
    """

    index: int
    steps: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """What is drawn, or written in tables. `tokens` and `answers` map terminal keys to token texts; `omitted` counts
    entries left out; `core` has the keys of nodes in the minimal circuit, where there is one inside."""

    nodes: tuple[Node, ...]
    edges: tuple[DrawnEdge, ...]
    channels: tuple[ResidualChannel, ...]
    tokens: dict[str, str]
    answers: dict[str, str]
    d_head: int
    d_model: int
    omitted: int
    core: frozenset[str] = frozenset()

    def head(self, node: Node) -> int:
        """The head that a q, k or v node belongs to; −1 if the width of a head is not known."""
        return node.channel // self.d_head if self.d_head and node.site in HEAD_PARTS else -1


def build_graph(
    circuit: Circuit, traces: Traces | None = None, d_head: int = 0, most_tokens: int | None = None
) -> Graph:
    """Graph of a circuit and, if given, the embedding and unembedding entries of its traces.

    `d_head` groups q, k and v nodes into heads; by default it is taken from the traces, and without it they stand
    alone. `most_tokens` is how many tokens have their entries, at either side; None: all of them.
    """
    known, traces = traces is not None, traces or Traces(samples=())
    nodes = sorted({entry.node for entry in circuit.nodes}, key=_order)
    edges = [DrawnEdge(edge.source.key, edge.target.key, edge.weight, "block") for edge in circuit.edges]
    d_model = traces.site_widths.get("attn_out", 0)
    residual = [node for node in nodes if node.site in READS + WRITES]
    written = {node.channel for node in residual if node.site in WRITES}
    # Concatenated position channels are beyond d_model: read, but neither embedded nor written.
    read = {node.channel for node in residual if node.site in READS and not (d_model and node.channel >= d_model)}
    inputs = [entry for entry in traces.embedding if entry.channel in read]
    telling = telling_tokens(traces)
    embedding, tokens = _entries(inputs, "token", "embed", telling, most_tokens)
    joined = written | {entry.channel for entry in inputs}
    outputs = [entry for entry in traces.unembedding if entry.channel in joined]
    unembedding, answers = _entries(outputs, "answer", "unembed", telling, most_tokens)
    edges += [DrawnEdge(token, port, value, "embedding") for token, port, value in embedding]
    edges += [DrawnEdge(port, token, value, "unembedding") for token, port, value in unembedding]
    ports = {port for _, port, _ in embedding + unembedding}
    channels = sorted({node.channel for node in residual})
    if not known:  # the entries are not known: every channel may carry something in, every written one something out
        ports = {f"embed:{c}" for c in read} | {f"unembed:{c}" for c in written}
    return Graph(
        nodes=tuple(nodes),
        edges=tuple(edges),
        channels=tuple(_residual_channel(channel, residual, ports) for channel in channels),
        tokens=tokens,
        answers=answers,
        d_head=d_head or traces.d_head,
        d_model=d_model,
        omitted=len(inputs) + len(outputs) - len(embedding) - len(unembedding),
        core=frozenset(entry.node.key for entry in circuit.minimal.nodes) if circuit.minimal else frozenset(),
    )


def _order(node: Node) -> tuple[int, int, int]:
    return node.layer, NODE_SITES.index(node.site), node.channel


def telling_tokens(traces: Traces) -> set[str]:
    """Tokens that make the difference within a pair of samples, the first answers included."""
    samples = traces.samples
    found = {text for sample in samples[:2] for text in (sample.answer, sample.foil)}
    for first, second in zip(samples[::2], samples[1::2], strict=False):
        for a, b in zip(first.tokens, second.tokens, strict=False):
            found |= {a, b} if a != b else set()
    return found


def _entries(
    entries: Sequence[VocabularyEntry], terminal: str, port: str, telling: set[str], most_tokens: int | None
) -> tuple[list[tuple[str, str, float]], dict[str, str]]:
    """The entries of at most `most_tokens` tokens as (terminal key, port key, weight), and the tokens' texts.

    Telling tokens come first, then those of the largest weights.
    """
    strength: dict[int, tuple[bool, float]] = {}
    for entry in entries:
        _, held = strength.get(entry.token_id, (False, 0.0))
        strength[entry.token_id] = (entry.token in telling, max(held, abs(entry.weight)))
    strongest = sorted(strength, key=lambda token: (*strength[token], -token), reverse=True)
    kept = set(strongest[:most_tokens])
    drawn = [entry for entry in entries if entry.token_id in kept]
    joins = [(f"{terminal}:{entry.token_id}", f"{port}:{entry.channel}", entry.weight) for entry in drawn]
    return joins, {f"{terminal}:{entry.token_id}": entry.token for entry in drawn}


def _residual_channel(channel: int, residual: list[Node], ports: set[str]) -> ResidualChannel:
    """Steps of a channel, and which write reaches which read."""
    nodes = [node for node in residual if node.channel == channel]
    first, last = f"embed:{channel}", f"unembed:{channel}"
    steps = [first] * (first in ports) + [node.key for node in nodes] + [last] * (last in ports)
    writers = {first} | {node.key for node in nodes if node.site in WRITES}
    readers = {last} | {node.key for node in nodes if node.site in READS}
    links = [(a, b) for i, a in enumerate(steps) for b in steps[i + 1 :] if a in writers and b in readers]
    return ResidualChannel(channel, tuple(steps), tuple(links))

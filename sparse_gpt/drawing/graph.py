"""The circuit as a graph: nodes, wires (weights) and lanes (residual channels).

Weights join nodes within a sublayer. Between sublayers, a node that writes residual channel c reaches every later
node that reads c; those links have no weight. All of them together are the channel's *lane*: its stations in the order
of the forward pass, from the embedding over writes and reads to the unembedding.
"""

import dataclasses
from typing import Any

from sparse_gpt.config import NODE_SITES
from sparse_gpt.records import schemas
from sparse_gpt.records.files import check_edges, check_lengths
from sparse_gpt.schema import check

Json = dict[str, Any]

READS, WRITES, HEAD_PARTS = ("attn_in", "mlp_in"), ("attn_out", "mlp_out"), ("attn_q", "attn_k", "attn_v")
DEPTH = {"attn_in": 0, "attn_q": 1, "attn_k": 1, "attn_v": 1, "attn_out": 2, "mlp_in": 3, "mlp_neuron": 4, "mlp_out": 5}
MAX_TOKENS = 12  # drawn at either side; the others stay in the table


@dataclasses.dataclass(frozen=True, order=True)
class Node:
    """One channel at one node site of one layer."""

    layer: int
    site: str
    channel: int

    @property
    def key(self) -> str:
        return f"{self.layer}.{self.site}.{self.channel}"

    @property
    def is_residual(self) -> bool:
        return self.site in READS + WRITES


@dataclasses.dataclass(frozen=True)
class Wire:
    """A weight. `kind` is "block" (an edge of the circuit), "embedding" or "unembedding"; ends are keys."""

    source: str
    target: str
    weight: float
    kind: str


@dataclasses.dataclass(frozen=True)
class Lane:
    """A residual channel and its stations in the order of the forward pass.

    `links` are the pairs of stations (earlier, later) that the channel joins: each write with each later read.
    """

    channel: int
    stations: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """What is drawn. `tokens` and `answers` map terminal keys to token texts; `omitted` counts entries left out."""

    nodes: tuple[Node, ...]
    wires: tuple[Wire, ...]
    lanes: tuple[Lane, ...]
    tokens: dict[str, str]
    answers: dict[str, str]
    d_head: int
    d_model: int
    omitted: int

    def head(self, node: Node) -> int:
        """The head that a q, k or v node belongs to; −1 if the width of a head is not known."""
        return node.channel // self.d_head if self.d_head and node.site in HEAD_PARTS else -1


def build_graph(circuit: Json, traces: Json | None = None, d_head: int = 0) -> Graph:
    """Graph of a circuit.json and, if given, the embedding and unembedding entries of its traces.json.

    `d_head` groups q, k and v nodes into heads; by default it is taken from the files, and without it they stand alone.
    Raises InputError if they are not as their formats say, or an edge joins what is not a node.
    """
    check(circuit, schemas.CIRCUIT)
    check_edges(circuit)
    if traces is not None:
        check(traces, schemas.TRACES)
        check_lengths(traces)
    traces = traces or {}
    nodes = sorted({Node(n["layer"], n["site"], n["channel"]) for n in circuit["nodes"]}, key=_order)
    wires = [
        Wire(Node(*edge["from"]).key, Node(*edge["to"]).key, float(edge["weight"]), "block")
        for edge in circuit["edges"]
    ]
    d_model = int(traces.get("site_widths", {}).get("attn_out", 0))
    residual = [node for node in nodes if node.is_residual]
    written = {node.channel for node in residual if node.site in WRITES}
    # Concatenated position channels lie beyond d_model: read, but neither embedded nor written.
    read = {node.channel for node in residual if node.site in READS and not (d_model and node.channel >= d_model)}
    inputs = [entry for entry in traces.get("embedding", []) if entry["channel"] in read]
    telling = telling_tokens(traces)
    embedding, tokens = _entries(inputs, "token", "embed", telling)
    outputs = [e for e in traces.get("unembedding", []) if e["channel"] in written | {i["channel"] for i in inputs}]
    unembedding, answers = _entries(outputs, "answer", "unembed", telling)
    wires += [Wire(token, port, value, "embedding") for token, port, value in embedding]
    wires += [Wire(port, token, value, "unembedding") for token, port, value in unembedding]
    ports = {port for _, port, _ in embedding + unembedding}
    channels = sorted({node.channel for node in residual})
    if not traces:  # the entries are not known: every channel may carry something in, every written one something out
        ports = {f"embed:{c}" for c in read} | {f"unembed:{c}" for c in written}
    return Graph(
        nodes=tuple(nodes),
        wires=tuple(wires),
        lanes=tuple(_lane(channel, residual, ports) for channel in channels),
        tokens=tokens,
        answers=answers,
        d_head=d_head or int(traces.get("d_head") or circuit.get("d_head") or 0),
        d_model=d_model,
        omitted=len(inputs) + len(outputs) - len(embedding) - len(unembedding),
    )


def _order(node: Node) -> tuple[int, int, int]:
    return node.layer, NODE_SITES.index(node.site), node.channel


def telling_tokens(traces: Json) -> set[str]:
    """Tokens that make the difference within a pair of samples, the first answers included."""
    samples = traces.get("samples", [])
    found = {sample[part] for sample in samples[:2] for part in ("answer", "foil")}
    for first, second in zip(samples[::2], samples[1::2], strict=False):
        for a, b in zip(first["tokens"], second["tokens"], strict=False):
            found |= {a, b} if a != b else set()
    return found


def _entries(
    entries: list[Json], terminal: str, port: str, telling: set[str]
) -> tuple[list[tuple[str, str, float]], dict[str, str]]:
    """The entries of MAX_TOKENS tokens as (terminal key, port key, weight), and the tokens' texts.

    Telling tokens come first, then those of the largest weights.
    """
    strength: dict[int, tuple[bool, float]] = {}
    for entry in entries:
        _, held = strength.get(entry["token_id"], (False, 0.0))
        strength[entry["token_id"]] = (entry["token"] in telling, max(held, abs(entry["weight"])))
    kept = sorted(strength, key=lambda token: (*strength[token], -token), reverse=True)[:MAX_TOKENS]
    drawn = [entry for entry in entries if entry["token_id"] in kept]
    joins = [(f"{terminal}:{e['token_id']}", f"{port}:{e['channel']}", float(e["weight"])) for e in drawn]
    return joins, {f"{terminal}:{e['token_id']}": str(e["token"]) for e in drawn}


def _lane(channel: int, residual: list[Node], ports: set[str]) -> Lane:
    """Stations of a channel, and which write reaches which read."""
    nodes = [node for node in residual if node.channel == channel]
    first, last = f"embed:{channel}", f"unembed:{channel}"
    stations = [first] * (first in ports) + [node.key for node in nodes] + [last] * (last in ports)
    writers = {first} | {node.key for node in nodes if node.site in WRITES}
    readers = {last} | {node.key for node in nodes if node.site in READS}
    links = [(a, b) for i, a in enumerate(stations) for b in stations[i + 1 :] if a in writers and b in readers]
    return Lane(channel, tuple(stations), tuple(links))
